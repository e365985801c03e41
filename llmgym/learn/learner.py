"""`Learner`: optimiser steps over batches, in micro-batches that fit."""

import math
from collections.abc import Callable

import torch
from tensordict import TensorDict
from torchrl.objectives import LossModule

from llmgym.learn.aggregation import Aggregation, token_weights
from llmgym.learn.batch import micro_batches
from llmgym.learn.policy import Policy


class Learner:
    """AdamW with linear warm-up and gradient clipping, over a TorchRL loss.

    Args:
        policy: What learns.
        loss: Its outputs that begin with ``loss_`` are summed; the others are metrics.
        learning_rate: After warm-up.
        warmup_steps: Optimiser steps over which the learning rate rises linearly.
        weight_decay: Of AdamW.
        max_grad_norm: Longer gradients are scaled down to this norm.
        micro_batch_tokens: Tokens, padding included, that a forward pass takes at the most.
        aggregation: What counts the same in the loss.
    """

    def __init__(
        self,
        policy: Policy,
        loss: LossModule,
        *,
        learning_rate: float,
        warmup_steps: int,
        weight_decay: float,
        max_grad_norm: float,
        micro_batch_tokens: int,
        aggregation: Aggregation,
    ) -> None:
        self.loss = loss
        self.max_grad_norm = max_grad_norm
        self.micro_batch_tokens = micro_batch_tokens
        self.aggregation: Aggregation = aggregation
        self._parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(self._parameters, lr=learning_rate, weight_decay=weight_decay)
        rise: Callable[[int], float] = lambda step: min(1.0, (step + 1) / max(1, warmup_steps))  # noqa: E731  # one line
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, rise)

    def update(self, batch: TensorDict) -> dict[str, float]:
        """Take one optimiser step; token weights are normalised over the whole batch.

        Args:
            batch: What the loss reads, ``episode`` [B], and, where the loss is to be corrected
                for who sampled, ``importance_weight`` [B, T]. The policy's log-probabilities
                before the step are left in it as ``policy_log_probs`` [B, T].

        Returns:
            The losses, summed over micro-batches; the loss's metrics, averaged over sampled
            tokens; ``grad_norm`` before clipping; ``learning_rate``; and ``updates_skipped``,
            1.0 if the gradient was not finite and the weights were left as they are.
        """
        weight = token_weights(batch["mask"], self.aggregation, batch["episode"])
        if "importance_weight" in batch:
            weight = weight * batch["importance_weight"]
        log_probs = torch.zeros_like(batch["log_probs"])
        batch["policy_log_probs"] = log_probs
        batch = batch.copy().set("weight", weight).set("row", torch.arange(len(batch), device=log_probs.device))
        metrics: dict[str, float] = {}
        sampled = batch["mask"].sum().clamp(min=1)
        self.optimiser.zero_grad()
        for micro_batch in micro_batches(batch, self.micro_batch_tokens):
            if not micro_batch["mask"].any():
                continue
            output = self.loss(micro_batch)
            found = micro_batch["policy_log_probs"]
            log_probs[micro_batch["row"], : found.shape[1]] = found
            share = float(micro_batch["mask"].sum() / sampled)
            terms = {key: value for key, value in output.items() if value is not None}
            losses = [value for key, value in terms.items() if key.startswith("loss_")]
            torch.autograd.backward(losses)
            for key, value in terms.items():
                metrics[key] = metrics.get(key, 0.0) + float(value.item()) * (1.0 if key.startswith("loss_") else share)
        metrics["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(self._parameters, self.max_grad_norm))
        metrics["learning_rate"] = float(self.schedule.get_last_lr()[0])
        metrics["updates_skipped"] = float(not math.isfinite(metrics["grad_norm"]))
        if not metrics["updates_skipped"]:  # a step along a gradient that is not finite would destroy the weights
            self.optimiser.step()
            self.schedule.step()
        return metrics
