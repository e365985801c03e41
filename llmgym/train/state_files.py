"""State in files: tensors in safetensors, all else in JSON beside them; nothing that runs code when it is read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llmgym.errors import RunDirectoryError

_VALUES, _TENSORS = "state.json", "state.safetensors"
_TENSOR, _ITEMS = "$tensor", "$items"


def write_state(directory: Path, state: Mapping[str, Any]) -> None:
    """Write a state, nested dictionaries and lists of tensors and plain values, to an existing directory.

    Raises:
        RunDirectoryError: There is something else in it.
    """
    tensors: dict[str, torch.Tensor] = {}
    values = _packed(dict(state), "", tensors)
    save_file(tensors, directory / _TENSORS)
    (directory / _VALUES).write_text(json.dumps(values) + "\n", encoding="utf-8")


def read_state(directory: Path) -> dict[str, Any]:
    """Return what `write_state` wrote; tuples have become lists.

    Raises:
        RunDirectoryError: It cannot be read.
    """
    try:
        values = json.loads((directory / _VALUES).read_text(encoding="utf-8"))
        state: dict[str, Any] = _unpacked(values, load_file(directory / _TENSORS))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunDirectoryError(f"The state in {str(directory)!r} cannot be read: {error}") from error
    return state


def _packed(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return a value as JSON has it; its tensors are put into `tensors`."""
    if isinstance(value, torch.Tensor):
        tensors[place] = value.detach().contiguous().cpu()
        return {_TENSOR: place}
    if isinstance(value, Mapping):
        items = {key: _packed(one, f"{place}/{key}", tensors) for key, one in value.items()}
        plain = all(isinstance(key, str) and not key.startswith("$") for key in items)
        return items if plain else {_ITEMS: list(map(list, items.items()))}
    if isinstance(value, list | tuple):
        return [_packed(one, f"{place}/{number}", tensors) for number, one in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RunDirectoryError(
        f"Expected a state of numbers, text, tensors, lists and dictionaries, got a {type(value).__name__} as "
        f"{place.lstrip('/')!r}."
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
