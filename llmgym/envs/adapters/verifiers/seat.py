"""The agent that an environment of verifiers is given: no model, but whoever plays writes the replies."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from llmgym.envs.adapters.verifiers.tasks import own_hooks
from llmgym.errors import import_extra

_package: Any = import_extra("verifiers.v1", extra="verifiers")
_state_of: Any = import_extra("verifiers.v1.state", extra="verifiers").state_cls
_text_of: Any = import_extra("verifiers.v1.types", extra="verifiers").content_text
_parsed: Any = import_extra("verifiers.v1.dialects", extra="verifiers").parse_message
_invoke: Any = import_extra("verifiers.v1.utils.decorators", extra="verifiers").invoke

Json = dict[str, Any]
Ask = Callable[[Sequence[Json]], Awaitable[str | None]]
"""Tells messages, and returns the reply; None if there will be none."""


class Seat:
    """An agent of one conversation, as `verifiers.v1.Agent` is for those who write environments.

    Args:
        config: The agent's configuration.
        ask: Where replies come from.
    """

    def __init__(self, config: Any, ask: Ask) -> None:
        self.config, self._ask = config, ask
        self.trace: Any = None
        """What verifiers knows of the conversation, once there is one."""

    async def run(self, task: Any) -> Any:
        """Have a task's prompt answered."""
        async with self.interaction(task) as interaction:
            await interaction.turn()
        return interaction.trace

    @contextlib.asynccontextmanager
    async def interaction(self, task: Any) -> AsyncIterator["Interaction"]:
        """Hold a conversation, whose user is the caller; it is scored at the end."""
        if self.trace is not None:
            raise ValueError("an agent has one conversation per episode here, and this environment begins another")
        interaction = Interaction(task, self.config, self._ask)
        self.trace = interaction.trace
        await interaction.hooks("setup")
        try:
            yield interaction
        except Exception as error:
            self.trace.record_error(error)
            raise
        await interaction.close()


class Interaction:
    """A conversation, as `verifiers.v1.Interaction` is for those who write environments.

    Args:
        task: What it is about.
        config: The agent's configuration.
        ask: Where replies come from.
    """

    def __init__(self, task: Any, config: Any, ask: Ask) -> None:
        self._task, self._config, self._ask = task, config, ask
        about = _package.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
        self.trace: Any = _package.Trace(
            task=about, state=_state_of(type(task))(), agent=_package.AgentInfo(config=config)
        )
        self._closed = self._over = False

    async def turn(self, message: Any = None) -> Any:
        """Tell the agent what the user says, or the task's prompt, and return the reply as a segment."""
        data, trace = self._task.data, self.trace
        if self._closed or self._over:
            raise RuntimeError("the conversation is over")
        if (message is None) != (not trace.nodes and data.prompt is not None):
            raise ValueError("a prompt of the task, where there is one, opens the conversation, and nothing else does")
        said = data.prompt if message is None else message
        said = [_package.UserMessage(content=said)] if isinstance(said, str) else list(said)
        said = [_parsed(one) if isinstance(one, dict) else one for one in said]
        if not trace.nodes and data.system_prompt is not None:
            said = [_package.SystemMessage(content=data.system_prompt), *said]
        reply = None if await self._refused() else await self._ask([_told(one) for one in said])
        if reply is None:
            self._over = True
            trace.stop("max_turns")
            return _package.Segment(messages=[], terminated=True)
        answer = _package.AssistantMessage(content=reply)
        for one in (*said, answer):
            before = len(trace.nodes) - 1
            parent = before if before >= 0 else None
            trace.nodes.append(_package.MessageNode(parent=parent, message=one, sampled=one is answer))
        return _package.Segment(messages=[answer])

    async def close(self) -> Any:
        """End the conversation and score it; what a signal raises is an error of the trace."""
        trace = self.trace
        if not self._closed:
            self._closed = True
            trace.stop("user_closed")
            try:
                await self.hooks("finalize")
                async with asyncio.timeout(self._task.data.timeout.scoring):
                    await self._task.score(trace)
            except Exception as error:  # noqa: BLE001  # whatever a signal raises costs the score
                trace.record_error(error)
            trace.is_completed, trace.ok = True, not trace.errors
        return trace

    async def hooks(self, name: str) -> None:
        """Call a method of the task, if it has one of its own."""
        for hook in own_hooks(self._task, name):
            await _invoke(hook, {"trace": self.trace})

    async def _refused(self) -> bool:
        """Tell whether a limit or a rule of the task ends the conversation before the next reply."""
        limit = self._config.max_turns
        if limit is not None and self.trace.num_turns >= limit:
            self.trace.stop("max_turns")
        for rule in self._task.hooks("stop"):
            stops = _invoke(rule, {_package.Trace: self.trace})
            if await stops if asyncio.iscoroutine(stops) else stops:
                self.trace.stop(rule.__name__)
        return self.trace.stop_condition is not None


def _told(message: Any) -> Json:
    """Return a message as chat templates have it; parts that are texts are joined."""
    told: Json = message.model_dump(exclude_none=True)
    parts = told.get("content")
    if isinstance(parts, list) and all(part["type"] == "text" for part in parts):
        told["content"] = _text_of(message.content)
    calls = told.pop("tool_calls", None)
    return {**told, "tool_calls": [{"id": one["id"], "function": one} for one in calls]} if calls else told
