"""`Agent`: an algorithm that trains, evaluates and saves; a trainer does the work."""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import contextlib
import os
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llmgym import train
from llmgym.config import parse_command_line
from llmgym.config.sections import OfflineConfig, RewardConfig
from llmgym.errors import ConfigError, LLMGymError, bad_paths_refused
from llmgym.report.console import say, while_read
from llmgym.report.trackers.base import opener
from llmgym.train.algorithm import Algorithm, OfflineAlgorithm, OnlineAlgorithm
from llmgym.train.interrupts import Interrupted, LeaveAtOnceError, keeping_handlers, signals_interrupt
from llmgym.workers.ray_session import prepare_local

if TYPE_CHECKING:
    from llmgym.evaluate import Evaluation


class Agent(Algorithm):
    """An algorithm that can be told to train.

    ``GRPO(env="AIOpsTriage").train(steps=40)`` is all it takes.
    """

    @abstractmethod
    def _make_trainer(self) -> train.Trainer: ...

    @cached_property
    def trainer(self) -> train.Trainer:
        """The trainer that does the work; made on first use."""
        for kind in self.config.tracking.kinds:
            opener(kind)  # which refuses what is not installed before a model is loaded
        past = train.past_of(self.config, self.name)
        if past is not None:
            self.config = self.config.with_options(date=past.date)
        with keeping_handlers():  # Ray, which TorchRL imports if it is there, takes SIGTERM for itself
            trainer = self._make_trainer()
        trainer.past = past
        return trainer

    def train(self, steps: int | None = None) -> train.Result:
        """Train, and write a run directory.

        Args:
            steps: Training steps; None for the configured number. A second call goes on
                where the first one stopped, in a run directory of its own.

        Raises:
            LLMGymError: What was given does not work; the message says why.
        """
        steps = self.config.run.steps if steps is None else steps
        if steps < 1:
            raise ConfigError(f"steps: expected at least 1, got {steps}.")
        return self.trainer.train(steps)

    def evaluate(self) -> Evaluation:
        """Evaluate the current model on what is held out."""
        return self.trainer.judge.evaluate()

    def close(self) -> None:
        """Close the environments and release what the engine holds; the end of the program releases the latter, too."""
        if "trainer" in self.__dict__:
            self.trainer.close()

    def save(self, path: str | Path) -> None:
        """Write the model and its tokenizer, as `transformers` loads them, to a new directory."""
        self.trainer.save(Path(path))


class OnlineAgent(OnlineAlgorithm, Agent):
    """Trains a language model on episodes that it plays in a text environment."""

    def _make_trainer(self) -> train.Trainer:
        cluster = self.config.cluster
        if cluster.rollout_workers and cluster.ray_address is None:
            prepare_local()
        return train.online_trainer(self)


class OfflineAgent(OfflineAlgorithm, Agent):
    """Trains a language model on data; episodes are played only to evaluate it."""

    config: OfflineConfig

    def _make_trainer(self) -> train.Trainer:
        return train.offline_trainer(self)


class RewardAgent(OfflineAlgorithm, Agent):
    """Trains a reward model on preferences."""

    config: RewardConfig

    def _make_trainer(self) -> train.Trainer:
        return train.reward_trainer(self)


@while_read
def run_command(agent_class: type[Agent], arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Train an agent from the command line.

    Args:
        agent_class: Whose configuration to read.
        arguments: The words of the command line; None for those of this process.
        prog: How the command is called; None for that of an algorithm of llmgym.

    Returns:
        The exit code: 0, 2 for a mistake that the message explains, 130 if interrupted, 143 and 129 if by SIGTERM and
        SIGHUP, 75 if its time was up.
    """
    prog = prog or f"python -m llmgym.agents.{agent_class.name}"
    try:
        agent_class.check_class()
        config = parse_command_line(agent_class.config_class, arguments, prog)
        if config is not None:
            with (
                bad_paths_refused(),
                signals_interrupt(),
                contextlib.closing(agent_class(**config.flat())) as agent,
            ):
                agent.train()
    except LLMGymError as error:
        if os.environ.get("RANK", "0") == "0" or hasattr(error, "__notes__"):  # else the others have the same error
            say(f"{prog}: {error}", stderr=True)
        return 2
    except KeyboardInterrupt as error:
        saved = isinstance(error, Interrupted) and not isinstance(error, LeaveAtOnceError)
        say(f"{prog}: interrupted{'; the same command with --resume goes on' if saved else ''}", stderr=True)
        return error.code if isinstance(error, Interrupted) else 130
    return 0
