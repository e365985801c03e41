"""`Learner`: optimiser steps over batches, in micro-batches that fit."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tensordict import TensorDict, TensorDictBase

from llmgym.config.choices import Decay
from llmgym.errors import AlgorithmError, TrainingError
from llmgym.files import whole_or_absent
from llmgym.learn import ranks
from llmgym.learn.batch import cut, default_micro_batch_tokens, micro_batches
from llmgym.learn.kl import AdaptiveKL, FixedKL
from llmgym.learn.losses.base import LanguageModelLoss
from llmgym.learn.masters import Masters
from llmgym.learn.policy import Policy
from llmgym.learn.reference import Reference
from llmgym.models.shards import in_parts_of, in_shards
from llmgym.models.shards import whole as whole_of

MAX_SKIPPED_IN_A_ROW = 3
"""Consecutive steps without a finite loss and gradient, after which training stops."""

_DECAYS: Mapping[Decay, Callable[[float], float]] = {
    "none": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 + 0.5 * math.cos(math.pi * progress),
}

_PER_TOKEN = ("advantage", "value_target", "ref_log_probs")  # of what losses read: [B, T]


class Learner:
    """AdamW with linear warm-up, decay and gradient clipping, over a TorchRL loss.

    Where several ranks learn, each has the whole batch and runs its share of the micro-batches; gradients are added up
    before they are clipped, so all ranks take the step that one process would.

    A step whose loss or gradient is not finite is left out: it would destroy the weights. Its
    batch is saved, and after `MAX_SKIPPED_IN_A_ROW` of them training stops.

    Args:
        loss: Its trainable parameters learn. Of those narrower than float32 the optimiser steps `Masters`.
        learning_rate: After warm-up.
        learning_rates: The same of parts of the loss that learn at a rate of their own, by the
            names of its submodules, such as ``critic_network``. What a part shares with a part
            before it does not belong to it. Each part's gradient is clipped by itself.
        warmup_steps: Optimiser steps over which the learning rate rises linearly.
        decay: How the learning rate falls with `progress`: not at all, linearly to 0, or along half a cosine to 0.
        weight_decay: Of AdamW.
        max_grad_norm: Longer gradients are scaled down to this norm.
        micro_batch_tokens: Tokens per forward pass, at most, what siblings share counted once; None for what suits the
            device.
        kl: What weighs the divergence from the reference, where an algorithm steers that.
    """

    def __init__(
        self,
        loss: LanguageModelLoss,
        *,
        learning_rate: float,
        learning_rates: Mapping[str, float] | None = None,
        warmup_steps: int = 0,
        decay: Decay = "none",
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
        micro_batch_tokens: int | None = None,
        kl: FixedKL | AdaptiveKL | None = None,
    ) -> None:
        self.loss = loss
        self.max_grad_norm = max_grad_norm
        rates = {"": learning_rate, **(learning_rates or {})}
        self.kl = kl
        self._reference: Reference | None = None
        self._masters = Masters()
        self._named: dict[str, torch.nn.Parameter] = {}  # what the optimiser steps, by the names of the loss
        self._parts: dict[str, list[torch.nn.Parameter]] = {part: [] for part in rates}
        for name, parameter in loss.named_parameters():
            if parameter.requires_grad:
                part = next((part for part in rates if part and name.startswith(f"{part}.")), "")
                self._named[name] = self._masters.of(parameter)
                self._parts[part].append(self._named[name])
        self.micro_batch_tokens = micro_batch_tokens or default_micro_batch_tokens(next(loss.parameters()).device)
        groups = [{"params": parameters, "lr": rates[part]} for part, parameters in self._parts.items()]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
        self._rates = list(rates.values())
        self._warmup_steps, self._decay = warmup_steps, _DECAYS[decay]
        self.progress = 0.0
        """How much of the training is done, from 0 to 1."""
        self.skipped_batches: Path | None = None
        """Where the batches of steps that were left out are saved, a directory that is made when there is one."""
        self._updates = self._taken = self._skipped_in_a_row = 0
        self.changed = False
        """Whether the parameters may differ from those that it was made with."""

    def keep_reference(self, policy: Policy) -> None:
        """Keep a policy as it is now as the reference, unless there is one already."""
        if self._reference is None:
            self._reference = Reference(policy, self.micro_batch_tokens)

    @property
    def reference(self) -> Reference:
        """The policy as it was when `keep_reference` was called.

        Raises:
            AlgorithmError: None is kept.
        """
        if self._reference is None:
            raise AlgorithmError(
                "No reference is kept: expected an algorithm that reads one to say so, with needs_reference = True."
            )
        return self._reference

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next steps depend on: parameters, those of a critic too, optimiser, reference.

        Tensors are those of the learner, not copies.
        """
        return {
            "parameters": {name: parameter.detach() for name, parameter in self._named.items()},
            "optimiser": self.optimiser.state_dict(),
            "reference": None if self._reference is None else self._reference.weights,
            "kl_coefficient": None if self.kl is None else self.kl.coefficient,
            "progress": self.progress,
            "updates": self._updates,
            "taken": self._taken,
            "skipped_in_a_row": self._skipped_in_a_row,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned for a learner with the same loss.

        Where several ranks learn, the tensors are those of the first one, and the others give an outline.

        Raises:
            TrainingError: It is that of another loss, or one of the two has a reference and the other has none.
        """
        own = self.state_dict()
        if missing := own.keys() - state.keys():
            raise TrainingError(f"Expected the state of a learner, got one without {', '.join(sorted(missing))}.")
        for part, has in (("reference", "a reference"), ("kl_coefficient", "a KL coefficient")):
            if (state[part] is None) != (own[part] is None):
                raise TrainingError(f"Expected the state of a learner with {has} where this one has one.")
        expected, got = _shapes(own), _shapes(state)
        if differ := sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name)):
            raise TrainingError(
                f"Expected the state of a learner of the same parameters, got others: {', '.join(differ[:3])}."
            )
        self.changed = True
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(_own_parts(state["parameters"][name], parameter))
            if self._reference is not None:
                for weight, value in zip(self._reference.weights, state["reference"], strict=True):
                    weight.copy_(_own_parts(value, weight))
        self._masters.round()
        stepped = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        moments = {
            number: {
                key: _own_parts(value, stepped[number]).clone() if isinstance(value, torch.Tensor) else value
                for key, value in moment.items()
            }
            for number, moment in state["optimiser"]["state"].items()
        }
        self.optimiser.load_state_dict({**state["optimiser"], "state": moments})
        if self.kl is not None:
            self.kl.coefficient = state["kl_coefficient"]
        self.progress = state["progress"]
        self._updates, self._taken, self._skipped_in_a_row = (
            state[key] for key in ("updates", "taken", "skipped_in_a_row")
        )

    @torch.no_grad()
    def align(self) -> None:
        """Set the parameters of all ranks, and their references, to those of the first one; shards exist once."""
        for tensor in [*self._named.values(), *(self._reference.weights if self._reference is not None else ())]:
            if not in_shards(tensor):
                tensor.copy_(ranks.from_first(tensor.detach()))
        self._masters.round()

    @torch.enable_grad()  # an environment in the same process may have switched gradients off
    def update(self, batch: TensorDict) -> dict[str, float]:
        """Take one optimiser step; weights are normalised over the whole batch.

        Args:
            batch: What the loss reads. The policy's log-probabilities before the step are left in it as
                ``policy_log_probs`` [B, T], and the entropies of its distributions as ``policy_entropies`` [B, T]. Both
                are NaN in rows without a gradient, which count in the weights and are not run, and where a loss leaves
                none.

        Returns:
            The losses, summed over micro-batches; the loss's metrics, averaged over what it
            counts; ``grad_norm`` before clipping, and ``grad_norm/<part>`` of parts with a learning
            rate of their own; ``learning_rate``; and ``updates_skipped``, 1.0
            if the loss or the gradient was not finite and the weights were left as they are.

        Raises:
            AlgorithmError: The batch lacks something that the loss reads.
            TrainingError: The loss or the gradient was not finite several times in a row.
        """
        self._check(batch)
        self._updates += 1
        unknown = torch.zeros_like(batch["mask"], dtype=torch.float32).masked_fill(batch["mask"], math.nan)
        of_policy = {key: unknown.clone() for key in ("policy_log_probs", "policy_entropies")}
        whole = batch.copy().set("weight", self.loss.weights(batch))
        batch.update(of_policy)
        whole["row"] = torch.arange(len(batch), device=unknown.device)
        teaches = self.loss.teaches(whole)
        whole = whole[teaches] if teaches.any() else whole
        total = max(1, self.loss.count(whole))
        metrics: dict[str, float] = {}
        self.optimiser.zero_grad()
        with ranks.own_share():
            for micro_batch, counts in self._dealt(whole):
                output = self._checked(self.loss(micro_batch))
                for key in of_policy.keys() & micro_batch.keys():  # a reward model has none
                    found = micro_batch[key]
                    batch[key][micro_batch["row"], : found.shape[1]] = found.to(unknown)
                share = self.loss.count(micro_batch) / total
                terms = {key: value for key, value in output.items() if value is not None}
                losses = [value for key, value in terms.items() if key.startswith("loss_") and value.requires_grad]
                with self._masters.collecting():
                    torch.autograd.backward(losses if counts else [0.0 * value for value in losses])
                for key, value in terms.items() if counts else ():
                    scale = 1.0 if key.startswith("loss_") else share
                    metrics[key] = metrics.get(key, 0.0) + float(value.item()) * scale
        metrics = ranks.total(metrics)
        ranks.add_gradients(self._named.values())
        for key in of_policy:
            ranks.fill(batch[key])
        for part, parameters in self._parts.items():
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            metrics[f"grad_norm/{part}".rstrip("/")] = float(whole_of(norm))
        metrics["learning_rate"] = self._set_learning_rates()
        finite = all(math.isfinite(value) for key, value in metrics.items() if key.startswith(("loss_", "grad_norm")))
        metrics["updates_skipped"] = float(not finite)
        if finite:
            self._skipped_in_a_row, self.changed = 0, True
            self.optimiser.step()
            self._masters.round()
            self._taken += 1
        else:
            self._skip(batch, metrics)
        return metrics

    def _dealt(self, batch: TensorDict) -> Iterator[tuple[TensorDict, bool]]:
        """Yield this rank's micro-batches, and whether each counts.

        Rows in which nobody said anything run no model. They go with the rows before them, or after them, so that
        every rank runs one as often as the others do.
        """
        starts, first = [0], 0
        speaks = False  # somebody, since the newest start
        for micro_batch in micro_batches(batch, self.micro_batch_tokens, self.loss.unit):
            if micro_batch["mask"].any():
                if speaks:
                    starts.append(first)
                speaks = True
            first += len(micro_batch)
        parts = [cut(batch[start:stop]) for start, stop in itertools.pairwise([*starts, first])]
        runs = speaks or (self.loss.count(batch) and not in_shards(next(self.loss.parameters())))
        yield from ranks.dealt(parts if runs else [])

    def _set_learning_rates(self) -> float:
        """Give each part its learning rate for the next optimiser step, and return the first one's."""
        share = min(1.0, (self._taken + 1) / max(1, self._warmup_steps)) * self._decay(self.progress)
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        return float(self.optimiser.param_groups[0]["lr"])

    def _check(self, batch: TensorDict) -> None:
        """Refuse a batch that lacks something that the loss reads, or has it in another shape."""
        name = type(self.loss).__name__
        for key in self.loss.reads:
            if key not in batch:
                raise AlgorithmError(
                    f"{name} reads {key!r}: expected it in the batch from `prepare` or `complete` "
                    f"(ref_log_probs where `needs_reference` is True), got {', '.join(map(str, batch.keys()))}."
                )
            if key in _PER_TOKEN and batch[key].shape != batch["mask"].shape:
                raise AlgorithmError(
                    f"{name} reads {key!r}: expected a value for every token, of the shape "
                    f"{list(batch['mask'].shape)} of the mask, got {list(batch[key].shape)}."
                )

    def _checked(self, output: Any) -> Any:
        """Refuse what a loss returned that is no loss, so that nothing would be learnt from it."""
        items = output.items() if isinstance(output, Mapping | TensorDictBase) else ()
        losses = [value for key, value in items if key.startswith("loss_") and value is not None]
        if not losses or not all(isinstance(value, torch.Tensor) and value.numel() == 1 for value in losses):
            raise AlgorithmError(
                f"{type(self.loss).__name__} has to return a TensorDict with single numbers under names that begin "
                f"with 'loss_', got {output!r:.200}"
            )
        if not any(value.requires_grad for value in losses):
            raise AlgorithmError(f"{type(self.loss).__name__} returned losses of which none has a gradient.")
        return output

    def _skip(self, batch: TensorDict, metrics: dict[str, float]) -> None:
        """Save the batch of a step that is left out; give up if there were several."""
        self._skipped_in_a_row += 1
        saved = ""
        if self.skipped_batches is not None and not ranks.number():
            self.skipped_batches.mkdir(parents=True, exist_ok=True)
            path = self.skipped_batches / f"update-{self._updates:06d}.safetensors"
            with whole_or_absent(path) as temporary:
                save_file({key: value.contiguous().cpu() for key, value in batch.items()}, temporary)
            saved = f"; its batch is in {str(path)!r}"
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            found = ", ".join(f"{key} {metrics[key]}" for key in metrics if key.startswith(("loss_", "grad_norm")))
            raise TrainingError(
                f"{self._skipped_in_a_row} optimiser steps in a row had no finite loss and gradient, the last with "
                f"{found}{saved}. Weights are those of the last step that was finite."
            )


def _own_parts(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the first rank in the parts of another one, unless it is a number."""
    sent = ranks.from_first(tensor)
    return in_parts_of(sent, like) if sent.shape == like.shape else sent


def _shapes(state: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the shape of every parameter of a state, and of every weight of its reference."""
    reference = {f"reference {i}": weight for i, weight in enumerate(state["reference"] or ())}
    return {name: list(tensor.shape) for name, tensor in {**state["parameters"], **reference}.items()}
