"""`Canary`: a probe after each hand-over of weights, which dies if engine and learner have different ones."""

import torch

from llmgym.config.sections import Sampling
from llmgym.engines.base import Completion, Engine, GenerationRequest, complete
from llmgym.errors import EngineError
from llmgym.learn.batch import collate
from llmgym.learn.policy import Policy
from llmgym.learn.reference import log_probs_of
from llmgym.rollout.trajectory import Trajectory

LENGTHS = [1] * 48 + [4] * 4
"""Tokens of the replies to one prompt, at most: few, since each more takes a step of the engine."""

_TOLERANCE = {torch.float32: 0.005, torch.bfloat16: 0.5}  # nats per token, over the quarter that is off most
_FIRST = -(10**9)  # id of a request; nobody else's is negative


class Canary:
    """Has the engine sample a few tokens and the learner's policy say how likely they are.

    If the engine has other weights than the policy, the two disagree: whether nothing arrived, or all but a layer or an
    adapter, at all servers or at all but one, or whether a cache holds what was computed with earlier weights. The
    prompt and the seeds are the same each time, so an engine that says what it said before has its old weights.

    Args:
        engine: What samples.
        policy: What learns, and divides logits by the same temperature.
        prompt: Tokens of a conversation, up to where a reply begins.
        stop_token_ids: What ends a reply.
        engine_dtype: In which the engine samples.
    """

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        prompt: list[int],
        stop_token_ids: tuple[int, ...],
        *,
        engine_dtype: torch.dtype = torch.float32,
    ) -> None:
        self._engine, self._policy, self._prompt, self._stop = engine, policy, prompt, stop_token_ids
        self._sampling = Sampling(temperature=policy.temperature, max_tokens=max(LENGTHS))
        dtypes = (next(policy.parameters()).dtype, engine_dtype)
        self.tolerance = max(_TOLERANCE.get(dtype, max(_TOLERANCE.values())) for dtype in dtypes)
        """Nats per token that the quarter of replies that is off most may be off by; types of weights decide it."""
        self._before: list[tuple[list[int], list[float]]] = []

    def check(self, version: int) -> float:
        """Compare engine and policy, which should both have the weights of a version.

        Returns:
            Nats per token by which the quarter of replies is off that is off most: one server of several may be stale.

        Raises:
            EngineError: That is beyond the tolerance.
        """
        replies = self._sample()
        batch = collate([self._trajectory(reply) for reply in replies])
        device = next(self._policy.parameters()).device
        ours = log_probs_of(self._policy, batch.to(device), micro_batch_tokens=2048).cpu()
        off = ((ours - batch["log_probs"]).abs() * batch["mask"]).sum(dim=1) / batch["mask"].sum(dim=1)  # a reply each
        now = [(reply.tokens, reply.log_probs) for reply in replies]
        before, self._before = self._before, now
        worst = float(off.sort(descending=True).values[: len(off) // 4].mean())
        if worst <= self.tolerance:
            return worst
        what = (
            "The engine says what it said before: it still has its old weights."
            if now == before
            else "The engine says something new: some of the weights reached it and some did not, or it has a cache "
            "that was filled under earlier ones."
        )
        raise EngineError(
            f"After weights of version {version} were handed over, engine and learner differ by {worst:.3g} nats per "
            f"token in a quarter of {len(replies)} replies, and in {int((off > self.tolerance).sum())} of them by more "
            f"than {self.tolerance:g}. {what}"
        )

    def _sample(self) -> list[Completion]:
        """Return what the engine says, in order."""
        requests = [
            GenerationRequest(_FIRST + seed, _FIRST + seed, self._prompt, length, self._stop, self._sampling, seed)
            for seed, length in enumerate(LENGTHS)
        ]
        replies = complete(self._engine, requests)
        return [replies[request.request_id] for request in requests]

    def _trajectory(self, reply: Completion) -> Trajectory:
        trajectory = Trajectory(seed=0, group=0, score=0.0)
        trajectory.observe(self._prompt)
        trajectory.act(reply)
        return trajectory
