"""`Pieces`: the texts of tokens, from the tokenizer that a run has beside its weights."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from llmgym.config.presets import directory_of
from llmgym.errors import ConfigError
from llmgym.view.runs import Run
from llmgym.visible import visible

_FILE = "tokenizer.json"


class Pieces:
    """The texts of a run's tokens.

    Args:
        run: Whose checkpoints have the tokenizer, or whose model is a directory on this machine. Nothing is asked of a
            hub.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tokenizer: Tokenizer | None = None

    def of(self, tokens: Sequence[int]) -> list[str] | None:
        """Return the text of each token, control characters spelt out; None if there is no tokenizer to be found.

        The bytes of a character that several tokens share are with the last of them.
        """
        if self._tokenizer is None:
            self._tokenizer = self._found()
        if self._tokenizer is None:
            return None
        stream, found = DecodeStream(skip_special_tokens=False), []
        for token in tokens:
            try:
                piece = stream.step(self._tokenizer, token) or ""
            except Exception:  # noqa: BLE001  # tokenizers raises nothing more special, of bytes that make no text
                stream = DecodeStream(skip_special_tokens=False)
                piece = self._tokenizer.decode([token], skip_special_tokens=False)
            known = piece or self._tokenizer.id_to_token(token) is not None
            found.append(visible(piece) if known else f"<{token}>")
        return found

    def _found(self) -> Tokenizer | None:
        name = self._run.config.get("model")
        places = [self._run.path / "checkpoint", *sorted(self._run.path.glob("checkpoints/step-*"))]
        if isinstance(name, str):
            with contextlib.suppress(ConfigError):
                places.append(Path(directory_of(name)).expanduser())
        for place in places:
            if (place / _FILE).is_file():
                with contextlib.suppress(Exception):  # the same: a file that is no tokenizer raises any of them
                    return Tokenizer.from_file(str(place / _FILE))
        return None
