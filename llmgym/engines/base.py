"""The protocol between the collector and whatever samples: submit, then wait for whoever is done."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from llmgym.config.sections import Sampling
from llmgym.errors import ConfigError, ContextOverflowError

if TYPE_CHECKING:
    from torch import Tensor


FinishReason = Literal["stop", "length"]
"""Why sampling stopped: after a stop token or a stop string, or at `max_tokens`."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A wish for one reply.

    Attributes:
        request_id: Returned with the completion.
        episode_id: Requests of one episode mostly have growing tokens; an engine may keep its
            cache, of which it reuses what the new tokens begin with.
        tokens: The whole context, from the first token of the conversation.
        max_tokens: Tokens to sample, at most, stop token included; no more than `sampling` says.
        stop_token_ids: Sampling ends after any of these.
        sampling: How: temperature, top-p and so on.
        seed: The same request with the same seed gives the same tokens, whatever else is
            in the batch, up to floating-point ties.

    Example:
        The second reply of episode 5, whose conversation has 8 tokens by now:

        >>> request = GenerationRequest(
        ...     request_id=5,
        ...     episode_id=5,
        ...     tokens=[1, 40, 41, 2, 1, 50, 2, 1],
        ...     max_tokens=64,
        ...     stop_token_ids=(2,),
        ...     sampling=Sampling(temperature=0.7),
        ...     seed=11,
        ... )
        >>> request.sampling.top_p
        1.0
    """

    request_id: int
    episode_id: int
    tokens: Sequence[int]
    max_tokens: int
    stop_token_ids: tuple[int, ...]
    sampling: Sampling
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply.

    Attributes:
        request_id: The request it answers.
        tokens: The sampled tokens, the stop token included if there was one.
        log_probs: Their log-probabilities under the distribution they were sampled from; zeros from an engine
            that does not `CountsLogProbs`.
        finish_reason: Why sampling stopped.
        weight_version: The weights that sampled it, or its last token. A collector refuses a reply whose version
            is not the engine's own, unless the engine `ChangesInFlight`.
        versions: The weights that sampled each token, if they are not all of one version.
    """

    request_id: int
    tokens: list[int]
    log_probs: list[float]
    finish_reason: FinishReason
    weight_version: int
    versions: tuple[int, ...] = ()


def require_room(request: GenerationRequest, context_length: int) -> None:
    """Refuse a request whose prompt leaves no room for a single token.

    Raises:
        ContextOverflowError: There is none.
    """
    if len(request.tokens) >= context_length:
        raise ContextOverflowError(
            f"A prompt of {len(request.tokens)} tokens leaves no room for a reply "
            f"in a context of {context_length} tokens."
        )


class Engine(Protocol):
    """Samples replies to any number of requests at once.

    This is all that playing and evaluating take. What else an engine can do is a protocol of its own, below.
    """

    @property
    def weight_version(self) -> int:
        """The version of the weights that sample now."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens of prompt and reply together that fit."""
        ...

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Take requests; returns at once."""
        ...

    def wait(self) -> list[Completion]:
        """Return what has finished, at least one completion; [] only if nothing is under way."""
        ...

    def abort(self) -> None:
        """Drop every request and forget every episode, after something went wrong outside."""
        ...

    def release(self, episode_ids: Iterable[int]) -> None:
        """Forget episodes that are over, so that their cache can go to others."""
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...


def complete(engine: Engine, requests: Sequence[GenerationRequest]) -> list[Completion]:
    """Return the replies to requests, whose episodes end with them, in order; nothing else may be under way."""
    episodes = {request.request_id: request.episode_id for request in requests}
    engine.submit(requests)
    replies: dict[int, Completion] = {}
    while finished := engine.wait():
        replies |= {reply.request_id: reply for reply in finished}
        engine.release([episodes[reply.request_id] for reply in finished])
    return [replies[request.request_id] for request in requests]


@runtime_checkable
class Polls(Protocol):
    """An engine that need not be waited for, so that others can move in between."""

    def poll(self) -> list[Completion]:
        """Sample for a moment, such as a token per request; return what has finished, which may be nothing."""
        ...


@runtime_checkable
class SamplesElsewhere(Polls, Protocol):
    """An engine that samples whether or not it is polled, and tells when polling it is of use."""

    def on_finished(self, tell: Callable[[], object]) -> None:
        """From now on have `tell` called, in any thread, behind everything new that `poll` will return or raise."""
        ...


@runtime_checkable
class TakesWeights(Protocol):
    """An engine that can follow what a learner does to the weights."""

    def load_weights(self, weights: Iterable[tuple[str, "Tensor"]], version: int) -> None:
        """Sample with these weights from now on; nothing may be under way."""
        ...


@runtime_checkable
class ChangesInFlight(TakesWeights, Protocol):
    """An engine that takes weights in the middle of replies."""

    @property
    def changes_in_flight(self) -> Literal[True]:
        """That it does; an engine that does not has no such attribute."""
        ...


@runtime_checkable
class CountsLogProbs(Protocol):
    """An engine that says how likely each token was that it sampled."""

    @property
    def counts_log_probs(self) -> Literal[True]:
        """That it does; an engine that does not has no such attribute."""
        ...


@runtime_checkable
class LendsMemory(Protocol):
    """An engine that shares an accelerator with the learner, and can make room on it."""

    def lend_memory(self) -> None:
        """Give the accelerator's memory back until `load_weights`; nothing may be under way."""
        ...


def taking_weights(engine: Engine) -> TakesWeights:
    """Return an engine that training can hand weights to.

    Raises:
        ConfigError: It takes none.
    """
    if not isinstance(engine, TakesWeights):
        raise ConfigError(
            f"{type(engine).__name__} takes no weights: it can play and evaluate, but training expects an engine that "
            "samples with what was learnt, one with load_weights."
        )
    return engine


def require_log_probs(engine: Engine) -> None:
    """Refuse an engine whose replies cannot be learnt from.

    Raises:
        ConfigError: It does not count log-probabilities.
    """
    if not isinstance(engine, CountsLogProbs):
        raise ConfigError(
            f"{type(engine).__name__} does not count log-probabilities: it can play and evaluate, but learning from "
            "its replies expects an engine that says how likely each token was, one with counts_log_probs."
        )
