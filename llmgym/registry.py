"""How environments get their names, and how a name on the command line finds them."""

import inspect
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import gymnasium
from gymnasium.envs.registration import VectorEnvCreator

from llmgym.envs.adapters import ADAPTERS
from llmgym.envs.text_env import TextEnv
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import ConfigError, LLMGymError, UnknownNameError, did_you_mean, import_user_module
from llmgym.plugins import load_plugins

AnyEnv = TypeVar("AnyEnv", bound=type[TextEnv])

_IDS: list[str] = []


def register_env(name: str, *, max_episode_steps: int | None = None, **kwargs: Any) -> Callable[[AnyEnv], AnyEnv]:
    """Register the decorated `TextEnv` with Gymnasium.

    Args:
        name: The environment's id, such as ``"Rhyme-v0"`` or ``"acme/Rhyme-v0"``.
        max_episode_steps: Replies after which an unfinished episode is truncated and scored, as by the class's own
            `max_turns`; None for no limit.
        kwargs: Arguments that `gymnasium.make` passes to the class unless it is given others.

    Examples:
        >>> @register_env("Rhyme-v0")
        ... class Rhyme(TextEnv): ...
        >>> gymnasium.make("Rhyme-v0").spec.id
        'Rhyme-v0'
    """

    def register(cls: AnyEnv) -> AnyEnv:
        register_entry_point(name, cls, max_episode_steps=max_episode_steps, **kwargs)
        return cls

    return register


def register_entry_point(
    name: str, entry_point: str | Callable[..., TextEnv], *, max_episode_steps: int | None = None, **kwargs: Any
) -> None:
    """Register an environment by its class, or by ``"module:Class"`` to import it when it is made."""
    _register(name, entry_point, max_episode_steps, kwargs)
    if name not in _IDS:
        _IDS.append(name)


def register_adapters() -> None:
    """Register an id for every package that there is an adapter for; what makes its environments needs ``task=``."""
    for adapter in ADAPTERS.values():
        _register(adapter.env_id, adapter.entry_point, None, {})


def _register(
    name: str, entry_point: str | Callable[..., TextEnv], max_episode_steps: int | None, kwargs: dict[str, Any]
) -> None:
    def vector(num_envs: int, **options: Any) -> TextVectorEnv:
        return TextVectorEnv([lambda: gymnasium.make(name, **options)] * num_envs)

    make_vector = cast(VectorEnvCreator, vector)
    gymnasium.register(
        id=name,
        entry_point=entry_point,
        vector_entry_point=make_vector,
        max_episode_steps=max_episode_steps,
        kwargs=kwargs,
    )


def registered_envs() -> list[str]:
    """Return the ids of all text environments, those of installed plugins too, in the order of their registration."""
    load_plugins()
    return list(_IDS)


def resolve_env(name: str) -> str:
    """Return the Gymnasium id that `name` stands for.

    Args:
        name: A full id, one without its namespace ``llmgym/`` or its version (the highest
            is taken), or any of these after ``package.module:``, which is imported first. Without a module, it
            may also be that of an environment in an installed plugin. After the name of a package that there is an
            adapter for, it is one of that package's own names: ``reasoning_gym:chain_sum``.

    Raises:
        UnknownNameError: Nothing of that name is registered, or the module is not found.
    """
    package, colon, task = name.partition(":")
    if colon and package in ADAPTERS:
        return _adapted(package, task)
    module, _, short = name.rpartition(":")
    if module:
        _import_module(module, name)
    elif short not in gymnasium.registry:
        load_plugins()
    if short in gymnasium.registry:
        return short
    known = [*_IDS, *(id for id in gymnasium.registry if id not in _IDS)]
    wanted = re.compile(rf"(llmgym/)?{re.escape(short)}(-v(?P<version>\d+))?")
    matches = [(int(match["version"] or 0), id) for id in known if (match := wanted.fullmatch(id))]
    if not matches:
        names = {id.removeprefix("llmgym/").rpartition("-v")[0]: id for id in _IDS} | {id: id for id in _IDS}
        hint = did_you_mean(short, names)
        adapted = ", ".join(f"{package}:{adapter.example}" for package, adapter in ADAPTERS.items())
        raise UnknownNameError(
            f"No environment is registered as {name!r}.{hint} Text environments: {', '.join(_IDS)}; "
            f"those of other packages, such as {adapted}."
        )
    return max(matches)[1]


def _import_module(module: str, name: str) -> None:
    try:
        import_user_module(module, name)
    except UnknownNameError as error:
        raise UnknownNameError(f"{error}{did_you_mean(module, ADAPTERS)}") from error


def _adapted(package: str, task: str) -> str:
    """Return the id of another package's environment, which is registered when it is first asked for."""
    adapter = ADAPTERS[package]
    if not task:
        raise UnknownNameError(
            f"{package}: expected a name after the colon, such as {package}:{adapter.example}, got none."
        )
    name = re.sub(r"[^\w.-]+", "-", task)
    if name != task:  # two addresses may differ only in what an id cannot hold
        name += f"-{zlib.crc32(task.encode()):08x}"
    env_id = f"{package}/{name}" if re.search(r"-v\d+$", name) else f"{package}/{name}-v0"
    if env_id not in gymnasium.registry:
        _register(env_id, adapter.entry_point, None, {"task": task})
    return env_id


def check_arguments(env_id: str, options: Mapping[str, Any]) -> None:
    """Refuse arguments that an environment does not know, without making it.

    Raises:
        ConfigError: One is unknown.
    """
    parameters, takes_any = parameters_of(env_id)
    known = {*parameters, "max_episode_steps"}  # the last is Gymnasium's
    for name in options:
        if not takes_any and name not in known:
            raise ConfigError(
                f"{env_id} has no argument {name!r}.{did_you_mean(name, known)} Arguments: {', '.join(sorted(known))}."
            )


def parameters_of(env_id: str) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the arguments of an environment, those that a class hands on to its bases too.

    Returns:
        The parameters by their names, and whether it takes arguments of any other name as well.
    """
    creator = load_env_creator(env_id)
    functions = [creator]
    if isinstance(creator, type):
        functions = [vars(base)["__init__"] for base in creator.__mro__ if "__init__" in vars(base)]
    found: dict[str, inspect.Parameter] = {}
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        for one in parameters:
            if one.name != "self" and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                found.setdefault(one.name, one)
        if all(one.kind != one.VAR_KEYWORD for one in parameters):
            return found, False
    return found, True


def make_env(name: str, **options: Any) -> gymnasium.Env[str, str]:
    """Make the environment that `name` stands for.

    Raises:
        UnknownNameError: Nothing of that name is registered, or the module is not found.
        ConfigError: It cannot be made with these options.
    """
    env_id = resolve_env(name)
    check_arguments(env_id, options)
    try:
        return gymnasium.make(env_id, disable_env_checker=True, **options)
    except LLMGymError:
        raise
    except (TypeError, ValueError, gymnasium.error.Error) as error:
        raise ConfigError(f"Cannot make {env_id} with {options}: {error}") from error


def load_env_creator(env_id: str) -> Callable[..., gymnasium.Env[str, str]]:
    """Return what makes an environment: mostly its class."""
    entry = gymnasium.spec(env_id).entry_point
    assert entry is not None, f"{env_id} has no entry point"
    creator: Any = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    return cast(Callable[..., gymnasium.Env[str, str]], creator)
