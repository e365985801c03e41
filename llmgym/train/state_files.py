"""State in files: tensors in safetensors, all else in JSON beside them; nothing that runs code when it is read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llmgym.errors import RunDirectoryError
from llmgym.files import give_usual_mode

_VALUES, _TENSORS = "state.json", "state.safetensors"
_TENSOR, _ITEMS = "$tensor", "$items"


@dataclass(frozen=True)
class PackedState:
    """A state that can be written.

    Attributes:
        values: As JSON has it; tensors are numbers of `tensors`.
        tensors: All of them, by number.
    """

    values: Any
    tensors: dict[str, torch.Tensor]

    def write(self, directory: Path) -> None:
        """Write it to an existing directory, for `read_state`."""
        save_file(self.tensors, directory / _TENSORS)
        give_usual_mode(directory / _TENSORS)
        (directory / _VALUES).write_text(json.dumps(self.values) + "\n", encoding="utf-8")


def packed_state(state: Mapping[str, Any]) -> PackedState:
    """Return a state, nested dictionaries and lists of tensors and plain values, as it can be written.

    Raises:
        RunDirectoryError: There is something else in it.
    """
    tensors: dict[str, torch.Tensor] = {}
    return PackedState(_packed(dict(state), "", tensors, set()), tensors)


def read_state(directory: Path) -> dict[str, Any]:
    """Return the state that was written to a directory; tuples have become lists.

    Raises:
        RunDirectoryError: It cannot be read.
    """
    try:
        values = json.loads((directory / _VALUES).read_text(encoding="utf-8"))
        state = _unpacked(values, load_file(directory / _TENSORS))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError) as error:
        raise RunDirectoryError(f"The state in {str(directory)!r} cannot be read: {error}") from error
    if not isinstance(state, dict):
        raise RunDirectoryError(f"The state in {str(directory)!r}: expected names and values, got {state!r:.80}.")
    return state


def _packed(value: Any, place: str, tensors: dict[str, torch.Tensor], memory: set[int]) -> Any:
    """Return a value as JSON has it; its tensors are put into `tensors`, none of which share `memory`."""
    if isinstance(value, torch.Tensor):
        name, own = str(len(tensors)), value.detach().contiguous().cpu()
        start = own.untyped_storage().data_ptr()
        tensors[name] = own.clone() if start in memory else own  # a file has no tensors that share memory
        memory.add(start)
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int, float, bool, type(None)):
                raise _unfit(key, f"a key of {place.lstrip('/')!r}")
        items = {key: _packed(one, f"{place}/{key}", tensors, memory) for key, one in value.items()}
        plain = all(isinstance(key, str) and not key.startswith("$") for key in items)
        return items if plain else {_ITEMS: list(map(list, items.items()))}
    if isinstance(value, list | tuple):
        return [_packed(one, f"{place}/{number}", tensors, memory) for number, one in enumerate(value)]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise _unfit(value, repr(place.lstrip("/")))


def _unfit(value: object, what: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"Expected a state of numbers, text, tensors, lists and dictionaries, got a {type(value).__name__} as {what}."
    )


def _unpacked(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_TENSOR}:
        return tensors[value[_TENSOR]]
    if value.keys() == {_ITEMS}:
        return {key: _unpacked(one, tensors) for key, one in value[_ITEMS]}
    return {key: _unpacked(one, tensors) for key, one in value.items()}
