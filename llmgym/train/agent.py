"""`Agent`: a configuration, what it makes of trajectories, and a loss; the loop is shared."""

from __future__ import annotations  # torch is imported when an agent is used, so that --help is instant

import contextlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from llmgym.config import parse_command_line
from llmgym.config.sections import AgentConfig, LearningConfig, OfflineConfig, OnlineConfig, RewardConfig
from llmgym.errors import ConfigError, LLMGymError
from llmgym.learn.signal import differ
from llmgym.scorers import AnyScorer, ScoreFunction, resolve_scorer

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.data.preferences import Preference
    from llmgym.evaluate import Evaluation
    from llmgym.learn.kl import AdaptiveKL, FixedKL
    from llmgym.learn.learner import Learner
    from llmgym.learn.losses import LanguageModelLoss
    from llmgym.learn.policy import Policy
    from llmgym.learn.reward_model import RewardModel
    from llmgym.rollout.trajectory import Trajectory
    from llmgym.train.loop import Loop, Result
    from llmgym.train.training import Training


class Trainable(ABC):
    """A configuration, and what is trained by it.

    Args:
        env: See the configuration, which names every option.
        options: The other options.

    Raises:
        ConfigError: An option is unknown or not allowed.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[LearningConfig]]
    config: LearningConfig

    def __init__(self, env: str = "AIOpsTriage", **options: Any) -> None:
        self.config = self.config_class.of({"env": env, **options})
        self._training: Loop | None = None

    @abstractmethod
    def _make_training(self) -> Loop: ...

    @property
    def training(self) -> Loop:
        """What does the work; made when first asked for."""
        if self._training is None:
            self._training = self._make_training()
        return self._training

    def train(self, steps: int | None = None) -> Result:
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
        return self.training.run(steps)

    def evaluate(self) -> Evaluation:
        """Judge the model as it is now on what is held out."""
        return self.training.evaluate()

    def close(self) -> None:
        """Give back what the engine holds; what is not closed does so when the program ends."""
        if self._training is not None:
            self._training.close()

    def save(self, path: str | Path) -> None:
        """Write the model and its tokenizer, as `transformers` loads them, to a new directory."""
        self.training.save(Path(path))


class Agent(Trainable):
    """Trains a language model in a text environment.

    ``GRPO(env="AIOpsTriage").train(steps=40)`` is all it takes.
    """

    config: AgentConfig

    @abstractmethod
    def loss(self, policy: Policy) -> LanguageModelLoss:
        """Return the loss that trains `policy`."""

    @property
    def kl(self) -> FixedKL | AdaptiveKL | None:
        """What weighs the divergence from the reference, where the algorithm steers that; the learner keeps it."""
        return None

    def complete(self, batch: TensorDict, learner: Learner) -> Mapping[str, float] | None:
        """Add to a batch what takes a forward pass; it has ``ref_log_probs`` where they are needed.

        Args:
            batch: What `prepare` returned.
            learner: Whose critic, reference and coefficients to use.

        Returns:
            What was measured, if there is something to report.
        """
        return None

    @property
    def learning_rates(self) -> Mapping[str, float]:
        """The learning rates of parts of the loss that have one of their own; see `Learner`."""
        return {}

    @property
    def settled(self) -> Mapping[str, object]:
        """What the algorithm's own options came to that are None by default, by their names."""
        return {}

    @property
    def scorer(self) -> AnyScorer | None:
        """What scores episodes in the place of the environment; None if nothing does."""
        return None

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads ``ref_log_probs``, those of the reference policy."""
        return False

    @property
    def keeps_reference(self) -> bool:
        """Whether a frozen copy of what is trained is kept."""
        return self.needs_reference

    @property
    def training(self) -> Training:
        """The model, the engine and the environments at work; made when first asked for."""
        return cast("Training", super().training)


class OnlineAgent(Agent):
    """An agent that learns from episodes that it plays.

    Args:
        env: See the agent's configuration, which names every option.
        scorer: Replaces the environment's own: a name, a function of an episode, a `Scorer` or a
            `PairwiseScorer`.
        options: The other options.

    Raises:
        ConfigError: An option is unknown or not allowed.
    """

    config: OnlineConfig
    compares_siblings: ClassVar[bool] = True
    """Whether an episode is compared with others of its task, and with nothing else."""

    def __init__(
        self, env: str = "AIOpsTriage", *, scorer: str | ScoreFunction | AnyScorer | None = None, **options: Any
    ) -> None:
        name = scorer if isinstance(scorer, str | None) else getattr(scorer, "__name__", type(scorer).__name__)
        super().__init__(env, scorer=name, **options)
        self._given = scorer
        self._scorer: AnyScorer | None = None
        if self.config.updates.reference_every and not (self.needs_reference or self.measures_kl):
            raise ConfigError(
                "reference_every: expected a reference that becomes the current policy, and nothing in this run reads "
                "one; kl_coef above 0 or measure_kl 'always' does."
            )

    @property
    def scorer(self) -> AnyScorer | None:
        """What scores episodes in the place of the environment, found when first asked for: it may be a model."""
        if self._scorer is None and self._given is not None:
            self._scorer = resolve_scorer(self._given)
        return self._scorer

    @property
    def keeps_reference(self) -> bool:
        """Whether a frozen copy of what is trained is kept: for the loss, or to measure how far it has moved."""
        return self.needs_reference or self.measures_kl

    @property
    def measures_kl(self) -> bool:
        """Whether each step's divergence from the reference is reported."""
        wish, model = self.config.updates.measure_kl, self.config.model
        if wish == "auto":
            return self.needs_reference or model.lora_rank > 0 or model.bundled
        return wish == "always"

    @abstractmethod
    def prepare(self, trajectories: Sequence[Trajectory]) -> TensorDict | None:
        """Turn a step's trajectories into a batch that the loss reads; groups stay together.

        Returns:
            The batch, or None if there is nothing to learn from.
        """

    def teaches(self, siblings: Sequence[Trajectory]) -> bool:
        """Tell whether there is something to learn from a group: scores that differ, if siblings are compared."""
        scores = [trajectory.score for trajectory in siblings if trajectory.score is not None]
        return differ(scores) if self.compares_siblings else bool(scores)

    def _make_training(self) -> Training:
        from llmgym.train.online import OnlineTraining

        return OnlineTraining(self)


class OfflineAgent(Agent):
    """An agent that learns from data; it plays episodes only to be evaluated."""

    config: OfflineConfig

    @abstractmethod
    def examples(self, skipped: list[str] | None = None) -> Sequence[Any]:
        """Return everything there is to learn from.

        Args:
            skipped: Is given what is wrong with rows of `data` that cannot be read; None to raise it.
        """

    @abstractmethod
    def prepare(self, examples: Sequence[Any]) -> TensorDict:
        """Turn some examples into a batch that the loss reads."""

    def _make_training(self) -> Training:
        from llmgym.train.offline import OfflineTraining

        return OfflineTraining(self)


class RewardAgent(Trainable):
    """Trains a reward model on preferences."""

    config: RewardConfig

    @abstractmethod
    def examples(self, skipped: list[str] | None = None) -> list[Preference]:
        """Return all preferences; see `OfflineAgent.examples`."""

    @abstractmethod
    def prepare(self, preferences: Sequence[Preference], model: RewardModel) -> TensorDict:
        """Turn some preferences into a batch that the loss reads."""

    @abstractmethod
    def loss(self, model: RewardModel) -> LanguageModelLoss:
        """Return the loss that trains `model`."""

    def _make_training(self) -> Loop:
        from llmgym.train.reward_training import RewardTraining

        return RewardTraining(self)


def run_command(agent_class: type[Trainable], arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Train an agent from the command line.

    Args:
        agent_class: Whose configuration to read.
        arguments: The words of the command line; None for those of this process.
        prog: How the command is called; None for that of an algorithm of llmgym.

    Returns:
        The exit code: 0, 2 for a mistake that the message explains, 130 if interrupted.
    """
    prog = prog or f"python -m llmgym.agents.{agent_class.name}"
    try:
        config = parse_command_line(agent_class.config_class, arguments, prog)
        if config is not None:
            with contextlib.closing(agent_class(**config.flat())) as agent:
                agent.train()
    except LLMGymError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    return 0
