"""Preference pairs as Parquet, in the columns that TRL reads too: prompt, chosen, rejected."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llmgym.data.conversations import (
    CONVERSATION,
    as_rows,
    check_prompt,
    check_reply,
    column_of_conversations,
    column_of_numbers,
    read_table,
)
from llmgym.errors import DataError
from llmgym.files import whole_or_absent
from llmgym.types import Message

SCHEMA_VERSION = 1

_NUMBERS = ("score_chosen", "score_rejected", "margin")


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt and two ways to go on, of which the first is the better one.

    Attributes:
        prompt: What was said before; the last message is the user's.
        chosen: What follows: the assistant's reply, or several turns of which it has the last.
        rejected: The same, and worse.
        score_chosen: What `chosen` is worth, where that is known.
        score_rejected: What `rejected` is worth.
        margin: By how much the reward of `chosen` should be larger, where that is known.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    score_chosen: float | None = None
    score_rejected: float | None = None
    margin: float | None = None


def write_preferences(path: Path, preferences: Sequence[Preference]) -> None:
    """Write preferences to a Parquet file, with page checksums; it is whole or absent.

    A column of numbers is left out if no pair has one, since TRL takes every column there is to be full.
    """
    conversations = ("prompt", "chosen", "rejected")
    numbers = [name for name in _NUMBERS if any(getattr(pair, name) is not None for pair in preferences)]
    schema = pa.schema(
        [*((name, CONVERSATION) for name in conversations), *((name, pa.float64()) for name in numbers)],
        metadata={"llmgym": json.dumps({"kind": "preferences", "version": SCHEMA_VERSION})},
    )
    rows = [
        {
            **{name: as_rows(getattr(pair, name)) for name in conversations},
            **{name: getattr(pair, name) for name in numbers},
        }
        for pair in preferences
    ]
    with whole_or_absent(path) as temporary:
        pq.write_table(
            pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd", write_page_checksum=True
        )


def read_preferences(path: Path) -> list[Preference]:
    """Read preferences that `write_preferences` or another program wrote.

    Columns are ``prompt``, ``chosen``, ``rejected``: lists of ``{role, content}``, or plain
    strings, which are a message of the user and replies of the assistant. ``score_chosen``,
    ``score_rejected`` and ``margin`` are read where they are there, other columns never.

    Raises:
        DataError: The file cannot be read, lacks a column, holds no pair or another kind of
            conversation, or a later llmgym wrote it. The message names column and row.
    """
    table, label = read_table(path, ("prompt", "chosen", "rejected"), optional=_NUMBERS)
    if label and (label.get("kind") != "preferences" or label["version"] > SCHEMA_VERSION):
        raise DataError(
            f"{str(path)!r}: expected preferences of version {SCHEMA_VERSION} or earlier, "
            f"got {label.get('kind', 'something else')} of version {label.get('version', 'unknown')}."
        )
    if not len(table):
        raise DataError(f"{str(path)!r}: expected preferences, got a table without rows.")
    try:
        prompts = column_of_conversations(table, "prompt", "user")
        chosen = column_of_conversations(table, "chosen", "assistant")
        rejected = column_of_conversations(table, "rejected", "assistant")
        for row in range(len(table)):
            check_prompt(prompts[row], f"Column 'prompt', row {row}")
            check_reply(chosen[row], f"Column 'chosen', row {row}")
            check_reply(rejected[row], f"Column 'rejected', row {row}")
        numbers = [column_of_numbers(table, name) for name in _NUMBERS]
    except DataError as error:
        raise DataError(f"{str(path)!r}: {error}") from None
    return [Preference(*row) for row in zip(prompts, chosen, rejected, *numbers, strict=True)]
