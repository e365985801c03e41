"""llmgym: `collate` and `Learner.update`, as training does, its defaults throughout."""

from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM

from benchmarks.updates.episodes import Episodes, Step
from llmgym.learn.batch import collate
from llmgym.learn.learner import Learner
from llmgym.learn.losses import ClippedPolicyLoss
from llmgym.learn.policy import Policy
from llmgym.rollout.trajectory import Reply, Trajectory


def load(model: str, dtype: str, *, gradient_checkpointing: bool = False) -> Callable[[Episodes], Step]:
    """Return the update with a learner whose weights are of type `dtype`."""
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
    policy = Policy(lm, gradient_checkpointing=gradient_checkpointing)
    learner = Learner(ClippedPolicyLoss(policy), learning_rate=0.0)  # every repeat finds the same weights

    def step(episodes: Episodes) -> Step:
        batch = collate([_trajectory(episodes, index) for index in range(len(episodes.prompts))])
        batch["advantage"] = torch.tensor(episodes.advantages)[:, None] * batch["mask"]
        metrics = learner.update(batch)
        return Step(metrics["loss_objective"], metrics["grad_norm"])

    return step


def _trajectory(episodes: Episodes, index: int) -> Trajectory:
    prompt, rest = episodes.prompts[index], episodes.rests[index]
    return Trajectory(
        seed=0,
        group=0,
        tokens=prompt + rest,
        mask=[False] * len(prompt) + [bool(sampled) for sampled in episodes.masks[index]],
        log_probs=[0.0] * len(prompt) + episodes.log_probs[index],
        replies=[Reply(len(prompt), len(prompt) + len(rest), "stop", 0)],
        score=0.0,
    )
