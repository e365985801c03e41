"""The rows that a run plays: which are trained on, in which order, and which are held out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmgym.config.sections import AgentConfig, OnlineConfig, Tasks
from llmgym.data.order import in_epochs
from llmgym.data.tasks import Rows, TaskTable
from llmgym.errors import ConfigError, DataError
from llmgym.registry import make_env, takes_rows, takes_split
from llmgym.report.console import notify
from llmgym.train.rows import tell_of_skipped

Given = str | Path | Rows | TaskTable

_SPLIT, _SAMPLE = 1, 2  # what a random stream is for


@dataclass(frozen=True)
class RunRows:
    """The rows of a run.

    Attributes:
        training: Those that are trained on; None if episodes are only played to evaluate.
        held_out: Those that are not; None if there are none.
        seed: Of their order.
        own: Whether the environment brings them itself.
    """

    training: TaskTable | None
    held_out: TaskTable | None
    seed: int
    own: bool = False

    def arguments(self, *, held_out: bool) -> dict[str, TaskTable | None]:
        """Return what environments are made with that play these rows; all share one table."""
        return {} if self.own else {"rows": self.held_out if held_out else self.training}

    def order(self, step: int, rollout: int, size: int, count: int) -> list[int]:
        """Return the rows of a rollout, a function of its arguments alone.

        First rollouts go through all rows once per epoch, from step to step. Later rollouts of a step replace groups,
        and go through the rows in an order of their own.

        Args:
            step: Counted from 1.
            rollout: Of the step, counted from 0.
            size: Rows of a first rollout.
            count: How many are wanted, at most `size`.
        """
        assert self.training is not None
        start = (step - 1) * size
        key = (self.seed, rollout) if rollout else (self.seed,)
        return [int(self.training.rows[i]) for i in in_epochs(start, start + count, len(self.training), *key)]

    def evaluated(self, count: int) -> list[int]:
        """Return held-out rows to play, each once: all, or a choice of `count` that is the same in every run."""
        rows = [] if self.held_out is None else self.held_out.rows.tolist()
        if count >= len(rows):
            return rows
        return sorted(np.random.default_rng(_SAMPLE).permutation(rows)[:count].tolist())


def run_rows(config: AgentConfig, env_id: str | None, given: Mapping[str, Given | None]) -> RunRows | None:
    """Read the rows that a run is given, and keep those that are held out apart from the others.

    Args:
        config: Of the run.
        env_id: Its environment.
        given: The ``data`` and ``eval_data`` of the run, files or rows.

    Returns:
        None if the environment takes no rows.

    Raises:
        ConfigError: Rows are given to an environment that takes none, or none to one that does, or none is held out and
            some are to be evaluated.
        DataError: A row is not a task, or no row is left to train on, or more are to be evaluated than there are.
    """
    named = {name: rows for name, rows in given.items() if rows is not None}
    if env_id is None or not takes_rows(env_id):
        if named:
            raise ConfigError(
                f"{', '.join(named)}: {env_id or 'a run without an environment'} takes no rows; expected an "
                "environment that does, such as qa or a TaskEnv of your own."
            )
        return None
    tasks = config.tasks if isinstance(config, OnlineConfig) else Tasks()
    kwargs = dict(config.environment.env_kwargs)
    if tasks.skip_bad_rows:
        kwargs["skip_bad_rows"] = True
    training, held_out = (
        _table(env_id, {**kwargs, "rows": named[name]}) if name in named else None for name in ("data", "eval_data")
    )
    if not named:
        training = _table(env_id, kwargs)
        held_out = _table(env_id, {**kwargs, "split": "eval"}) if takes_split(env_id) else None
    if training is not None and tasks.eval_share:
        held_out = _share(training, tasks.eval_share, config.run.seed)
    if training is not None and held_out is not None:
        training = _apart(training, held_out, tell=not tasks.eval_share)
    if training is not None and held_out is None and named:
        notify("No rows are held out for evaluation; set eval_data or eval_share to hold some out.", warning=False)
    wanted = config.evaluation.episodes
    if wanted and held_out is None:
        raise ConfigError(f"eval_episodes: no row is held out; expected eval_data, or none to evaluate, got {wanted}")
    if wanted and held_out is not None and wanted > len(held_out):
        raise DataError(f"eval_episodes: expected at most {len(held_out)}, the rows that are held out, got {wanted}.")
    return RunRows(training, held_out, config.run.seed, own=not named)


def _table(env_id: str, kwargs: Mapping[str, Any]) -> TaskTable:
    """Return rows as the environment reads them, under the columns that it has."""
    env: Any = make_env(env_id, **kwargs)
    table: TaskTable = env.unwrapped.table
    env.close()
    tell_of_skipped(table.skipped, len(table))
    return table


def _share(table: TaskTable, share: float, seed: int) -> TaskTable:
    """Return some rows of a table."""
    count = round(share * len(table))
    if not 0 < count < len(table):
        raise DataError(f"eval_share: {share:g} of {len(table)} rows is {count}; expected some, and some to train on.")
    return table.only(np.random.default_rng([seed, _SPLIT]).permutation(table.rows)[:count])


def _apart(training: TaskTable, held_out: TaskTable, *, tell: bool) -> TaskTable:
    """Return the rows of a table whose prompts are not held out."""
    apart = training.without_prompts_of(held_out)
    if apart is None:
        raise DataError("data: every prompt is among those that are held out; expected some to train on.")
    if tell and (left_out := len(training) - len(apart)):
        are = "is" if left_out == 1 else "are"
        notify(f"{left_out} of {len(training)} rows of data {are} left out: prompts of eval_data are not trained on.")
    return apart
