"""What becomes of an episode whose environment raises an exception or hangs: it ends there, without a score."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import gymnasium

from llmgym.errors import InfrastructureError, said_by

Value = TypeVar("Value")

FaultKind = Literal["env_error", "env_timeout"]

_LIBRARIES = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(str(gymnasium.__file__)).parent))
_FRAMES = 8  # of a traceback, at most


class EpisodeLostError(Exception):
    """An environment failed, which costs its episode and no other one.

    Args:
        kind: Whether it raised an exception, or took too long.
        message: What happened, and where.
        infrastructure: Whether it failed whatever the agent did, see `InfrastructureError`.
    """

    def __init__(self, kind: FaultKind, message: str, *, infrastructure: bool = False) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind
        self.infrastructure = infrastructure


def caught(function: Callable[..., Value], *arguments: Any) -> Value | EpisodeLostError:
    """Return what a function of an environment returns, or the fault if it raises.

    An exception that asks for the whole program to be interrupted is raised; `SystemExit` of an environment is not one.
    """
    try:
        return function(*arguments)
    except KeyboardInterrupt:
        raise
    except EpisodeLostError as fault:
        return fault
    except BaseException as error:  # noqa: BLE001  # whatever user code raises costs its own episode and no other
        message = f"{said_by(error)}\n{_where(error.__traceback__)}".rstrip()
        return EpisodeLostError("env_error", message, infrastructure=isinstance(error, InfrastructureError))


def _where(trace: TracebackType | None) -> str:
    """Return where the exception was raised, from the environment's own code on."""
    frames = traceback.extract_tb(trace)
    own = [i for i, frame in enumerate(frames) if not frame.filename.startswith(_LIBRARIES)]
    return "".join(traceback.format_list(frames[own[0] :][-_FRAMES:] if own else frames[-1:])).rstrip()
