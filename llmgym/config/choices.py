"""What options may be chosen from, by name; the files that act on a choice explain it."""

from typing import Literal

Decay = Literal["none", "linear", "cosine"]
"""How a learning rate falls over a run: not at all, linearly to 0, or along half a cosine to 0."""

History = Literal["append", "template"]
"""What the model sees of earlier turns. ``append``: what was said, token by token. ``template``: what
the chat template makes of it now, such as replies without their thinking."""

EngineKind = Literal["auto", "local", "sglang"]
"""Which engine to sample with."""

WeightTransfer = Literal["directory", "group"]
"""How weights reach an SGLang server: as safetensors that it reads, or over a process group with the learner."""

Estimator = Literal[
    "group_std",
    "dr_grpo",
    "rloo",
    "optimal_baseline",
    "batch_std",
    "reinforce_plus_plus",
    "reinforce_plus_plus_baseline",
]
"""How an episode's advantage is estimated from the rewards of its group; see `llmgym.learn.advantages.episodes`."""

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]
"""``token-mean``: every sampled token counts the same (DAPO, arXiv:2503.14476, equation 8).
``seq-mean-token-mean``: every episode counts the same, however many rows it has, and within it
every sampled token (GRPO, arXiv:2402.03300, equation 3).
``seq-mean-token-sum``: a sum over the tokens of an episode, a mean over episodes: the policy
gradient as it is derived, in which long episodes have large gradients.
``seq-mean-token-sum-norm``: the same divided by a constant (Dr. GRPO, arXiv:2503.20783)."""

KLEstimator = Literal["k1", "k2", "k3", "k1+", "k3+"]
"""How a KL divergence is estimated from sampled tokens; see `llmgym.learn.kl`."""

Correction = Literal["none", "truncate", "mask"]
"""What is done with importance weights that are too large; see `llmgym.learn.mismatch`."""

Level = Literal["token", "sequence"]
"""Whether each token has a ratio of its own, or the tokens of an episode one together."""

PairStrategy = Literal["best_worst", "adjacent"]
"""``best_worst``: the best of a group against the worst, one pair per group. ``adjacent``: each against
the next in rank, up to one pair fewer than the group has members."""

Preference = Literal["strict", "logistic"]
"""With which probability one response beats another, by their scores. ``strict``: the larger one wins, a tie,
up to rounding, is half a win. ``logistic``: sigma of the difference, which is what the scores of a reward model
mean (Bradley and Terry 1952); where two differ little, neither wins much."""

TrunkChoice = Literal["own", "shared"]
"""What a critic's value head is put on: a copy of the model that learns by itself, or the policy's own layers."""

MetricNames = Literal["llmgym", "trl", "verl"]
"""Whose names metrics have in trackers; see `llmgym.report.metric_names`."""

TrackerKind = Literal["tensorboard", "trackio", "wandb", "mlflow"]
"""What else shows the metrics of a run; see `llmgym.report.trackers`."""
