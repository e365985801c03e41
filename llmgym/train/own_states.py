"""What environments and scorers keep from one episode to the next, if they have `state_dict` and `load_state_dict`."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import RunDirectoryError
from llmgym.scorers import AnyScorer
from llmgym.scorers.composition import Composed


@runtime_checkable
class KeepsState(Protocol):
    """What returns everything that its future depends on, of numbers, text, tensors, lists and dictionaries."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return it."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> object:
        """Go on from it."""
        ...


def own_states(envs: TextVectorEnv, scorer: AnyScorer | None) -> dict[str, Any]:
    """Return copies of the states of all environments and scorers that keep one, by where they are."""
    return {place: copy.deepcopy(dict(one.state_dict())) for place, one in _keepers(envs, scorer)}


def load_own_states(envs: TextVectorEnv, scorer: AnyScorer | None, states: Mapping[str, Any]) -> None:
    """Let environments and scorers go on from what `own_states` returned.

    Raises:
        RunDirectoryError: Others keep a state than did.
    """
    keepers = dict(_keepers(envs, scorer))
    if keepers.keys() != states.keys():
        here, there = (", ".join(sorted(one)) or "none" for one in (keepers, states))
        raise RunDirectoryError(f"The checkpoint has the states of {there}; expected those of {here}.")
    for place, one in keepers.items():
        one.load_state_dict(states[place])


def _keepers(envs: TextVectorEnv, scorer: AnyScorer | None) -> Iterator[tuple[str, KeepsState]]:
    for index, env in enumerate(envs.envs):
        if isinstance(env.unwrapped, KeepsState):
            yield f"environment {index}", env.unwrapped
    yield from _scorers("scorer", scorer)


def _scorers(place: str, scorer: object) -> Iterator[tuple[str, KeepsState]]:
    if isinstance(scorer, Composed):
        for name, one in scorer.scorers.items():
            yield from _scorers(f"{place} {name}", one)
        return
    function: object = getattr(scorer, "function", scorer)  # of a scorer that was made of one
    if isinstance(function, KeepsState):
        yield place, function
