"""An episode of a taskset under way: what its environment says, and how its conversation was scored."""

import asyncio
import math
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from llmgym.envs.adapters.verifiers.seat import Seat
from llmgym.errors import import_extra

_package: Any = import_extra("verifiers.v1", extra="verifiers")

Json = dict[str, Any]

_FRAMES = 3  # of a traceback, at most


class Play:
    """An episode under way.

    Args:
        env: The environment of verifiers.
        task: Its task.
        tell: What the task, the messages and the end are told to.
    """

    def __init__(self, env: Any, task: Any, tell: Callable[[Json], None]) -> None:
        self._env, self._task, self._tell = env, task, tell
        self._reply: asyncio.Future[str | None] | None = None

    async def run(self) -> None:
        """Play it to its end."""
        self._tell({"task": self._task.data.model_dump(mode="json")})
        try:
            over = await self._play()
        except Exception as error:  # noqa: BLE001  # whatever its code raises costs the episode
            where = "".join(traceback.format_tb(error.__traceback__)[-_FRAMES:])
            self._tell({"raised": f"{type(error).__name__}: {error}\n{where}".rstrip()})
        else:
            self._tell({"over": over})

    def reply(self, text: str | None) -> None:
        """Hand over the reply that it waits for; None if there will be none."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(text)

    async def _ask(self, messages: Sequence[Json]) -> str | None:
        self._reply = asyncio.get_running_loop().create_future()
        self._tell({"said": messages})
        return await self._reply

    async def _play(self) -> Json:
        """Play it as `verifiers.v1.Env.run_episode` does, and return how it ended."""
        env, task = self._env, self._task
        seats: list[Seat] = []

        def seat(name: str, config: Any) -> Seat:
            seats.append(Seat(config, self._ask))
            return seats[-1]

        agents = _package.Agents(env.config, seat)
        await env.setup(agents)
        await env.run(task, agents)
        trace = seats[0].trace
        if trace is None:
            raise ValueError(f"{type(env).__name__}.run() held no conversation")
        about = _package.EnvInfo(id=env.config.env_id)
        await env.finalize(task, _package.Episode(env=about, task=trace.task, traces=[trace]))
        return _judged(trace)


def _judged(trace: Any) -> Json:
    """Return what a conversation was scored, or why it was not."""
    rewards = {name: None if one is None else one.value for name, one in trace.rewards.items()}
    parts = {**trace.metrics, **rewards}
    bad = [f"{name}: expected a finite number, got {one}" for name, one in parts.items() if not _is_finite(one)]
    if trace.errors:
        bad = [f"{trace.last_error.type}: {trace.last_error.message}".rstrip(": ")]
    elif not rewards:
        bad = ["expected a reward, and the taskset gave none"]
    return {"value": trace.reward, "parts": parts, "error": bad[0] if bad else None, "truncated": trace.is_truncated}


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
