"""How environments get their names, and how a name on the command line finds them."""

import functools
import inspect
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar, cast

import gymnasium
from gymnasium.envs.registration import EnvSpec, VectorizeMode

from llmgym import entry_points, envs
from llmgym.envs.adapters import ADAPTERS
from llmgym.errors import ConfigError, LLMGymError, UnknownNameError, did_you_mean, import_user_module
from llmgym.plugins import load_plugins
from llmgym.secrets import with_secrets, without_secrets

AnyEnv = TypeVar("AnyEnv", bound="type[envs.TextEnv]")

_IDS: list[str] = []


def register_env(name: str, *, max_episode_steps: int | None = None, **kwargs: Any) -> Callable[[AnyEnv], AnyEnv]:
    """Register the decorated `TextEnv` with Gymnasium.

    Args:
        name: The environment's id, such as ``"Rhyme-v0"`` or ``"acme/Rhyme-v0"``.
        max_episode_steps: Replies after which an unfinished episode is truncated and scored, as by the class's own
            `max_turns`; None for no limit.
        kwargs: Arguments that `gymnasium.make` passes to the class unless it is given others.

    Examples:
        >>> from llmgym import TextEnv
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
    name: str, entry_point: "str | Callable[..., envs.TextEnv]", *, max_episode_steps: int | None = None, **kwargs: Any
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
    name: str, entry_point: "str | Callable[..., envs.TextEnv]", max_episode_steps: int | None, kwargs: dict[str, Any]
) -> None:
    if isinstance(entry_point, str):
        module = entry_point.partition(":")[0]
    else:
        module, attribute = entry_point.__module__, getattr(entry_point, "__qualname__", "<none>")
        if module != "__main__" and attribute.isidentifier():  # others cannot be imported: processes get a copy
            entry_point = entry_points.keep(name, entry_point, module, attribute)
    gymnasium.register(
        id=name,
        entry_point=entry_point,
        vector_entry_point=entry_points.keep(f"{name}/vector", functools.partial(_make_vector, name), module),
        max_episode_steps=max_episode_steps,
        kwargs=_Arguments(kwargs),
    )


class _Arguments(dict[str, Any]):
    """The arguments of a registration; `gymnasium.make_vec` leaves `wrappers` and `vector_kwargs` among them.

    It takes both out with `pop`, to wrap what it makes itself, and refuses them for an environment that comes with a
    vector environment. `TextVectorEnv` has a use for both, so here it gets them, as it gets all other arguments.
    """

    def pop(self, key: str, /, *default: Any) -> Any:
        """Remove an argument, unless it is one for `TextVectorEnv`."""
        value = super().pop(key, *default)
        if key == "vectorization_mode":
            self._ours = value in (None, VectorizeMode.VECTOR_ENTRY_POINT, VectorizeMode.VECTOR_ENTRY_POINT.value)
        if key in ("wrappers", "vector_kwargs") and value and self._ours:
            self[key] = value
            return type(value)()
        return value

    def copy(self) -> Self:
        """Return a copy that does the same, for the `spec` of a vector environment."""
        return type(self)(self)


def _make_vector(
    name: str,
    *,
    num_envs: int,
    wrappers: Sequence[Callable[[Any], Any]] = (),
    vector_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> "envs.TextVectorEnv":
    """Make environments side by side, as `gymnasium.make_vec` makes its own, each in the same wrappers."""

    def make() -> gymnasium.Env[str, str]:
        return functools.reduce(lambda env, wrapper: wrapper(env), wrappers, gymnasium.make(name, **options))

    return envs.TextVectorEnv([make] * num_envs, **(vector_kwargs or {}))


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


def takes_rows(env_id: str) -> bool:
    """Tell whether an environment plays the rows of a data set: it is a `TaskEnv`."""
    creator = load_env_creator(env_id)
    return isinstance(creator, type) and issubclass(creator, envs.TaskEnv)


def takes_split(env_id: str) -> bool:
    """Tell whether an environment has tasks for training and others for evaluation: the argument `split`."""
    return "split" in parameters_of(env_id)[0]


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
        return make_of_spec(env_id, **options)
    except LLMGymError:
        raise
    except (TypeError, ValueError, gymnasium.error.Error) as error:
        raise ConfigError(f"Cannot make {env_id} with {without_secrets(options)}: {error}") from error


def make_of_spec(spec: EnvSpec | str, **options: Any) -> gymnasium.Env[str, str]:
    """Make the environment of a registration, which need not be known in this process; it is given secrets as they are.

    Raises:
        ConfigError: A secret is not where the options say.
    """
    return gymnasium.make(spec, disable_env_checker=True, **with_secrets(options))


def load_env_creator(env_id: str) -> Callable[..., gymnasium.Env[str, str]]:
    """Return what makes an environment: mostly its class."""
    entry = gymnasium.spec(env_id).entry_point
    assert entry is not None, f"{env_id} has no entry point"
    creator: Any = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    return cast(Callable[..., gymnasium.Env[str, str]], creator)
