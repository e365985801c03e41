"""Preference pairs: from any environment with an expert, and as Parquet in the columns that TRL reads too.

    python -m llmgym.data.preferences --env AIOpsTriage --n 1000 --out prefs.parquet

The expert plays, and the same episode is played again with a mistake. What both have in
common is the prompt, what the expert does then is chosen, and the rest of the other episode
is rejected. The environment's own score tells that it is the worse one.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from llmgym.calls import ActionLike, Schemas
from llmgym.config import Config, parse_command_line
from llmgym.config.sections import Environment
from llmgym.data.conversations import (
    CONVERSATION,
    as_rows,
    check_prompt,
    check_reply,
    conversation_of,
    number_of,
    read_rows,
    reading,
    tools_of,
)
from llmgym.data.parquet import require_kind
from llmgym.data.tables import Table, read_table
from llmgym.envs.experts import expert_env, has_mistakes, play, play_expert
from llmgym.envs.splits import training_seeds
from llmgym.errors import DataError, LLMGymError
from llmgym.files import whole_or_absent
from llmgym.registry import make_env
from llmgym.types import Episode, Message
from llmgym.visible import visible

SCHEMA_VERSION = 2

_NUMBERS = ("score_chosen", "score_rejected", "margin")
OPTIONAL = (*_NUMBERS, "tools")
"""The columns of a file of preferences that may be missing."""

_FUTILE = 100  # episodes in a row that give no pair


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
        tools: The JSON schemas of the tools that the assistant can call.
        row: Its row in the file that it was read from, counted from 0; None if it was made.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    score_chosen: float | None = None
    score_rejected: float | None = None
    margin: float | None = None
    tools: Schemas = ()
    row: int | None = field(default=None, compare=False)


def write_preferences(path: Path, preferences: Sequence[Preference]) -> None:
    """Write preferences to a Parquet file, with page checksums; it is whole or absent.

    A column of numbers, or of tools, is left out if no pair has one, since TRL takes every column there is to be full.
    """
    conversations = ("prompt", "chosen", "rejected")
    numbers = [name for name in _NUMBERS if any(getattr(pair, name) is not None for pair in preferences)]
    texts = ["tools"] if any(pair.tools for pair in preferences) else []
    schema = pa.schema(
        [
            *((name, CONVERSATION) for name in conversations),
            *((name, pa.float64()) for name in numbers),
            *((name, pa.string()) for name in texts),
        ],
        metadata={"llmgym": json.dumps({"kind": "preferences", "version": SCHEMA_VERSION})},
    )
    rows = [
        {
            **{name: as_rows(getattr(pair, name)) for name in conversations},
            **{name: getattr(pair, name) for name in numbers},
            **{name: json.dumps(getattr(pair, name), ensure_ascii=False) for name in texts},
        }
        for pair in preferences
    ]
    with whole_or_absent(path) as temporary:
        pq.write_table(
            pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd", write_page_checksum=True
        )


def read_preferences(path: Path, skipped: list[str] | None = None) -> list[Preference]:
    """Read preferences that `write_preferences` or another program wrote.

    Columns are ``prompt``, ``chosen``, ``rejected``: lists of ``{role, content}``, or plain
    strings, which are a message of the user and replies of the assistant. ``score_chosen``,
    ``score_rejected``, ``margin`` and ``tools`` are read where they are there, other columns never.

    Args:
        path: The file.
        skipped: Is given what is wrong with rows that cannot be read, which are then left out; None to raise it.

    Raises:
        DataError: The file cannot be read, lacks a column, holds no pair or another kind of
            conversation, or a later llmgym wrote it. The message names column and row.
    """
    table = read_table(path, ("prompt", "chosen", "rejected"), optional=OPTIONAL)
    return preferences_in(table, path, skipped)


def preferences_in(table: Table, path: Path, skipped: list[str] | None = None) -> list[Preference]:
    """Return the preferences in the rows of a file, see `read_preferences`.

    Args:
        table: The rows.
        path: The file.
        skipped: See `read_preferences`.

    Raises:
        DataError: See `read_preferences`.
    """
    if table.label:
        require_kind(table.label, path, "preferences", SCHEMA_VERSION)
    with reading(path):
        return read_rows(table, _preference_of, skipped)


def _preference_of(content: Mapping[str, Any], row: int) -> Preference:
    prompt = conversation_of(content, "prompt", "user", row)
    chosen, rejected = (conversation_of(content, name, "assistant", row) for name in ("chosen", "rejected"))
    check_prompt(prompt, f"Column 'prompt', row {row}")
    check_reply(chosen, f"Column 'chosen', row {row}")
    check_reply(rejected, f"Column 'rejected', row {row}")
    high, low, margin = (number_of(content, name, row) for name in _NUMBERS)
    return Preference(prompt, chosen, rejected, high, low, margin, tools_of(content, row), row)


def generate_preferences(env: str, n: int, seed: int = 0, **env_kwargs: Any) -> list[Preference]:
    """Play the expert of an environment, and mistakes, until there are `n` preferences.

    A mistake is what the environment's `mistake` replies; where it has none, what its expert
    replied to another task. A pair whose rejected side is not scored lower is left out. Tasks
    are those of training: none of them is ever used for evaluation.

    Args:
        env: Its name, as `llmgym.registry.resolve_env` takes it; it needs an `expert`.
        n: How many.
        seed: The same seed gives the same preferences.
        env_kwargs: Arguments of the environment.

    Raises:
        ConfigError: The environment has no expert.
        EnvironmentContractError: Its expert has no more replies, but the episode goes on.
        DataError: Episodes upon episodes give no pair.
    """
    playing = make_env(env, **env_kwargs)
    inner = expert_env(playing)
    replies: Callable[[], Iterable[ActionLike]] = inner.mistake if has_mistakes(inner) else lambda: elsewhere
    preferences: list[Preference] = []
    elsewhere: list[str] = []  # the expert's replies to the task before
    futile = 0
    rng = np.random.default_rng(seed)
    while len(preferences) < n:
        (task,) = training_seeds(rng, 1)
        expert, high = play_expert(playing, task)
        other, low = play(playing, task, replies) or (None, None)
        elsewhere = expert.actions
        pair = _pair(expert, other, high, low)
        if pair is not None:
            preferences.append(replace(pair, tools=inner.toolbox.schemas))
            futile = 0
        elif (futile := futile + 1) == _FUTILE:
            raise DataError(f"{env}: {_FUTILE} tasks in a row, {task} the last, gave no pair with a worse side.")
    return preferences


def _pair(expert: Episode, other: Episode | None, high: float | None, low: float | None) -> Preference | None:
    """Divide two episodes of one task where they part; the observation that both then answer ends the prompt.

    None if the other one is not worse, or if they part because the environment said something else.
    """
    if other is None or high is None or low is None or not low < high:
        return None
    turns = zip(expert.turns, other.turns, strict=False)
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], turns))
    right, wrong = expert.turns[alike:], other.turns[alike:]
    if right[0].observation != wrong[0].observation:
        return None
    begun = Episode(expert.system_prompt, expert.turns[:alike])
    return Preference(
        prompt=(*begun.messages, *right[0].heard),
        chosen=tuple(Episode(turns=right).messages[1:]),
        rejected=tuple(Episode(turns=wrong).messages[1:]),
        score_chosen=high,
        score_rejected=low,
    )


class PreferencesConfig(Config):
    """Write preference pairs from an environment to a Parquet file."""

    environment: Environment = Environment()  # one with an expert

    n: Annotated[int, Field(ge=1)] = 1000
    """How many pairs."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the tasks and the mistakes."""

    out: Path = Path("preferences.parquet")
    """The file; one that exists is never written over."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.data.preferences``; returns the exit code."""
    prog = "python -m llmgym.data.preferences"
    try:
        config = parse_command_line(PreferencesConfig, arguments, prog)
        if config is None:
            return 0
        task = config.environment
        if config.out.exists():
            raise DataError(f"--out {str(config.out)!r} exists already; expected a new file.")
        if config.out.suffix != ".parquet":
            raise DataError(f"--out {str(config.out)!r}: expected a name that ends in .parquet.")
        preferences = generate_preferences(task.required, config.n, config.seed, **task.env_kwargs)
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_preferences(config.out, preferences)
    except (LLMGymError, OSError) as error:
        print(visible(f"{prog}: {error}"), file=sys.stderr)
        return 2
    gaps = [(pair.score_chosen or 0.0) - (pair.score_rejected or 0.0) for pair in preferences]
    print(
        visible(
            f"{config.out}: {len(preferences)} preferences of {task.env}; "
            f"the rejected side is {sum(gaps) / len(gaps):.2f} worse on average"
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
