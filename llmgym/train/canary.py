"""`Canary`: a probe after each hand-over of weights, which dies if engine and learner have different ones."""

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from llmgym.config.sections import Sampling
from llmgym.engines.base import Completion, GenerationRequest
from llmgym.errors import EngineError
from llmgym.learn.batch import collate
from llmgym.rollout.trajectory import Trajectory

Probe = Callable[[Sequence[GenerationRequest]], list[list[Completion]]]

LENGTHS = [1] * 48 + [4] * 4
"""Tokens of the replies, at most: few, since each more takes a step of the engine."""

_TOLERANCE = {torch.float32: 0.005, torch.bfloat16: 0.5}  # nats per token, over the quarter that is off most
_FIRST = -(10**9)  # id of a request; nobody else's is negative


class Canary:
    """Has the engine sample a few tokens and the learner's policy say how likely they are.

    If the engine has other weights than the policy, the two disagree: whether nothing arrived, or all but a layer or an
    adapter, at all servers or at all but one, or whether a cache holds what was computed with earlier weights. The
    prompts and the seeds are the same each time, so an engine that says what it said before has its old weights. Types
    narrower than float32 take many prompts: they may be off by a nat at one place, and hardly ever at many.

    Args:
        probe: Returns what each engine replies to requests.
        log_probs: Returns the learner's log-probability of every sampled token of a batch.  [B, T]
        prompts: Tokens of conversations, up to where a reply begins. Float32 takes the first alone.
        stop_token_ids: What ends a reply.
        temperature: What the learner divides logits by.
        dtypes: Those of the learner and of the engine.
    """

    def __init__(
        self,
        probe: Probe,
        log_probs: Callable[[TensorDict], Tensor],
        prompts: Sequence[list[int]],
        stop_token_ids: tuple[int, ...],
        *,
        temperature: float = 1.0,
        dtypes: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32),
    ) -> None:
        self._probe, self._log_probs, self._stop = probe, log_probs, stop_token_ids
        exact = all(dtype == torch.float32 for dtype in dtypes)
        self._prompts = [prompts[0 if exact else n % len(prompts)] for n in range(len(LENGTHS))]
        self._sampling = Sampling(temperature=temperature, max_tokens=max(LENGTHS))
        self.tolerance = max(_TOLERANCE.get(dtype, max(_TOLERANCE.values())) for dtype in dtypes)
        """Nats per token that the quarter of replies that is off most may be off by; types of weights decide it."""
        self._before: list[list[tuple[list[int], list[float]]]] = []  # of each engine

    def check(self, version: int) -> float:
        """Compare engines and policy, which should all have the weights of a version.

        Returns:
            Nats per token by which the quarter of replies is off that is off most, of the engine that is off most; a
            quarter, because one of several servers that an engine is made of may be stale.

        Raises:
            EngineError: That is beyond the tolerance.
        """
        engines = self._probe(self._requests())
        now = [[(reply.tokens, reply.log_probs) for reply in replies] for replies in engines]
        before, self._before = self._before, now
        worst = 0.0
        for number, replies in enumerate(engines):
            off = self._off(replies)
            worst = max(worst, mean := float(off.sort(descending=True).values[: len(off) // 4].mean()))
            if mean > self.tolerance:
                which = f" {number + 1} of {len(engines)}" if len(engines) > 1 else ""
                raise EngineError(
                    f"After weights of version {version} were handed over, engine{which} and learner differ by "
                    f"{mean:.3g} nats per token in a quarter of {len(replies)} replies, and in "
                    f"{int((off > self.tolerance).sum())} of them by more than {self.tolerance:g}. "
                    + (
                        "The engine says what it said before: it still has its old weights."
                        if before[number : number + 1] == [now[number]]
                        else "The engine says something new: some of the weights reached it and some did not, or it "
                        "has a cache that was filled under earlier ones."
                    )
                )
        return worst

    def _off(self, replies: Sequence[Completion]) -> Tensor:
        """Return by how many nats per token an engine and the policy differ, for each reply."""
        batch = collate([self._trajectory(*one) for one in zip(self._prompts, replies, strict=True)])
        ours = self._log_probs(batch)
        off: Tensor = ((ours - batch["log_probs"]).abs() * batch["mask"]).sum(dim=1) / batch["mask"].sum(dim=1)
        return off

    def _requests(self) -> list[GenerationRequest]:
        """Return what is asked of each engine."""
        return [
            GenerationRequest(_FIRST + seed, _FIRST + seed, prompt, length, self._stop, self._sampling, seed)
            for seed, (prompt, length) in enumerate(zip(self._prompts, LENGTHS, strict=True))
        ]

    def _trajectory(self, prompt: list[int], reply: Completion) -> Trajectory:
        trajectory = Trajectory(seed=0, group=0, score=0.0)
        trajectory.observe(prompt)
        trajectory.act(reply)
        return trajectory
