"""The multi-turn tasks of the Berkeley Function Calling Leaderboard: users, their requests, and tools with state.

The package ``bfcl-eval`` has the tasks, the functions that tools call, and the calls that solve each task. Its own
runner evaluates text that models write, and keeps objects in global names; here tools are called by name, and every
episode has objects of its own. What counts as solved is the package's rule: after each request, the state and what the
functions returned are compared with those after the right calls.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from llmgym.calls import ActionLike
from llmgym.envs.adapters.bfcl.package import PROMPTS
from llmgym.envs.adapters.bfcl.tasks import tasks_of
from llmgym.envs.adapters.bfcl.world import FAILED, World
from llmgym.envs.text_env import TextEnv
from llmgym.envs.tools import Tool, ToolError
from llmgym.errors import ConfigError, did_you_mean
from llmgym.types import Episode, Said, Score

TASKS = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
"""The categories of several turns."""

_TYPES = {"dict": "object", "float": "number", "tuple": "array"}  # JSON's names for the package's
_LARGEST_POWER = 1_000  # what an exponent or a precision may be; far beyond it, a calculation takes hours


class BFCL(TextEnv):
    """Do what a user asks, request after request, by calling functions.

    A reply without calls says that a request is done, and the next one comes. The reward is 1 if every request was
    fulfilled as the package's checker has it, else 0.

    Args:
        task: The category, such as ``multi_turn_base``.
        options: As for every `TextEnv`.

    `reset` takes an option: ``{"index": 3}`` is the category's fourth task. Without one the seed draws a task.

    Raises:
        ConfigError: There is no such category, or it has one turn only.
    """

    system_prompt = str(PROMPTS.PROMPT_STYLE_TEMPLATES["classic"]["multiturn_behavior"])
    max_turns = 8 * (PROMPTS.MAXIMUM_STEP_LIMIT + 1)

    def __init__(self, task: str, **options: Any) -> None:
        super().__init__(**options)
        if task not in TASKS:
            raise ConfigError(
                f"bfcl: expected one of the categories {', '.join(TASKS)}, got {task!r}.{did_you_mean(task, TASKS)}"
            )
        self._tasks = tasks_of(task)

    def begin(self) -> Said:
        """Draw a task, and say its first request."""
        drawn = int(self.np_random.integers(len(self._tasks)))
        index = self.options.get("index", drawn)
        if index not in range(len(self._tasks)):
            raise ConfigError(f"index: expected a whole number below {len(self._tasks)}, got {index!r}.")
        self._task = self.episode.task = self._tasks[index]
        self._world, self._right = World(self._task), World(self._task)
        self._asked = -1  # requests before the newest
        self._fulfilled: list[bool] = []
        self._calls_of_request = 0
        self._returned: list[str] = []
        self.tools = [self._tool(one) for one in self._task.functions if one["name"] not in self._task.withheld]
        return self._next_request()

    def respond(self, action: str) -> Said | None:
        """Look at what was done, and say the next request."""
        self._fulfilled.append(self._is_fulfilled())
        return self._next_request() if self._asked + 1 < len(self._task.requests) else None

    def score(self, episode: Episode) -> Score:
        """Return 1 if every request was fulfilled."""
        total = len(self._task.requests)
        first = self._fulfilled.index(False) if False in self._fulfilled else len(self._fulfilled)
        return Score(float(first == total), {"fulfilled": first / total})

    def expert(self) -> Iterator[ActionLike]:
        """Yield the package's own calls."""
        for calls in self._task.right:
            if calls:
                yield [self._right.as_tool_call(call) for call in calls]
            yield "Done."

    def mistake(self) -> Iterator[ActionLike]:
        """Yield them too, but for those of the last request that needs some: it is only said to be done."""
        last = max(number for number, calls in enumerate(self._task.right) if calls)
        for number, calls in enumerate(self._task.right):
            if calls and number != last:
                yield [self._right.as_tool_call(call) for call in calls]
            yield "Done."

    def _next_request(self) -> str:
        self._asked += 1
        self._calls_of_request = 0
        self.max_turns = len(self.episode.turns) + PROMPTS.MAXIMUM_STEP_LIMIT + 1  # replies to one request
        request = str(self._task.requests[self._asked])
        added = [one for one in self._task.functions if self._task.withheld.get(one["name"]) == self._asked]
        if not added:
            return request
        tools = [self._tool(one) for one in added]
        self.tools = [*self.tools, *tools]
        shown = "\n".join(json.dumps(tool.schema, ensure_ascii=False) for tool in tools)
        return f"{shown}\n{PROMPTS.DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC}"

    def _is_fulfilled(self) -> bool:
        """Tell whether the newest request is, by the checker's rule.

        If it needs calls, there is one; all that the right calls return has been returned, in this request or before;
        and the state is the same. If it needs none, since something is missing, calls matter for the state later on.
        """
        right = self._task.right[self._asked]
        expected = Counter(self._right.call(call.name, call.values, call.named) for call in right)
        if not right:
            return True
        return self._calls_of_request > 0 and expected <= Counter(self._returned) and self._world == self._right

    def _tool(self, described: Mapping[str, Any]) -> Tool:
        """Return a function of the task's world as a tool."""
        parameters = described["parameters"]
        name, limited = described["name"], parameters["properties"]

        def function(**arguments: Any) -> str:
            if self._world.calculates(name):
                _refuse_endless(arguments, limited)
            self._calls_of_request += 1
            returned = self._world.call(name, (), arguments)
            self._returned.append(returned)
            if returned.startswith(FAILED):
                raise ToolError(returned)
            return returned

        told = {"name": name, "description": described["description"], "parameters": _json_schema(parameters)}
        return Tool(function, schema={"type": "function", "function": told})


def _json_schema(described: Any) -> Any:
    """Return a description of arguments with the types that JSON has."""
    if isinstance(described, list):
        return [_json_schema(one) for one in described]
    if not isinstance(described, dict):
        return described
    plain = {key: _json_schema(one) for key, one in described.items()}
    kind = plain.get("type")
    return {**plain, "type": _TYPES.get(kind, kind)} if isinstance(kind, str) else plain


def _refuse_endless(arguments: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    """Refuse what calculations would take hours or all memory for: huge powers, and texts or lists as numbers.

    Raises:
        ToolError: An argument is like that.
    """
    for name, value in arguments.items():
        if described.get(name, {}).get("type") in ("float", "integer") and not isinstance(value, int | float):
            raise ToolError(f"{name}: expected a number, got {value!r:.80}")
        if name in ("exponent", "precision") and abs(value) > _LARGEST_POWER:
            raise ToolError(f"{name}: expected a number of at most {_LARGEST_POWER}, got {value!r:.80}")
