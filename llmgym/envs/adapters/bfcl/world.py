"""The objects of a task, and what their functions return, as the package writes it."""

import copy
import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmgym.calls import ToolCall
from llmgym.envs.adapters.bfcl.package import BACKENDS
from llmgym.envs.adapters.bfcl.tasks import RightCall, Task

FAILED = "Error during execution: "
"""What the package writes before the message of an exception."""


class World:
    """The objects of a task, and the functions that work on them."""

    def __init__(self, task: Task) -> None:
        self._objects = {}
        self._functions: dict[str, Callable[..., Any]] = {}
        for name in task.classes:
            module = importlib.import_module(BACKENDS.CLASS_FILE_PATH_MAPPING[name])
            made = self._objects[name] = getattr(module, name)()
            if name not in BACKENDS.STATELESS_CLASSES:
                made._load_scenario(copy.deepcopy(task.config.get(name, {})), long_context=task.long_context)
        for described in task.functions:
            owner = next(made for made in self._objects.values() if hasattr(made, described["name"]))
            self._functions[described["name"]] = getattr(owner, described["name"])

    def call(self, name: str, values: Sequence[Any], named: Mapping[str, Any]) -> str:
        """Call a function and return what it gives as the package writes it, an error too."""
        try:
            result = self._functions[name](*copy.deepcopy(values), **copy.deepcopy(named))  # some keep and change them
        except Exception as error:  # noqa: BLE001  # whatever a function raises is what it returns
            return f"{FAILED}{error}"
        if not isinstance(result, dict):
            return str(result)
        try:
            return json.dumps(result)
        except (TypeError, ValueError):
            return str(result)

    def calculates(self, name: str) -> bool:
        """Tell whether a function only calculates, and has no state."""
        return type(getattr(self._functions[name], "__self__", None)).__name__ in BACKENDS.STATELESS_CLASSES

    def as_tool_call(self, call: RightCall) -> ToolCall:
        """Return a call of a solution with names for all values."""
        bound = inspect.signature(self._functions[call.name]).bind(*call.values, **call.named)
        return ToolCall(call.name, json.loads(json.dumps(bound.arguments)))

    def __eq__(self, other: object) -> bool:
        """Whether every object has the public attributes of the other world's."""
        return isinstance(other, World) and all(
            all(getattr(self._objects[name], key) == value for key, value in vars(made).items() if key[0] != "_")
            for name, made in other._objects.items()
        )

    __hash__ = None  # type: ignore[assignment]  # worlds change
