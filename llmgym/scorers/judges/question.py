"""How a judge's prompt is made of an episode: what an agent said is data, and cannot pass for anything else."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmgym.errors import ConfigError, did_you_mean
from llmgym.scorers.conversations import columns_of, divided
from llmgym.scorers.text import last_reply
from llmgym.types import Episode, Message, well_formed

_FIELD = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")
_NAMES = (
    "s bos eos unk pad im_ eot eom start_ end_ end> turn think begin message channel tool extra_id seed: role system "
    "reserved_ eoh> eoa>"
)
_TAG = "|".join([*_NAMES.split(), "_?user", "_?assistant"])
_CONTROL = re.compile(
    rf"<(?=[|\uff5c]|/?(?:{_TAG})|<SYS)|\[(?=\||e~\[|/?(?:INST|[A-Z]+_PROMPT|[A-Z]*_?TOOL))|\](?=~)", re.IGNORECASE
)
"""Where tokens begin that part turns in common chat templates."""

_HIDDEN = "\u200b"  # a space without width


class NothingToSayError(ValueError):
    """A row has nothing where a prompt speaks of it."""


def fill(template: str, values: Mapping[str, str | None]) -> str:
    """Return a template with every ``{name}`` replaced; what it is replaced by is not looked at again.

    Args:
        template: ``{{name}}`` stands for ``{name}`` itself.
        values: What names stand for; None for nothing.

    Raises:
        ConfigError: A name is unknown.
        NothingToSayError: A name stands for nothing.

    Examples:
        >>> fill("Is {reply} right? Say {{verdict}}.", {"reply": "{answer}", "answer": "5"})
        'Is {answer} right? Say {verdict}.'
    """

    def replaced(found: re.Match[str]) -> str:
        escaped, name = found.groups()
        if escaped:
            return f"{{{escaped}}}"
        if name not in values:
            raise ConfigError(
                f"judge: the prompt has {{{name}}}, which stands for nothing here.{did_you_mean(name, values)} "
                f"Known: {', '.join(values)}; braces themselves are {{{{{name}}}}}."
            )
        value = values[name]
        if value is None:
            raise NothingToSayError(f"its row has no {name} to show a judge")
        return value

    return _FIELD.sub(replaced, template)


def fields_of(template: str) -> set[str]:
    """Return the names that a template speaks of."""
    return {name for _, name in _FIELD.findall(template) if name}


def values_of(episode: Episode) -> dict[str, str | None]:
    """Return what a prompt can speak of, each between marks: the question, the replies, and the columns of the row."""
    before, after = divided(episode)
    spoken = {"question": before, "conversation": [*before, *after]}
    return _marked_all(columns_of(episode), {"reply": last_reply(episode)}, spoken)


def values_of_pair(first: Episode, second: Episode) -> dict[str, str | None]:
    """Return what a prompt about two episodes can speak of: the question, the last replies, and the columns."""
    replies = {"first": last_reply(first), "second": last_reply(second)}
    return _marked_all(columns_of(first), replies, {"question": divided(first)[0]})


def _marked_all(
    columns: Mapping[str, Any], texts: Mapping[str, str], spoken: Mapping[str, Sequence[Message]]
) -> dict[str, str | None]:
    """Put everything between marks of one code, which depends on all of it."""
    said = {str(name): _text(value) for name, value in columns.items()} | dict(texts)
    told = [(message.role, message.content) for messages in spoken.values() for message in messages]
    code = hashlib.sha256(well_formed(json.dumps([list(said.items()), told])).encode()).hexdigest()[:10]
    values = {name: None if text is None else marked(name, text, code) for name, text in said.items()}
    return values | {name: marked(name, _spoken(messages, code), code) for name, messages in spoken.items()}


def marked(name: str, text: str, code: str) -> str:
    r"""Return a text between two marks, with tokens that part turns broken up.

    Args:
        name: Of the marks.
        text: What stands between them.
        code: Of the marks. No text can contain one that depends on it.

    Examples:
        >>> marked("reply", "It is <|im_end|> 5.", "d7b12e64dc")
        '[reply d7b12e64dc]\nIt is <\u200b|im_end|> 5.\n[end of reply d7b12e64dc]'
    """
    text = _CONTROL.sub(lambda found: found[0] + _HIDDEN, well_formed(text))
    return f"[{name} {code}]\n{text}\n[end of {name} {code}]"


def _spoken(messages: Sequence[Message], code: str) -> str:
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(marked(message.role, message.content, code) for message in messages)


def _text(value: Any) -> str | None:
    """Return a value of a column as text; None if there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip():
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
