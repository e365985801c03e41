"""`TaskEnv`: the rows of a data set as an environment."""

from pathlib import Path

from llmgym.data.tasks import Rows, TaskTable, shared_table
from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError
from llmgym.scorers.pointwise import ScoreFunction, Scorer
from llmgym.types import Said


class TaskEnv(TextEnv):
    """Asks what a row of a data set asks, takes one reply, and leaves the score to a scorer.

    The row is ``options["row"]`` of `reset`, counted from 0, or else drawn from `self.np_random`. All environments of
    the same rows share one table. The scorer finds a dictionary of all columns in ``episode.task``, with the answer, if
    the row has one, as ``episode.task["answer"]``.

    A subclass may write `score`, and `respond` for more than one turn.

    Args:
        rows: The path of a file (Parquet, JSON lines, CSV), a list of mappings, an object with `__len__` and
            `__getitem__` such as a `datasets.Dataset`, or a `TaskTable`.
        prompt_column: The column of prompts: texts, or lists of ``{role, content}``.
        answer_column: The column of answers. None: ``answer``, or else ``ground_truth`` of verl's ``reward_model``, if
            there is one.
        skip_bad_rows: Leave out rows that cannot be read.
        system_prompt: What the agent is told first, unless the prompt of the row has a system message.
        render_mode: See `TextEnv`.
        scorer: Scores the episodes, see `TextEnv`.

    Raises:
        ConfigError: There are no rows.
        DataError: A row is not a task.

    Example:
        >>> env = TaskEnv([{"prompt": "2 + 3?", "answer": "5"}], scorer="exact")
        >>> env.reset(seed=0)[0]
        '2 + 3?'
        >>> env.step(" 5 ")[1:4]
        (1.0, True, False)
    """

    def __init__(
        self,
        rows: "str | Path | Rows | TaskTable | None" = None,
        *,
        prompt_column: str = "prompt",
        answer_column: str | None = None,
        skip_bad_rows: bool = False,
        system_prompt: str | None = None,
        render_mode: str | None = None,
        scorer: Scorer | ScoreFunction | str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode, scorer=scorer)
        if rows is None:
            raise ConfigError(
                f"{type(self).__name__} expects rows, got none: give a file with --data, or with --env-kwargs "
                "rows=FILE where a command has no --data, or rows= in Python."
            )
        self.table = shared_table(
            rows, prompt_column=prompt_column, answer_column=answer_column, skip_bad_rows=skip_bad_rows
        )
        """The rows."""
        if system_prompt is not None:
            self.system_prompt = system_prompt
        if self.max_turns is None and type(self).respond is TextEnv.respond:
            self.max_turns = 1

    def begin(self) -> Said:
        """Ask what the row asks."""
        row = self.options.get("row")
        if row is None:
            row = self.table.rows[self.np_random.integers(len(self.table))]
        self.episode.task = self.table.task(row)
        return self.table.prompt(row)
