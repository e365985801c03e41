"""`Stored`: episodes that an evaluation or a training run kept, by the task that they are of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from llmgym.config.base import Config
from llmgym.config.plain import read_yaml
from llmgym.data.strict_json import json_object
from llmgym.data.trajectories import read_trajectories
from llmgym.errors import ConfigError, DataError, RunDirectoryError
from llmgym.rollout.trajectory import Trajectory
from llmgym.train.checkpoints import run_and_step

AnyConfig = TypeVar("AnyConfig", bound=Config)

_DIGITS = 15  # of a step's number, which is in the name of its file


class TaskKey(NamedTuple):
    """What makes tasks of two directories the same one: a row of the data, or where there is none, the seed.

    Each step of a training run has tasks of its own, since other weights played them.
    """

    kind: str
    number: int
    seat: int
    step: int | None = None

    def __str__(self) -> str:
        before = "" if self.step is None else f"step {self.step}, "
        return before + f"{self.kind} {self.number}" + (f", seat {self.seat}" if self.seat else "")


@dataclass(frozen=True)
class Stored:
    """Episodes that were kept.

    Attributes:
        name: What the user calls them.
        path: The directory of the evaluation or the run, or the file of the training step.
        run: The directory of the run, if these are episodes that it learnt from.
        options: What they were played with.
        files: Where they are, and of which training step each file is; of an evaluation, none.
    """

    name: str
    path: Path
    run: Path | None
    options: Mapping[str, Any]
    files: Mapping[Path, int | None]

    @cached_property
    def tasks(self) -> Mapping[TaskKey, Sequence[Trajectory]]:
        """The episodes of each task, in the order of their samples.

        Raises:
            DataError: A file does not hold episodes, or none holds any.
        """
        found: dict[TaskKey, list[Trajectory]] = {}
        for file, step in self.files.items():
            for one in read_trajectories(file):
                kind, number = ("seed", one.seed) if one.data_row is None else ("row", one.data_row)
                found.setdefault(TaskKey(kind, number, one.seat, step), []).append(one)
        if not found:
            raise DataError(f"{self.name!r}: expected episodes, got files with none.")
        return found

    def section(self, cls: type[AnyConfig]) -> AnyConfig:
        """Return a section of the options that they were played with.

        Raises:
            ConfigError: An option is not allowed what it is.
        """
        known = cls().flat()
        try:
            return cls.of({name: value for name, value in self.options.items() if name in known})
        except ConfigError as error:
            raise ConfigError(f"{self.name!r}: {error}") from None


def stored(name: str) -> Stored:
    """Return the episodes that a name means: a directory that ``llmgym eval`` made, RUN, or RUN@STEP, one of its steps.

    Raises:
        RunDirectoryError: There is no such directory, or it keeps no such episodes.
    """
    run, step = run_and_step(name)
    if (run / "config.yaml").is_file():
        return _of_run(name, run, step)
    path = Path(name).expanduser()
    expected = "expected a directory of episodes that `llmgym eval` keeps, RUN, or RUN@STEP, one of its training steps"
    if not path.is_dir():
        raise RunDirectoryError(f"{name!r}: there is no such directory; {expected}.")
    named = sorted(path.glob("episodes-*.parquet"))
    files = [file for file in named if file.stem.removeprefix("episodes-").isdecimal()]  # and no copy beside them
    if (path / "settings.json").is_file():
        if not files:
            raise RunDirectoryError(f"{name!r}: this evaluation has no episodes yet; repeat its command.")
        options = json_object(path / "settings.json")
        named_env = options.get("env") or options.get("env_id")  # its id says nothing of the module that it is in
        return Stored(name, path, None, {**options, "env": named_env}, dict.fromkeys(files))
    inside = ", ".join(repr(str(one.parent)) for one in sorted(path.glob("*/settings.json"))[:5])
    raise RunDirectoryError(f"{name!r}: {expected}" + (f"; there are {inside} in it." if inside else "."))


def _of_run(name: str, run: Path, step: int | None) -> Stored:
    numbered = {file.stem.removeprefix("step-"): file for file in sorted(run.glob("trajectories/step-*.parquet"))}
    kept = {int(number): file for number, file in numbered.items() if number.isdecimal() and len(number) < _DIGITS}
    if not kept:
        raise RunDirectoryError(f"{name!r}: this run keeps no episodes, or has taken no step yet.")
    if step not in {None, *kept}:
        raise RunDirectoryError(f"{name!r}: there is no step {step}; this run keeps {in_words('step', kept)}.")
    files = {kept[one]: one for one in (sorted(kept) if step is None else [step])}
    return Stored(name, run if step is None else kept[step], run, read_yaml(run / "config.yaml"), files)


def first_words(episode: Trajectory) -> list[tuple[str, str]]:
    """Return what an environment says before the first reply; empty if it failed before it said anything.

    A system prompt is left out: it is the agent's business, and may be what is compared.
    """
    before = episode.messages[: first_reply(episode)]
    return [(one.role, one.content) for one in before if one.role != "system"]


def first_reply(episode: Trajectory) -> int:
    """Return the place of the first reply among the messages, which may begin with replies that nobody sampled."""
    said = [place for place, message in enumerate(episode.messages) if message.role == "assistant"]
    return said[len(said) - len(episode.replies)] if episode.replies and said else len(episode.messages)


def in_words(what: str, numbers: Iterable[int], most: int = 5) -> str:
    """Return numbers in words; empty if there are none.

    Examples:
        >>> in_words("seed", [4, 0, 1, 2, 9]), in_words("row", [7])
        ('seeds 0 to 2, 4, 9', 'row 7')
    """
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    shown = ", ".join(" to ".join(map(str, run)) for run in runs[:most])
    many = "s" if len(runs) > 1 or any(len(run) > 1 for run in runs) else ""
    return f"{what}{many} {shown}" + (" and more" if len(runs) > most else "") if runs else ""


def tasks_in_words(tasks: Iterable[TaskKey]) -> str:
    """Return which tasks these are."""
    kinds: dict[tuple[str, int], list[int]] = {}
    for one in tasks:
        kinds.setdefault((one.kind, one.seat), []).append(one.number)
    return "; ".join(
        in_words(kind, numbers) + (f" of seat {seat}" if seat else "") for (kind, seat), numbers in kinds.items()
    )
