"""What other libraries call the metrics, so that dashboards that were made for them work unchanged.

A name is theirs only where the number means the same; where it is counted in another unit, it is converted.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmgym.config.choices import MetricNames

Row = Mapping[str, float]


@dataclass(frozen=True)
class Alias:
    """What a library calls a metric.

    Attributes:
        theirs: Their name. Words in capitals stand for what the name of the metric has there; ENVIRONMENT for the task.
        ours: The metrics that it is made of.
        made: What it is, given the values of these; None for the value itself.
        note: How it is converted, or where the two may differ.
    """

    theirs: str
    ours: tuple[str, ...]
    made: Callable[..., float] | None = None
    note: str = ""


def _same(theirs: str, ours: str, note: str = "") -> Alias:
    return Alias(theirs, (ours,), note=note)


def _spread(theirs: str, ours: str, factor: float = 1.0, note: str = "") -> list[Alias]:
    """Return aliases of a mean, a least and a largest value."""
    ends = {"mean": ours, "min": f"{ours}/min", "max": f"{ours}/max"}
    return [Alias(f"{theirs}/{end}", (one,), lambda value: factor * value, note) for end, one in ends.items()]


def _sum(*values: float) -> float:
    return sum(values)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _product(one: float, other: float) -> float:
    return one * other


_ESTIMATED = "estimated from the sampled tokens, where they sum over the vocabulary"
_OF_COMPLETIONS = "of a whole episode: all replies together"

TRL: tuple[Alias, ...] = (
    _same("train/global_step", "step"),
    _same("train/epoch", "epoch"),
    _same("train/reward", "reward"),
    _same("train/reward_std", "reward/std"),
    _same("train/frac_reward_zero_std", "groups_without_signal/share"),
    _same("train/rewards/NAME/mean", "part/NAME", "a part of the score is their reward function"),
    _same("train/completions/mean_length", "episode_tokens", _OF_COMPLETIONS),
    _same("train/completions/min_length", "episode_tokens/min", _OF_COMPLETIONS),
    _same("train/completions/max_length", "episode_tokens/max", _OF_COMPLETIONS),
    _same("train/completions/mean_terminated_length", "episode_tokens/ended", _OF_COMPLETIONS),
    _same("train/completions/min_terminated_length", "episode_tokens/ended/min", _OF_COMPLETIONS),
    _same("train/completions/max_terminated_length", "episode_tokens/ended/max", _OF_COMPLETIONS),
    _same("train/completions/clipped_ratio", "episodes_cut_off"),
    _same("train/completion_length", "episode_tokens", "of earlier versions"),
    _same("train/tools/call_frequency", "part/tools/calls"),
    Alias("train/tools/failure_frequency", ("part/tools/failures", "part/tools/calls"), _share, "failures per call"),
    _same("train/sampling/sampling_logp_difference/mean", "mismatch/log_ratio_abs"),
    _same("train/sampling/sampling_logp_difference/max", "mismatch/log_ratio_max"),
    *_spread("train/sampling/importance_sampling_ratio", "mismatch/weight"),
    _same("train/entropy", "entropy", _ESTIMATED),
    _same("train/kl", "kl_to_ref", "of GRPO"),
    _same("train/clip_ratio/low_mean", "clipped/low"),
    _same("train/clip_ratio/high_mean", "clipped/high"),
    Alias("train/clip_ratio/region_mean", ("clipped/low", "clipped/high"), _sum, "the sum"),
    Alias("train/clip_ratio", ("clipped/low", "clipped/high"), _sum, "the sum; of earlier versions"),
    _same("train/loss", "loss", "of algorithms that learn from data"),
    _same("train/policy_loss", "loss_objective"),
    _same("train/grad_norm", "grad_norm"),
    _same("train/learning_rate", "learning_rate"),
    _same("train/step_time", "seconds"),
    _same("train/rewards/chosen", "chosen_reward"),
    _same("train/rewards/rejected", "rejected_reward"),
    Alias("train/rewards/accuracies", ("accuracy", "margin"), lambda accuracy, _: accuracy, "a tie counts half"),
    _same("train/rewards/margins", "margin"),
    Alias("train/accuracy", ("accuracy", "reward_margin"), lambda accuracy, _: accuracy, "of a reward model"),
    _same("train/margin", "reward_margin"),
    # Its PPO.
    _same("train/objective/scores", "reward"),
    Alias("train/objective/entropy", ("entropy", "episode_tokens"), _product, "per episode: times its sampled tokens"),
    _same("train/policy/entropy_avg", "entropy", _ESTIMATED),
    Alias("train/policy/clipfrac_avg", ("clipped/low", "clipped/high"), _sum, "the sum"),
    _same("train/loss/policy_avg", "loss_objective"),
    _same("train/lr", "learning_rate"),
    # Its online DPO.
    Alias("train/val/contain_eos_token", ("episodes_cut_off",), lambda share: 1 - share, "one minus ours"),
    # Evaluations.
    _same("eval/reward", "eval/reward"),
    _same("eval/rewards/NAME/mean", "eval/part/NAME", "a part of the score is their reward function"),
    _same("eval/accuracy", "eval/accuracy"),
)
"""TRL 1.16, and its PPO of earlier versions, as trackers of Transformers show them: with ``train/`` and ``eval/``."""

_SECONDS_OF_TOKENS = "milliseconds per sampled token"
_AFTER_PROMPT = "all tokens after the prompt, the environment's included, as theirs"

VERL: tuple[Alias, ...] = (
    _same("training/global_step", "step"),
    _same("training/epoch", "epoch"),
    *_spread("critic/score", "reward"),
    Alias(
        "critic/rewards/mean",
        ("reward", "kl_to_ref"),
        lambda reward, _: reward,
        "where the divergence is in the loss and not in the reward",
    ),
    *_spread("critic/advantages", "advantage"),
    *_spread("critic/returns", "return"),
    *_spread("critic/values", "value"),
    _same("critic/vf_explained_var", "explained_variance"),
    _same("critic/grad_norm", "grad_norm/critic_network"),
    *_spread("response_length", "later_tokens", note=_AFTER_PROMPT),
    _same("response_length/clip_ratio", "episodes_cut_off"),
    Alias(
        "response_length_non_aborted/mean",
        ("later_tokens", "episodes_silent"),
        lambda tokens, silent: tokens / (1 - silent) if silent < 1 else math.nan,
        "without episodes that have no reply",
    ),
    _same("response_length_non_aborted/max", "later_tokens/max"),
    _same("response/aborted_ratio", "episodes_silent"),
    *_spread("prompt_length", "prompt_tokens"),
    *_spread("num_turns", "turns", 2.0, "times 2: they count the messages of both sides"),
    _same("tool_call_counts/mean", "part/tools/calls"),
    _same("actor/entropy", "entropy", _ESTIMATED),
    _same("actor/pg_loss", "loss_objective"),
    Alias("actor/pg_clipfrac", ("clipped/low", "clipped/high"), _sum, "the sum"),
    _same("actor/ppo_kl", "kl_approx"),
    _same("actor/kl_loss", "kl_to_ref"),
    Alias("actor/kl_coef", ("kl_coef", "kl_to_ref"), lambda coef, _: coef, "where the divergence is in the loss"),
    _same("actor/grad_norm", "grad_norm"),
    _same("actor/lr", "learning_rate"),
    Alias("rollout_corr/kl", ("mismatch/log_ratio_mean",), lambda mean: -mean, "k1: minus ours"),
    _same("rollout_corr/k3_kl", "mismatch/kl", "k1 with top_p, top_k or min_p"),
    _same("timing_s/step", "seconds"),
    _same("timing_s/gen", "rollout_seconds", "with environments and scorers, as their agent loop"),
    _same("timing_s/update_weights", "hand_over_seconds"),
    _same("timing_s/testing", "evaluation_seconds", "of the evaluation before the step"),
    _same("timing_s/save_checkpoint", "saving_seconds", "of the checkpoint before the step"),
    Alias(
        "timing_per_token_ms/gen",
        ("rollout_seconds", "later_tokens", "episodes/asked"),
        lambda seconds, tokens, episodes: _share(1000 * seconds, tokens * episodes),
        "milliseconds per token after the prompt",
    ),
    _same("perf/total_num_tokens", "tokens"),
    _same("perf/time_per_step", "seconds"),
    Alias("perf/throughput", ("tokens", "seconds", "generation_seconds"), lambda n, s, _: n / s, "with one device"),
    _same("perf/max_memory_allocated_gb", "gpu_memory_gib"),
    _same("perf/max_memory_reserved_gb", "gpu_memory_reserved_gib"),
    _same("val-core/ENVIRONMENT/acc/mean@1", "eval/success"),
    _same("val-aux/ENVIRONMENT/reward/mean@1", "eval/reward"),
    _same("val-aux/ENVIRONMENT/NAME/mean@1", "eval/part/NAME"),
)
"""verl 0.9."""

ALIASES: Mapping[MetricNames, tuple[Alias, ...]] = {"llmgym": (), "trl": TRL, "verl": VERL}


def renamed(row: Row, names: MetricNames, environment: str = "") -> dict[str, float]:
    """Return metrics by the names of a library; those that have none there keep ours.

    Args:
        row: Metrics of a step or of an evaluation, by our names.
        names: Whose names.
        environment: What stands for ENVIRONMENT.
    """
    found: dict[str, float] = {}
    known = set[str]()
    for alias in ALIASES[names]:
        theirs = alias.theirs.replace("ENVIRONMENT", environment)
        if "NAME" in theirs:
            pattern = re.compile(alias.ours[0].replace("NAME", "(.+)"))
            matches = [match for match in map(pattern.fullmatch, row) if match is not None and match[0] not in known]
            found |= {theirs.replace("NAME", match[1]): row[match[0]] for match in matches}
            known |= {match[0] for match in matches}
        elif all(name in row for name in alias.ours):
            values = [row[name] for name in alias.ours]
            found[theirs] = values[0] if alias.made is None else alias.made(*values)
            known |= {*alias.ours}
    return {**{name: value for name, value in row.items() if name not in known}, **found}
