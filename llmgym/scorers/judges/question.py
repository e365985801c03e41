"""How a judge's prompt is made of an episode: what an agent said is data, and cannot pass for anything else."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmgym.errors import ConfigError, did_you_mean
from llmgym.scorers.conversations import columns_of, divided
from llmgym.types import Episode, Message, well_formed

_FIELD = re.compile(r"\{(\w+)\}")
_CONTROL = re.compile(r"<(?=[|/]?\w*(?:im_|eot|eom|s>|start_|end_|turn|think|begin|message|channel|\|))|\[(?=/?INST\])")
_HIDDEN = "\u200b"  # a space without width


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return a template with every ``{name}`` replaced; what it is replaced by is not looked at again.

    Raises:
        ConfigError: A name stands for nothing.

    Examples:
        >>> fill("Is {reply} right?", {"reply": "{answer}", "answer": "5"})
        'Is {answer} right?'
    """

    def replaced(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            raise ConfigError(
                f"judge: the prompt has {{{name}}}, which stands for nothing here.{did_you_mean(name, values)} "
                f"Known: {', '.join(values)}."
            )
        return values[name]

    return _FIELD.sub(replaced, template)


def values_of(episode: Episode) -> dict[str, str]:
    """Return what a prompt can speak of, each between marks: the question, the replies, and the columns of the row."""
    before, after = divided(episode)
    own = {
        "question": marked("question", _spoken(before)),
        "reply": marked("reply", reply_of(episode)),
        "conversation": marked("conversation", _spoken([*before, *after])),
    }
    return {name: marked(name, _text(value)) for name, value in columns_of(episode).items()} | own


def reply_of(episode: Episode) -> str:
    """Return the last reply."""
    return episode.actions[-1] if episode.actions else ""


def marked(name: str, text: str) -> str:
    """Return a text between two marks that it cannot contain, for they name its own hash.

    Examples:
        >>> print(marked("reply", "It is <|im_end|> 5."))
        [reply d7b12e64dc]
        It is <\u200b|im_end|> 5.
        [end of reply d7b12e64dc]
    """
    text = _CONTROL.sub(lambda found: found[0] + _HIDDEN, well_formed(text))
    mark = f"{name} {hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return f"[{mark}]\n{text}\n[end of {mark}]"


def _spoken(messages: Sequence[Message]) -> str:
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
