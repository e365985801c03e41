"""The metrics of a training step: what each is called, its unit, what it means, and which algorithms have it.

The console, docs/metrics.md and the names that other libraries use (`llmgym.report.metric_names`) take their words from
this table. An algorithm of your own may measure more.
"""

import functools
import re
from dataclasses import dataclass, replace

PLAYED = ("grpo", "iterative_dpo", "opo", "ppo", "spin", "sppo")
"""Algorithms that play episodes in training."""

FROM_DATA = ("dpo", "ipo", "kl_dpo", "kto", "orpo", "reward_mle", "reward_model", "sft")
"""Algorithms that learn from data."""

EVERY = (*PLAYED, *FROM_DATA)
_GRADIENT = ("grpo", "ppo")  # a policy gradient
_OF_PAIRS = ("dpo", "ipo", "iterative_dpo", "kl_dpo", "opo", "orpo", "reward_mle", "spin")
_PAIRED = ("iterative_dpo", "opo")  # whose steps may have no pair to learn from


@dataclass(frozen=True)
class Metric:
    """A metric, or several whose names differ in one part.

    Attributes:
        name: As in ``metrics.jsonl``. Words in capitals stand for any text: ``part/NAME``.
        unit: Such as ``tokens``; empty for a number without one.
        meaning: What it is.
        agents: The algorithms that have it, by name.
        when: In which runs or steps of theirs it occurs; empty for all.
        short: The head of its column on the console; its name, unless given.
    """

    name: str
    unit: str
    meaning: str
    agents: tuple[str, ...] = EVERY
    when: str = ""
    short: str = ""

    @property
    def title(self) -> str:
        """The head of a column."""
        return self.short or self.name

    @property
    def varies(self) -> bool:
        """Whether it differs between two runs that are the same to the bit: times, speeds and memory do."""
        return self.unit in ("s", "tokens/s", "GiB")

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """What its names look like."""
        return re.compile(re.sub(r"[A-Z]{4,}", ".+", re.escape(self.name)))


ENDS = {"min": "Least of", "p10": "Percentile 10 of", "p90": "Percentile 90 of", "max": "Largest of"}
"""What the last part of a name may say of values of which the name without it is the mean."""


def _and(metric: Metric, *ends: str) -> list[Metric]:
    """Return a metric that is a mean, and others of the same values."""
    values = metric.meaning.removeprefix("Mean of ")
    assert values != metric.meaning, metric
    return [metric, *(replace(metric, name=f"{metric.name}/{end}", meaning=f"{ENDS[end]} {values}") for end in ends)]


_SOME_EFFECTIVE = "an episode did not fail"
_SOME_CUT = "one was cut off"
_SOME_ENDED = "one ended by itself"
_LEARNT = "something was learnt from"
_HERE = "this process plays"
_CUT_OFF = "cut off: by the limit of tokens of a last reply, of an episode, or of the context"

TABLE: tuple[Metric, ...] = (
    Metric("step", "", "Training steps so far, this one included"),
    Metric("epoch", "", "Passes over the data so far", when="there is data"),
    # What was earned.
    *_and(
        Metric("reward", "", "Mean of the rewards of episodes that have a score", PLAYED), "min", "p10", "p90", "max"
    ),
    Metric("reward/std", "", "Standard deviation of these rewards, of a sample", PLAYED, "two have a score"),
    Metric("success", "share", "Successes, as the environment sees them, among episodes that did not fail", PLAYED),
    Metric("part/tools/calls", "", "Calls of tools per episode", PLAYED, "the environment has tools"),
    Metric("part/tools/failures", "", "Those that gave an error", PLAYED, "the environment has tools"),
    Metric("part/NAME", "", "Mean of a named part of the score", PLAYED, "scores have parts"),
    Metric("scores_missing", "episodes", "Episodes without a score", PLAYED),
    Metric("length_correlation", "", "Correlation of reward and sampled tokens within groups", PLAYED),
    Metric("repeated", "share", "Scored episodes in which the agent says word by word what it says in another", PLAYED),
    Metric(
        "groups_without_signal", "groups", "Groups that teach nothing, such as those whose scores are equal", PLAYED
    ),
    Metric("groups_without_signal/share", "share", "The same, of all groups played", PLAYED),
    Metric("groups_replaced", "groups", "Groups that others were played in place of (rollouts_per_step)", PLAYED),
    # How long it was.
    *_and(
        Metric("reply_tokens", "tokens", "Mean of the lengths of replies", PLAYED, short="tokens/reply"), "min", "max"
    ),
    *_and(
        Metric("reply_tokens/ended", "tokens", "Mean of the lengths of replies that ended", PLAYED, _SOME_ENDED), "max"
    ),
    *_and(
        Metric("reply_tokens/cut_off", "tokens", "Mean of the lengths of replies that were cut off", PLAYED, _SOME_CUT),
        "max",
    ),
    Metric("reply_tokens/effective", "tokens", "The mean without failed episodes", PLAYED, _SOME_EFFECTIVE),
    Metric("replies_cut_off", "share", "Replies that a limit on tokens cut off", PLAYED),
    *_and(Metric("episode_tokens", "tokens", "Mean of the sampled tokens of an episode", PLAYED), "min", "max"),
    *_and(
        Metric("episode_tokens/ended", "tokens", "Mean of the same in episodes not cut off", PLAYED, _SOME_ENDED),
        *("min", "max"),
    ),
    *_and(
        Metric("episode_tokens/cut_off", "tokens", f"Mean of the same in episodes {_CUT_OFF}", PLAYED, _SOME_CUT), "max"
    ),
    *_and(
        Metric("episode_tokens/effective", "tokens", "Mean of the same without failed ones", PLAYED, _SOME_EFFECTIVE),
        "max",
    ),
    Metric("episode_tokens_trained", "tokens", "Mean of the same in episodes that were trained on", PLAYED),
    Metric("episodes_cut_off", "share", f"Episodes {_CUT_OFF}", PLAYED),
    Metric("episodes_silent", "share", "Episodes without a reply", PLAYED),
    *_and(Metric("turns", "", "Mean of the replies in an episode", PLAYED), "min", "max"),
    Metric("turns/effective", "", "The mean without failed episodes", PLAYED, _SOME_EFFECTIVE),
    *_and(Metric("prompt_tokens", "tokens", "Mean of the tokens before the first reply", PLAYED), "min", "max"),
    *_and(
        Metric("later_tokens", "tokens", "Mean of the tokens after the prompt, the environment's included", PLAYED),
        *("min", "max"),
    ),
    Metric("tokens", "tokens", "Tokens of all episodes, prompts included", PLAYED),
    # What became of episodes.
    Metric(
        "ending/ENDING", "share", "Episodes that ended like this, such as terminated or context", PLAYED, "some did"
    ),
    Metric("episodes_failed", "share", "Episodes whose environment failed", PLAYED),
    Metric("env_errors", "episodes", "Episodes whose environment raised an error", PLAYED),
    Metric("env_timeouts", "episodes", "Episodes whose environment took too long", PLAYED),
    Metric("env_retries", "", "How often episodes were played again after a fault", PLAYED),
    Metric("prompts_overlong", "episodes", "Episodes whose first observation leaves no room for a reply", PLAYED),
    Metric("episodes/asked", "episodes", "Episodes played", PLAYED),
    Metric("episodes/trained", "episodes", "Episodes with a token in the loss", PLAYED),
    Metric("episodes/masked/REASON", "episodes", "Episodes that could not be trained on, by why", PLAYED, "some were"),
    Metric("episodes/dropped/REASON", "episodes", "Episodes that were not to be, by why", PLAYED, "some were"),
    Metric("untrained", "share", "Episodes without a token in the loss", PLAYED),
    Metric("staleness", "steps", "Mean age of the weights that sampled a token", PLAYED, "max_staleness is above 0"),
    Metric("staleness_max", "steps", "Age of the oldest such weights", PLAYED, "max_staleness is above 0"),
    Metric(
        "episodes_in_flight", "episodes", "Episodes sampled by several versions", PLAYED, "max_staleness is above 0"
    ),
    # How the policy changes.
    Metric(
        "entropy",
        "nats/token",
        "Negative mean log-probability of sampled tokens: an unbiased estimate of the entropy of the distribution that "
        "they were drawn from",
        PLAYED,
    ),
    Metric(
        "kl",
        "nats/token",
        "Divergence from the reference before the update: k3 over the sampled tokens of two groups",
        PLAYED,
        "it is measured (measure_kl)",
    ),
    Metric("kl_approx", "nats/token", "Divergence from the policy before the update, as k1", _GRADIENT, _LEARNT),
    Metric(
        "kl_to_ref",
        "nats/token",
        "Divergence from the reference in the loss; of kl_dpo, a mean over pairs",
        ("grpo", "kl_dpo", "ppo"),
        "the loss has such a term",
    ),
    Metric("kl_coef", "", "Weight of the divergence from the reference", ("ppo",), _LEARNT),
    Metric("clip_fraction", "share", "Tokens whose ratio is beyond clip_epsilon", _GRADIENT, _LEARNT),
    Metric("clip_fraction/low", "share", "Those below it", _GRADIENT, _LEARNT),
    Metric("clip_fraction/high", "share", "Those above it", _GRADIENT, _LEARNT),
    Metric(
        "clipped/low",
        "share",
        "Tokens below it with a negative advantage: a clipped objective gives them no gradient",
        _GRADIENT,
        "ratios are per token",
    ),
    Metric(
        "clipped/high",
        "share",
        "Tokens above it with a positive advantage: the same",
        _GRADIENT,
        "ratios are per token",
    ),
    Metric("ESS", "share", "Effective sample size of the ratios, of a micro-batch", ("grpo",), _LEARNT),
    *_and(Metric("advantage", "", "Mean of the advantages of sampled tokens", _GRADIENT, _LEARNT), "min", "max"),
    *_and(Metric("return", "", "Mean of what the critic should foresee, per token", ("ppo",), _LEARNT), "min", "max"),
    *_and(Metric("value", "", "Mean of what the critic foresees, per token", ("ppo",), _LEARNT), "min", "max"),
    Metric("explained_variance", "share", "Variance of returns that the critic explains", ("ppo",), _LEARNT),
    Metric("value_clip_fraction", "share", "Tokens whose value is beyond clip_value", ("ppo",), "values are clipped"),
    # Who sampled and who learns.
    Metric(
        "mismatch/log_ratio_mean", "nats/token", "Mean of learner's minus engine's log-probability", PLAYED, _LEARNT
    ),
    Metric("mismatch/log_ratio_abs", "nats/token", "Mean absolute value of the same", PLAYED, _LEARNT),
    Metric("mismatch/log_ratio_max", "nats", "Largest absolute value of the same", PLAYED, _LEARNT),
    Metric("mismatch/kl", "nats/token", "Divergence of the learner from the engine", PLAYED, _LEARNT),
    Metric("mismatch/ess", "share", "Effective sample size of the tokens' ratios", PLAYED, _LEARNT),
    Metric("mismatch/ess_sequence", "share", "Effective sample size of the episodes' ratios", PLAYED, _LEARNT),
    Metric("mismatch/corrected", "share", "Tokens whose ratio is beyond the threshold", _GRADIENT, "it is corrected"),
    *_and(
        Metric("mismatch/weight", "", "Mean of the corrected ratios", _GRADIENT, "it is corrected per token"),
        *("min", "max"),
    ),
    # The update.
    Metric("loss", "", "The loss: the sum of its terms", FROM_DATA, short="loss"),
    Metric("loss_TERM", "", "A term of the loss, with its weight", when=_LEARNT),
    Metric("grad_norm", "", "Norm of the gradient before it is clipped", when=_LEARNT),
    Metric("grad_norm/PART", "", "The same of a part with a learning rate of its own", ("ppo",), _LEARNT),
    Metric("learning_rate", "", "Learning rate of the last update", when=_LEARNT),
    Metric("updates_skipped", "updates", "Updates left out since something was not finite", when=_LEARNT),
    # Preferences.
    Metric(
        "accuracy", "share", "Pairs or answers told apart rightly", (*_OF_PAIRS, "kto", "reward_model", "sppo"), _LEARNT
    ),
    Metric("margin", "", "Mean difference of a pair's implicit rewards", _OF_PAIRS, _LEARNT),
    Metric("chosen_reward", "", "Mean implicit reward of the better answer", _OF_PAIRS, _LEARNT),
    Metric("rejected_reward", "", "Mean implicit reward of the worse answer", _OF_PAIRS, _LEARNT),
    Metric("expected_reward", "", "Reward expected of one of a pair's two answers", ("reward_mle",)),
    Metric("reward_margin", "", "Mean difference of a pair's rewards", ("reward_model",)),
    Metric("gain", "", "Mean distance of implicit rewards from the reference point, on the right side", ("kto",)),
    Metric("reference_point", "", "What gains and losses are measured from: a divergence per answer", ("kto",)),
    Metric("log_ratio", "nats", "Mean log-ratio of answers to the reference", ("sppo",), _LEARNT),
    Metric("probability", "share", "Mean probability of a demonstrated token", ("sft",)),
    # Time and memory.
    Metric("seconds", "s", "Time of the step, without evaluations and checkpoints", short="s/step"),
    Metric("rollout_seconds", "s", "Time to play and score its episodes, or to wait for them", PLAYED),
    Metric("generation_seconds", "s", "The part of it in which the engine samples", PLAYED, _HERE),
    Metric("environment_seconds", "s", "The part in which an environment holds everything up", PLAYED, _HERE),
    Metric("environment_working_seconds", "s", "The same without what it slept or waited", PLAYED, _HERE),
    Metric("scoring_seconds", "s", "The same of a scorer, apart from environments' own scores", PLAYED, _HERE),
    Metric("waiting_seconds", "s", "The part in which all wait for slow environments or scorers", PLAYED, _HERE),
    Metric("learning_seconds", "s", "Time to learn from the batch"),
    Metric("updating_seconds", "s", "The part of it that optimiser steps take", PLAYED, _LEARNT),
    Metric("hand_over_seconds", "s", "Time to give engines the new weights"),
    Metric("evaluation_seconds", "s", "Time of the evaluation since the step before"),
    Metric("saving_seconds", "s", "Time of the checkpoint since the step before"),
    Metric("tokens_per_second", "tokens/s", "Sampled tokens per second of the step", PLAYED, short="tokens/s"),
    Metric("generated_per_second", "tokens/s", "The same of generation alone", PLAYED, _HERE),
    Metric("memory_gib", "GiB", "Most memory that the process has had so far"),
    Metric("gpu_memory_gib", "GiB", "Most memory of the GPU that tensors have had so far", when="a GPU learns"),
    Metric("gpu_memory_reserved_gib", "GiB", "Most memory of the GPU that torch has held so far", when="a GPU learns"),
)
"""Every metric, by topic. Of several rows that fit a name, the first one is meant."""

EVALUATED: tuple[Metric, ...] = (
    Metric("eval/success", "share", "Successes among episodes that did not fail", when="episodes are held out"),
    Metric("eval/accuracy", "share", "Pairs told apart rightly", ("reward_model",), "pairs are held out"),
    Metric("eval/reward", "", "Mean reward; of pairs, see the algorithm", when="something is held out"),
    Metric("eval/part/NAME", "", "Mean of a named part of the score", when="scores have parts"),
    Metric("eval/missing", "episodes", "Episodes without a score", when="something is held out"),
)
"""What trackers are told of a held-out evaluation; `evaluations.json` has more."""


def metric_of(name: str) -> Metric | None:
    """Return the row of a metric; None if an algorithm of one's own measures it.

    Examples:
        >>> metric_of("part/json_ok").meaning, metric_of("grad_norm").unit, metric_of("mine")
        ('Mean of a named part of the score', '', None)
    """
    return next((metric for metric in (*TABLE, *EVALUATED) if metric.pattern.fullmatch(name)), None)


def varies(name: str) -> bool:
    """Tell whether a metric differs between two runs that are the same to the bit.

    Examples:
        >>> varies("seconds"), varies("reward")
        (True, False)
    """
    metric = metric_of(name)
    return metric is not None and metric.varies
