"""Presets: models that go by a name of their own, with the options that suit them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmgym.config.plain import read_yaml


@dataclass(frozen=True)
class Preset:
    """A named model.

    Attributes:
        weights: Its directory, as transformers loads it.
        envs: The environments that it was made for, with the arguments that suit it; the first one is meant where none
            is asked for.
        options: What suits it, whatever the algorithm.
        algorithms: The same for single algorithms, by their names.
    """

    weights: Path
    envs: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]
    algorithms: Mapping[str, Mapping[str, Any]]

    @property
    def env(self) -> str:
        """The environment that is meant where none is asked for."""
        return next(iter(self.envs))

    def options_of(self, algorithm: str) -> dict[str, Any]:
        """Return the options that suit it with an algorithm."""
        return {**self.options, **self.algorithms.get(algorithm, {})}


_FILES: dict[str, Path] = {}


def register_model(name: str, file: Path) -> None:
    """Let a model go by a name; a YAML file holds what `Preset` has, the weights beside it."""
    _FILES[name] = file


def preset_of(model: str) -> Preset | None:
    """Return the preset of a model; None if it is a directory or of a hub."""
    if model not in _FILES:
        return None
    file = _FILES[model]
    values = read_yaml(file)
    return Preset(file.parent / values["weights"], values["envs"], values["options"], values["algorithms"])


def made_for_others(model: str, env_id: str) -> str | None:
    """Return what is to be said of a model in an environment that it was not made for; None if nothing is."""
    preset = preset_of(model)
    if preset is None or env_id in preset.envs:
        return None
    return f"The model {model!r} was made for {' and '.join(preset.envs)}, and knows nothing else"


def directory_of(model: str) -> str:
    """Return the directory or hub name that a model is loaded from."""
    preset = preset_of(model)
    return model if preset is None else str(preset.weights)
