"""Examples to learn from: which are usable, checked before a run writes anything, and their tokens."""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from llmgym import learn
from llmgym.calls import Schemas
from llmgym.data.preferences import Preference
from llmgym.errors import DataError, ModelError
from llmgym.report.console import notify
from llmgym.types import Message


class Example(Protocol):
    """An example to learn from: a prompt and one or more answers to it, each a tuple of messages."""

    @property
    def row(self) -> int | None:
        """Its row in the file that it was read from; None if it was made."""
        ...

    @property
    def tools(self) -> Schemas:
        """The JSON schemas of the tools that can be called in it."""
        ...


AnyExample = TypeVar("AnyExample", bound=Example)


def usable(
    examples: Iterable[AnyExample], check: Callable[[AnyExample], object], data: Path | None, skipped: list[str] | None
) -> list[AnyExample]:
    """Return the examples that pass a check.

    Args:
        examples: All of them.
        check: Raises a DataError or a ModelError of one that cannot be learnt from.
        data: The file that they come from, if any.
        skipped: Is given what is wrong with those that are left out; None to raise it.

    Raises:
        DataError: An example does not pass. The message names its row.
    """
    kept = []
    for number, example in enumerate(examples):
        try:
            check(example)
        except (DataError, ModelError) as error:
            where = f"Example {number}, counted from 0" if example.row is None else f"{str(data)!r}: row {example.row}"
            if skipped is None:
                raise DataError(f"{where}: {error}") from None
            skipped.append(f"{where}: {error}")
        else:
            kept.append(example)
    return kept


def tell_of_skipped(skipped: Sequence[str] | None, kept: int) -> None:
    """Say how many rows were left out, and why the first was."""
    if skipped:
        notify(f"{len(skipped)} of {len(skipped) + kept} rows are left out, the first since: {skipped[0]}")


def conversations_of(example: Any) -> list[tuple[Message, ...]]:
    """Return each answer of an example, with the prompt before it."""
    answers = [name for name in example.__slots__ if name not in ("prompt", "tools")]
    sides = [value for name in answers if isinstance(value := getattr(example, name), tuple)]
    return [(*example.prompt, *side) for side in sides]


def encode_pairs(preferences: Sequence[Preference], model: learn.RewardModel) -> list[list[list[int]]]:
    """Return both sides of each preference as tokens, the chosen one first.

    Raises:
        DataError: One is longer than the model can read.
    """
    pairs = [[model.encode(pair.prompt + side) for side in (pair.chosen, pair.rejected)] for pair in preferences]
    longest = max(len(row) for pair in pairs for row in pair)
    if longest > model.context_length:
        raise DataError(
            f"A preference has a side of {longest} tokens, more than the {model.context_length} that the model "
            "reads; nothing is cut off. Leave such pairs out."
        )
    return pairs
