"""Tasksets: found by the names that verifiers knows them by, and refused where they need more than a conversation."""

import inspect
import itertools
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import distributions
from typing import Any

import pydantic

from llmgym.envs.adapters.global_random import GlobalRandom
from llmgym.errors import ConfigError, UnknownNameError, did_you_mean, import_extra

_package: Any = import_extra("verifiers.v1", extra="verifiers")
_built_in: Any = import_extra("verifiers.v1.tasksets", extra="verifiers")
_boundary_of: Any = import_extra("verifiers.v1.session", extra="verifiers").hook_boundary
_marked: Any = import_extra("verifiers.v1.utils.decorators", extra="verifiers").discover_decorated

_MOST = 1_000  # tasks of a taskset that has no end
_CHATS = ("bash", "null")  # harnesses that a task without tools can do without; the first is the default


def load(name: str, config: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Return the environment of a taskset, and its tasks.

    Args:
        name: The taskset's id, as verifiers has it.
        config: Fields of the taskset's configuration.

    Raises:
        UnknownNameError: There is no such taskset.
        ConfigError: It refuses its configuration, cannot be loaded, has no tasks, or needs more than a conversation.
    """
    _check(name, config)
    try:
        with GlobalRandom(0):
            env = _package.load_environment(_package.resolve_env_config({"taskset": {**config, "id": name}}))
            tasks = list(itertools.islice(env.taskset, None if env.taskset.bounded else _MOST))
    except pydantic.ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"verifiers:{name} refuses its arguments: {wrong}.") from error
    except Exception as error:  # whatever its code raises, there is nothing to play
        raise ConfigError(f"verifiers:{name} cannot be loaded ({type(error).__name__}: {error}).") from error
    if not tasks:
        raise ConfigError(f"verifiers:{name} has no tasks, expected at least one.")
    for reason in itertools.chain(_of_env(env), *map(_of_task, tasks)):
        raise ConfigError(f"verifiers:{name} is refused: {reason}.")
    return env, tasks


def _check(name: str, config: dict[str, Any]) -> None:
    """Refuse a name or a field that there is not."""
    try:
        fields = _package.taskset_config_type(name).model_fields
    except ModuleNotFoundError as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise UnknownNameError(f"verifiers: {error}{cause}{did_you_mean(name, _names())}") from error
    except Exception as error:  # whatever its code raises, there is nothing to play
        raise ConfigError(f"verifiers:{name} cannot be imported ({type(error).__name__}: {error}).") from error
    known = sorted(set(fields) - {"id"})
    for field in config:
        if field not in known:
            raise ConfigError(
                f"verifiers:{name} has no argument {field!r}.{did_you_mean(field, known)} "
                f"Arguments: {', '.join(known)}."
            )


def _names() -> Iterator[str]:
    """Yield the tasksets in the package, and what is installed and needs it."""
    yield from (one.name for one in pkgutil.iter_modules(_built_in.__path__))
    for one in distributions():
        if any(re.match(r"verifiers\b", needed) for needed in one.requires or ()):
            yield one.metadata["Name"]


def _of_env(env: Any) -> Iterator[str]:
    """Yield why an environment cannot be played."""
    seats = [name for name, value in env.config if isinstance(value, _package.AgentConfig)]
    if len(seats) > 1:
        yield f"it has {len(seats)} agents ({', '.join(seats)}), and one can be played"
    for harness in env.config.agent_harnesses().values():
        if harness.id not in _CHATS:
            yield f"it is played by a harness of its own, {harness.id}"
    if type(env).start is not _package.Env.start:
        yield "it starts resources of its own (start)"
    kind, config = type(env.taskset).task_type(), env.taskset.config
    if env.taskset.toolsets(config) or kind.toolsets(config.task):
        yield "its tools are MCP servers (toolsets)"


def _of_task(task: Any) -> Iterator[str]:
    """Yield why a task cannot be played."""
    if task.NEEDS_CONTAINER or task.data.image is not None:
        yield "its tasks need a container"
    if task.data.skills or task.data.artifacts:
        yield "its tasks need files in a runtime (skills or artifacts)"
    for function in _called(task):
        if _lacks_runtime(function):
            yield f"{function.__qualname__} needs a runtime"
    for function in _marked(task, "intercept"):
        yield f"{function.__qualname__} looks at requests of a harness"
    for function in task.hooks("stop"):
        if _boundary_of(function, allow_trace=True) is not _package.Trace:
            yield f"{function.__qualname__} looks at requests of a harness"


def _called(task: Any) -> Iterable[Callable[..., Any]]:
    """Return what is called of a task before a conversation and after it."""
    judges = [judge.score for judge in task.plugged_judges()]
    return [*own_hooks(task, "setup", "finalize"), *task.hooks("reward"), *task.hooks("metric"), *judges]


def own_hooks(task: Any, *names: str) -> list[Callable[..., Any]]:
    """Return those of a task's methods of these names that are its own."""
    return [getattr(task, name) for name in names if getattr(type(task), name) is not getattr(_package.Task, name)]


def _lacks_runtime(function: Callable[..., Any]) -> bool:
    parameter = inspect.signature(function).parameters.get("runtime")
    return parameter is not None and parameter.default is parameter.empty
