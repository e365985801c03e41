"""`Algorithm`: what a batch is made of, and the loss; it knows nothing of the trainer."""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llmgym import learn, scorers
from llmgym.config.presets import preset_of
from llmgym.config.sections import LearningConfig, OnlineConfig
from llmgym.errors import AlgorithmError, ConfigError
from llmgym.learn.signal import differ
from llmgym.registry import check_arguments, resolve_env
from llmgym.rollout.trajectory import Trajectory

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.data.tasks import Rows, TaskTable
    from llmgym.scorers import AnyScorer


class Algorithm(ABC):
    """An equation and its options.

    It keeps nothing between two calls; what training depends on is the learner's.

    Args:
        env: See the configuration, which names every option.
        options: The other options.

    Attributes:
        env_id: The environment that takes part, if any.

    Raises:
        AlgorithmError: The class lacks something; see `check_class`.
        ConfigError: An option is unknown or not allowed, or an environment is needed and none is given.
        UnknownNameError: No such environment is registered.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[LearningConfig]]
    config: LearningConfig

    def __init__(self, env: str | None = None, **options: Any) -> None:
        self.check_class()
        config = self.config_class.of({"env": env, **options})
        preset, suitable = preset_of(config.model.name), dict[str, Any]()
        if preset is not None:
            known = config.environment.env or (preset.env if config.needs_env else None)
            arguments = {} if known is None else preset.envs.get(resolve_env(known), {})
            suitable = {**preset.options_of(self.name), "env": known, "env_kwargs": dict(arguments)}
        default = self.config_class().flat()
        left_open = (name for name, value in config.flat().items() if name in suitable and value == default[name])
        self.config = config.with_options(**{name: suitable[name] for name in left_open})
        environment = self.config.environment
        given = environment.required if config.needs_env else environment.env
        self.env_id = None if given is None else resolve_env(given)
        if self.env_id is not None:
            check_arguments(self.env_id, environment.env_kwargs | environment.eval_env_kwargs)

    @classmethod
    def check_class(cls) -> None:
        """Refuse a class that does not say what every algorithm says of itself.

        Raises:
            AlgorithmError: It lacks its name, its configuration or a method.
        """
        missing = [name for name in ("name", "config_class") if not hasattr(cls, name)]
        missing += sorted(cls.__abstractmethods__)
        if missing:
            raise AlgorithmError(
                f"{cls.__name__} lacks {', '.join(missing)}: expected a class with a name, such as name = 'mine', a "
                "configuration, such as config_class = OnlineConfig, and every method that its base leaves open."
            )

    @abstractmethod
    def loss(self, model: Any) -> learn.LanguageModelLoss:
        """Return the loss that trains a model: a `Policy`, or a `RewardModel`."""

    def complete(self, batch: TensorDict, learner: learn.Learner) -> Mapping[str, float] | None:
        """Add to a batch what needs a forward pass; the batch has ``ref_log_probs`` if they are needed.

        Args:
            batch: What `prepare` returned.
            learner: Whose critic, reference and coefficients to use.

        Returns:
            What was measured, if there is something to report.
        """
        return None

    @property
    def kl(self) -> learn.FixedKL | learn.AdaptiveKL | None:
        """The weight of the divergence from the reference, if the algorithm steers it; the learner keeps it."""
        return None

    @property
    def learning_rates(self) -> Mapping[str, float]:
        """The learning rates of parts of the loss that have one of their own; see `Learner`."""
        return {}

    @property
    def settled(self) -> Mapping[str, object]:
        """The values used for the algorithm's own options that are None by default, by name."""
        return {}

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads ``ref_log_probs``, those of the reference policy."""
        return False

    @property
    def keeps_reference(self) -> bool:
        """Whether a frozen copy of what is trained is kept."""
        return self.needs_reference


class OnlineAlgorithm(Algorithm):
    """An algorithm that learns from episodes that the policy plays.

    Args:
        env: See the configuration, which names every option.
        scorer: Replaces the environment's own: a name, a function of an episode, a reward function written for verl or
            TRL, a `Scorer` or a `PairwiseScorer`.
        data: The rows to play, for an environment that takes rows: a path, or rows as `TaskTable` takes them.
        eval_data: Rows that are held out.
        options: The other options.

    Raises:
        ConfigError: An option is unknown or not allowed, or no environment is given.
        UnknownNameError: No such environment or scorer is registered.
    """

    config: OnlineConfig
    compares_siblings: ClassVar[bool] = True
    """Whether an episode is compared with others of its task, and with nothing else."""

    learns_from_expert: ClassVar[bool] = False
    """Whether each group has an episode of the environment's expert beside those of the policy."""

    def __init__(
        self,
        env: str | None = None,
        *,
        scorer: str | Callable[..., Any] | AnyScorer | None = None,
        data: str | Path | Rows | TaskTable | None = None,
        eval_data: str | Path | Rows | TaskTable | None = None,
        **options: Any,
    ) -> None:
        name = scorer if isinstance(scorer, str | None) else getattr(scorer, "__name__", type(scorer).__name__)
        kwargs = options.get("env_kwargs")
        if isinstance(kwargs, Mapping) and "rows" in kwargs:  # the same as data, so that nothing held out is trained on
            if data is not None:
                raise ConfigError("data: expected none beside env_kwargs rows, which says the same")
            options["env_kwargs"], data = {k: v for k, v in kwargs.items() if k != "rows"}, kwargs["rows"]
        super().__init__(env, scorer=name, data=_named(data), eval_data=_named(eval_data), **options)
        self.rows = {"data": data, "eval_data": eval_data}
        """The rows of a data set that it is given, if any."""
        self.given_scorer = scorer
        """The scorer as it was given."""
        self._make_scorer = None if scorer is None else scorers.find_scorer(scorer)
        if self.config.updates.reference_every and not (self.needs_reference or self.measures_kl):
            raise ConfigError(
                "reference_every: expected a reference that becomes the current policy, and nothing in this run reads "
                "one; kl_coef above 0 or measure_kl 'always' does."
            )

    @abstractmethod
    def prepare(self, trajectories: Sequence[Trajectory]) -> TensorDict | None:
        """Turn a step's trajectories into a batch that the loss reads; the rows of a group are adjacent.

        Returns:
            The batch, or None if there is nothing to learn from.
        """

    def teaches(self, siblings: Sequence[Trajectory]) -> bool:
        """Tell whether there is something to learn from a group: scores that differ, if siblings are compared."""
        scores = [trajectory.score for trajectory in siblings if trajectory.score is not None]
        return differ(scores) if self.compares_siblings else bool(scores)

    @cached_property
    def scorer(self) -> AnyScorer | None:
        """The scorer that replaces the environment's own, made on first use because it may be a model."""
        return None if self._make_scorer is None else as_configured(self._make_scorer(), self.config)

    @property
    def keeps_reference(self) -> bool:
        """Whether a frozen copy of what is trained is kept: for the loss, or to measure how far it has moved."""
        return self.needs_reference or self.measures_kl

    @property
    def measures_kl(self) -> bool:
        """Whether each step's divergence from the reference is reported."""
        wish, model = self.config.updates.measure_kl, self.config.model
        if wish == "auto":
            return self.needs_reference or model.lora_rank > 0
        return wish == "always"


class OfflineAlgorithm(Algorithm):
    """An algorithm that learns from data."""

    @abstractmethod
    def examples(self, skipped: list[str] | None = None) -> Sequence[Any]:
        """Return everything there is to learn from.

        Args:
            skipped: Is given what is wrong with rows of `data` that cannot be read; None to raise it.
        """

    @abstractmethod
    def prepare(self, examples: Sequence[Any], writer: Any) -> TensorDict | None:
        """Turn some examples into a batch that the loss reads.

        Args:
            examples: Some of what `examples` returned.
            writer: Turns them into tokens: a `Scribe`, or the `RewardModel` that is trained.

        Returns:
            The batch, or None if there is nothing to learn from.
        """


def as_configured(scorer: AnyScorer, config: OnlineConfig) -> AnyScorer:
    """Return a scorer that is asked where a configuration says: in this process or in others."""
    rollout = config.rollout
    if not rollout.scorer_workers:
        return scorer
    log = config.run.output_dir / "scorers.log"
    return scorers.isolated(scorer, workers=rollout.scorer_workers, timeout=rollout.scorer_timeout, log=log)


def _named(rows: str | Path | Rows | TaskTable | None) -> str | Path | None:
    """Return what a configuration says of rows: their path, or how many there are of what."""
    return rows if isinstance(rows, str | Path | None) else f"{len(rows)} rows of a {type(rows).__name__}"
