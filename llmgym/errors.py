"""What can go wrong through no fault of llmgym's own: one small tree, a name and a sentence each.

Every message says what was expected and what came. On the command line each of these
is printed without a traceback and ends the program with exit code 2.
"""

import contextlib
import difflib
import errno
import importlib
import importlib.util
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from llmgym.visible import visible


class LLMGymError(Exception):
    """The base of every error that a user of llmgym can mend; what it says of others' text is safe to print."""

    def __str__(self) -> str:
        return visible(super().__str__())


class ConfigError(LLMGymError, ValueError):
    """An option has an unknown name or a value outside what is allowed."""


class UnknownNameError(LLMGymError, LookupError):
    """An environment or scorer of that name is not registered."""


class EnvironmentContractError(LLMGymError, TypeError):
    """An environment or scorer returned something that is not text, or not a number."""


class EnvironmentFailedError(LLMGymError, RuntimeError):
    """A server of environments fails."""


class InfrastructureError(EnvironmentFailedError):
    """What an environment stands on failed, such as a network or a sandbox, whatever the agent did.

    An environment that raises it has its episode played again from the start, by a new environment (`env_retries`).
    """


class FailureRateError(LLMGymError, RuntimeError):
    """So many episodes failed that something else must be wrong."""


class ModelError(LLMGymError, ValueError):
    """A model directory lacks its weights, its tokenizer or its chat template, or they disagree."""


class ContextOverflowError(LLMGymError, ValueError):
    """A prompt leaves no room for a reply in the model's context."""


class EngineError(LLMGymError, RuntimeError):
    """An inference engine is missing, does not fit, refuses what it is given, or was lost for good."""


class StaleCompletionError(EngineError):
    """An engine returned a reply that other weights sampled than those it was last given."""


class AlgorithmError(LLMGymError, TypeError):
    """An algorithm of one's own, or the batch that it makes, lacks something that training expects of it."""


class DataError(LLMGymError, ValueError):
    """A file holds something else than expected, or a later version of it."""


class RankLostError(LLMGymError, RuntimeError):
    """Another rank ended in the middle of something that takes all of them."""


class TrainingError(LLMGymError, ArithmeticError):
    """Losses or gradients are not finite, several times in a row."""


class RunDirectoryError(LLMGymError, OSError):
    """A run directory cannot be written, or would be overwritten."""


def import_user_module(module: str, wanted: str) -> ModuleType:
    """Import and return the module that a name like ``"module:Name"`` or ``"path/to/file.py:Name"`` speaks of.

    Raises:
        UnknownNameError: It cannot be imported.
    """
    try:
        return _import_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module that exits is imported in vain, too
        raise UnknownNameError(f"{wanted!r}: cannot import {module!r} ({type(error).__name__}: {error}).") from error


def said_by(error: BaseException) -> str:
    """Return an exception's kind and text, in characters that any file takes, whatever its class makes of them.

    Examples:
        >>> said_by(KeyError("seed")), said_by(ValueError())
        ("KeyError: 'seed'", 'ValueError')
    """
    try:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  # it is anybody's code
        text = f"{type(error).__name__}, which cannot say what it is about"
    return text.encode("utf-8", "replace").decode("utf-8")


def import_extra(module: str, extra: str) -> ModuleType:
    """Import and return a module of a package that an extra of llmgym brings.

    Raises:
        ConfigError: It cannot be imported; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module} cannot be imported ({error}): pip install 'llmgym-rl[{extra}]' installs its package."
        ) from error


def module_of_file(file: Path) -> str:
    """Return the name of the module that a file is imported as."""
    file = file.resolve()
    return f"{file.stem}_{zlib.crc32(str(file).encode()):08x}"


def _import_file(file: Path) -> ModuleType:
    """Import a file once, under a name that no other file has; it finds what is beside it."""
    file, name = file.resolve(), module_of_file(file)
    if name in sys.modules:
        return sys.modules[name]
    if not file.is_file():
        raise FileNotFoundError("no such file")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string.

    Examples:
        >>> did_you_mean("leraning_rate", ["learning_rate", "steps"])
        " Did you mean 'learning_rate'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


@contextlib.contextmanager
def bad_paths_refused() -> Iterator[None]:
    """Raise a `ConfigError` where a path has a longer name than any file may have, or may not be read or written."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and isinstance(error, PermissionError):
            raise ConfigError(f"Expected a path that may be used, got {error.filename!r}: {error.strerror}.") from error
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = max(Path(str(error.filename)).parts, key=len)
        raise ConfigError(f"Expected the name of a file, got {name!r:.60}..., which is too long.") from None
