"""`Subject`: one model of an evaluation, with the options that it is evaluated with."""

import contextlib
import dataclasses
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import field_validator

from llmgym.config.base import Config
from llmgym.config.plain import read_yaml
from llmgym.config.presets import directory_of, preset_of
from llmgym.config.sections import AgentConfig, Conversation, Engine, Environment, Sampling
from llmgym.errors import ConfigError, RunDirectoryError
from llmgym.evals.config import Asked, Endpoint, EvalConfig
from llmgym.models.causal_lm import find_model
from llmgym.registry import resolve_env
from llmgym.scorers.expressions import read_sum
from llmgym.train import checkpoints


class PlayedConfig(AgentConfig):
    """The sections of what plays and does not learn."""

    @field_validator("sampling")
    @classmethod
    def _samples_what_can_be_learnt(cls, sampling: Sampling) -> Sampling:
        return sampling


@dataclasses.dataclass(frozen=True)
class Subject:
    """One model of an evaluation, with the options that it is evaluated with.

    Attributes:
        label: What it is called in tables: a name, or the last part of the path of a run.
        env_id: The environment.
        config: Of what plays.
        scorer: See `Asked`.
        asked: What else is asked.
        endpoint: The server that has the model, if `endpoint.url` is one.
    """

    label: str
    env_id: str
    config: AgentConfig
    scorer: str | None
    asked: Asked
    endpoint: Endpoint

    def plain(self) -> dict[str, Any]:
        """Return all that decides its numbers, as JSON has it."""
        options = self.config.plain()
        if self.endpoint.url is None:
            sections: tuple[type[Config], ...] = (Environment, Conversation, Sampling, Engine)
            own = {"dtype": options["dtype"], "weights": _stamp(self.config.model.name)}
        else:
            sections = (Environment, Sampling)
            named = {"endpoint": self.endpoint.url, "endpoint_kwargs": dict(self.endpoint.kwargs)}
            own = {**named, "model": self.config.model.name}
        return {
            **{name: options[name] for section in sections for name in section().flat()},
            **own,
            "seed": options["seed"],
            "env_id": self.env_id,
            "samples": self.asked.samples,
            "tasks": self.asked.tasks,
            "split": self.asked.split,
            "scorer": self.scorer,
            **({} if self.asked.data is None else {"data": _content(self.asked.data)}),
            **({"code": code} if (code := self._code()) else {}),
        }

    def _code(self) -> dict[str, str]:
        """Return hashes of the files that the environment and the scorer name, which change if their code does."""
        terms = [] if self.scorer is None else list(read_sum(self.scorer) or [self.scorer])
        files = {file for name in (self.config.environment.required, *terms) for file in _files_named(name)}
        return {file.name: _content(file) for file in sorted(files)}


def subjects_of(config: EvalConfig) -> list[Subject]:
    """Return the models of an evaluation.

    What is not asked for is as in the run that a model is from, or as suits a model that ships with llmgym.

    Raises:
        ConfigError: No environment is named, anywhere.
        ModelError: There is no such model.
        RunDirectoryError: A run has no such checkpoint, or a directory is neither a run nor a model.
    """
    return [_subject(config, name) for name in config.asked.models or ("tiny",)]


def _subject(config: EvalConfig, name: str) -> Subject:
    known, standing = PlayedConfig().flat(), EvalConfig().flat()
    given = {key: value for key, value in config.flat().items() if key in known}
    asked = {key for key, value in config.flat().items() if value != standing[key]}
    path, own = (name, None) if config.endpoint.url else _checkpoint(name)
    scorer = config.asked.scorer
    preset = None if config.endpoint.url else preset_of(name)
    if own is not None:
        scorer = own.get("scorer") if scorer is None else scorer
    elif preset is not None:
        env = preset.env if config.environment.env is None else config.environment.env
        own = {**preset.options, "env": env, "env_kwargs": dict(preset.envs.get(resolve_env(env), {}))}
    taken = {*Environment().flat(), *Conversation().flat(), *Sampling().flat(), "dtype"} - asked
    suitable = {key: value for key, value in (own or {}).items() if key in taken}
    own_options = {"model": path, "seed": config.asked.seed, "output_dir": config.asked.output_dir}
    played = PlayedConfig.of({**given, **suitable, **own_options})
    if played.environment.env is None and own is not None:
        raise ConfigError(f"{name!r}: this run has no environment; expected --env, such as AIOpsTriage.")
    label = name if path == name else Path(name).name
    return Subject(label, resolve_env(played.environment.required), played, scorer, config.asked, config.endpoint)


def _checkpoint(name: str) -> tuple[str, dict[str, Any] | None]:
    """Return where the weights of a model are, and the options of the run that they are from, if it is one."""
    run, step = checkpoints.run_and_step(name)
    if not (run / "config.yaml").is_file():
        if run.is_dir() and not (run / "config.json").is_file():
            raise RunDirectoryError(
                f"{name!r}: expected a run or a model; it has neither a config.yaml nor a config.json."
            )
        if preset_of(name) is None:
            find_model(name)
        return name, None
    found = checkpoints.newest_whole(run, step)
    if found is None:
        there = checkpoints.steps_in_words(run, step)
        of_step = "" if step is None else f" of step {step}; it has those of: {there} (see --save-every and --keep)"
        raise RunDirectoryError(f"{name!r}: this run has no complete checkpoint{of_step}.")
    return str(found.path), read_yaml(run / "config.yaml")


def _files_named(name: str) -> Iterator[Path]:
    """Yield the files that are parts of a name like ``file.py:Name``, ``module:Name`` or ``judge:file.yaml``."""
    before, colon, after = name.partition(":")
    if not colon:
        return
    yield from (Path(part) for part in (before, after) if part and Path(part).is_file())
    with contextlib.suppress(ImportError, ValueError):  # it is no name of a module
        found = None if before.endswith(".py") else importlib.util.find_spec(before)
        if found is not None and found.has_location and found.origin is not None:
            yield Path(found.origin)


def _content(data: Path) -> str:
    """Return a hash of what is in a file; its name, if it is no file."""
    if not data.is_file():
        return str(data)
    with data.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _stamp(model: str) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of a model's weights, which change if the weights do."""
    directory = Path(directory_of(model)).expanduser()
    files = sorted(directory.glob("*.safetensors")) if directory.is_dir() else []
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
