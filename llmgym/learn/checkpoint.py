"""Checkpoints: a directory that `transformers` and SGLang open as it is, and a note of the run that wrote it."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmgym.data.strict_json import json_object
from llmgym.errors import DataError, RunDirectoryError
from llmgym.files import give_usual_mode, sync

_NOTE = "llmgym.json"


@dataclasses.dataclass(frozen=True)
class Origin:
    """The run that a checkpoint comes from.

    Attributes:
        algorithm: Its name, such as ``grpo``.
        env: The environment's id.
        model: What training began with: a directory or a name on the hub.
        steps: Training steps since then.
        learning_rate: After warm-up.
        seed: Of tasks and sampling.
        env_kwargs: Arguments of the environment.
    """

    algorithm: str
    env: str
    model: str
    steps: int
    learning_rate: float
    seed: int
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def save_checkpoint(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, origin: Origin | None = None
) -> None:
    """Write weights (safetensors), configuration and tokenizer to a new directory, whole or not at all.

    Args:
        path: The directory.
        model: What to write.
        tokenizer: What to write beside it.
        origin: The run that trained it; see `origin_of`.

    Raises:
        RunDirectoryError: `path` exists already.
    """
    if path.exists():
        raise RunDirectoryError(f"Expected a new directory for the checkpoint, but {str(path)!r} exists.")
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    if origin is not None:
        (partial / _NOTE).write_text(
            json.dumps(dataclasses.asdict(origin), indent=2, default=str) + "\n", encoding="utf-8"
        )
    for file in partial.iterdir():
        give_usual_mode(file)
        sync(file)
    partial.replace(path)


def hash_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all that decides which tokens a conversation has."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = json.dumps(tokenizer.get_vocab(), sort_keys=True) if backend is None else backend.to_str()
    parts = (vocabulary, str(tokenizer.chat_template), str(tokenizer.eos_token))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


def origin_of(model: str) -> Origin | None:
    """Return the run that a model directory comes from; None if it is no checkpoint of llmgym, or says nothing."""
    try:
        found = Origin(**json_object(Path(os.path.expanduser(model), _NOTE)))
    except (DataError, TypeError):  # no such file, no JSON, or not this JSON
        return None
    numbers = isinstance(found.steps, int) and isinstance(found.learning_rate, int | float)
    return found if numbers and isinstance(found.env_kwargs, dict) else None
