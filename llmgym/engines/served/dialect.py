"""`Dialect`: what a kind of server is asked in, and how it answers. All else about servers is general."""

import reprlib
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmgym.engines.base import Completion, GenerationRequest
from llmgym.engines.served.group import WeightsGroup
from llmgym.engines.served.weights import Bucket
from llmgym.errors import EngineError


class TransientError(Exception):
    """A request that came to nothing and may be sent again: refused for the moment, cut off, aborted by others.

    Args:
        message: What happened.
        retry_after: Seconds after which the server wants to be asked again, if it says so.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class FaultyAnswerError(TransientError):
    """An answer that cannot be right, or that did not come in time; many of them, and something is wrong for good."""


class WorkerLostError(Exception):
    """A server is gone, or does not do what it is told; it has to be started again."""


class UnknownCallError(EngineError):
    """This version of a server does not know a call."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server that has started says about itself.

    Attributes:
        context_length: Tokens of prompt and reply that fit.
        processes: How many of its processes are given weights over a group.
        no_strings: Why it cannot stop at a string; empty if it can.
        no_group: Why weights cannot go to it over a group; empty if they can.
    """

    context_length: int
    processes: int = 1
    no_strings: str = ""
    no_group: str = ""


class Call(Protocol):
    """Makes one HTTP call of a server and returns the JSON that it answers.

    Raises:
        EngineError: It is refused for good; `UnknownCallError` if there is no such call.
        TransientError: It came to nothing.
        FaultyAnswerError: The answer is too large, or too late.
        WorkerLostError: The server is gone.
    """

    async def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Make it."""
        ...


class Dialect(Protocol):
    """One kind of server: its endpoints, its JSON, its arguments, and the way it takes weights.

    Calls raise what `Call` raises, and `WorkerLostError` where a server says that it did not do as told.

    Attributes:
        name: What messages call it.
        health: The path that answers with status 200 while a server is well.
    """

    name: str
    health: str

    # How it is started.

    def require_installed(self) -> None:
        """Raise `EngineError` unless a version that fits is installed here."""
        ...

    def arguments(
        self, given: Mapping[str, Any], *, number: int, seed: int, first_gpu: int, dtype: str | None, strings: bool
    ) -> dict[str, Any]:
        """Return the arguments of one of several servers that share a machine.

        Args:
            given: What the user gives, which has the last word.
            number: Which it is, from 0.
            seed: Of the sampling of the first.
            first_gpu: Where the first stands unless the user says otherwise; each has GPUs of its own.
            dtype: Type to sample in; the server's own choice if None.
            strings: Whether it has to stop at strings.
        """
        ...

    def serve(self, model_path: str, arguments: Mapping[str, Any], port: int, key: str) -> None:
        """Be a server on the loopback interface, all of whose calls want a key; does not return."""
        ...

    def facts(self, info: Mapping[str, Any], where: str) -> Facts:
        """Read what a server says about itself.

        Raises:
            EngineError: Its version does not fit.
            FaultyAnswerError: It says something that cannot be right.
        """
        ...

    # What is sampled.

    def payload(self, request: GenerationRequest) -> dict[str, Any]:
        """Return a request in its words."""
        ...

    def completion(self, request: GenerationRequest, reply: Mapping[str, Any], weight_version: int) -> Completion:
        """Read a reply.

        Raises:
            TransientError: The request was aborted.
            FaultyAnswerError: It holds something else than tokens with log-probabilities, as they were asked for.
        """
        ...

    def tag(self, reply: Mapping[str, Any]) -> str | None:
        """Return the tag of the weights that sampled a reply."""
        ...

    # The calls of a server.

    async def info(self, call: Call) -> dict[str, Any]:
        """Return what the server says about itself."""
        ...

    async def generate(self, call: Call, rid: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to a request, known by `rid`."""
        ...

    async def abort(self, call: Call, rid: str) -> None:
        """Drop a request."""
        ...

    async def release_memory(self, call: Call) -> None:
        """Give the accelerator's memory, weights and cache, back."""
        ...

    async def resume_memory(self, call: Call) -> None:
        """Take the memory again."""
        ...

    # The calls that give it weights.

    def paused(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Within this no request is under way and nothing is cached."""
        ...

    async def read(self, call: Call, directory: Path, tag: str) -> None:
        """Have it read weights, a directory of safetensors."""
        ...

    async def join(self, call: Call, group: WeightsGroup) -> None:
        """Have it join a group, which the learner joins meanwhile."""
        ...

    def update(self, call: Call) -> AbstractAsyncContextManager[None]:
        """What is received within this is one version of the weights."""
        ...

    async def receive(self, call: Call, group: WeightsGroup, bucket: Bucket, tag: str) -> None:
        """Have it receive tensors, which the learner sends meanwhile."""
        ...

    async def leave(self, call: Call, group: WeightsGroup) -> None:
        """Have it leave a group."""
        ...

    async def current_tag(self, call: Call) -> str | None:
        """Return the tag of the weights that it has."""
        ...


def succeeded(what: str, success: bool, message: str) -> None:
    """Raise `WorkerLostError` unless something succeeded."""
    if not success:
        raise WorkerLostError(f"{what} failed: {message:.300}")


def shown(answer: object) -> str:
    """Return what a message shows of an answer, however large and deep it is."""
    return _brief.repr(answer)[:300]


def refused(name: str, why: object) -> EngineError:
    """Return the error of a request or option that will never be accepted."""
    return EngineError(f"{name} refuses: {str(why).strip():.500}")


_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 120
_brief.maxlevel = 4
