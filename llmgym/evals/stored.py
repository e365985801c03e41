"""`Stored`: episodes that an evaluation or a training step kept, by the task that they are of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from llmgym.config.base import Config
from llmgym.config.plain import read_yaml
from llmgym.data.strict_json import json_object
from llmgym.data.trajectories import read_trajectories
from llmgym.errors import ConfigError, RunDirectoryError
from llmgym.rollout.trajectory import Trajectory
from llmgym.train.checkpoints import run_and_step

AnyConfig = TypeVar("AnyConfig", bound=Config)

_DIGITS = 15  # of a step's number, which is in the name of its file


class TaskKey(NamedTuple):
    """What makes tasks of two directories the same one: a row of the data, or where there is none, the seed."""

    kind: str
    number: int
    seat: int

    def __str__(self) -> str:
        return f"{self.kind} {self.number}" + (f", seat {self.seat}" if self.seat else "")


@dataclass(frozen=True)
class Stored:
    """Episodes that were kept.

    Attributes:
        name: What the user calls them.
        path: The directory of the evaluation, or the file of the training step.
        run: The directory of the run, if this is one of its training steps.
        options: What they were played with.
        tasks: The episodes of each task, in the order of their samples.
    """

    name: str
    path: Path
    run: Path | None
    options: Mapping[str, Any]
    tasks: Mapping[TaskKey, Sequence[Trajectory]]

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
    """Return the episodes that a name means: a directory that ``llmgym eval`` made, or RUN@STEP, a step of a training.

    Raises:
        DataError: A file does not hold episodes.
        RunDirectoryError: There is no such directory, or it keeps no such episodes.
    """
    run, step = run_and_step(name)
    if (run / "config.yaml").is_file():
        return _of_step(name, run, step)
    path = Path(name).expanduser()
    expected = "expected a directory of episodes that `llmgym eval` keeps, or RUN@STEP, those of a training step"
    if not path.is_dir():
        raise RunDirectoryError(f"{name!r}: there is no such directory; {expected}.")
    files = sorted(path.glob("episodes-*.parquet"))
    if (path / "settings.json").is_file():
        if not files:
            raise RunDirectoryError(f"{name!r}: this evaluation has no episodes yet; repeat its command.")
        options = json_object(path / "settings.json")
        return Stored(name, path, None, {**options, "env": options.pop("env_id", None)}, _by_task(files))
    inside = ", ".join(repr(str(one.parent)) for one in sorted(path.glob("*/settings.json"))[:5])
    raise RunDirectoryError(f"{name!r}: {expected}" + (f"; there are {inside} in it." if inside else "."))


def _of_step(name: str, run: Path, step: int | None) -> Stored:
    numbered = {file.stem.removeprefix("step-"): file for file in sorted(run.glob("trajectories/step-*.parquet"))}
    kept = {int(number): file for number, file in numbered.items() if number.isdecimal() and len(number) < _DIGITS}
    if not kept:
        raise RunDirectoryError(f"{name!r}: this run keeps no episodes, or has taken no step yet.")
    if step is None:
        raise RunDirectoryError(
            f"{name!r}: expected RUN@STEP; a run keeps the episodes that it learnt from, of this one those of "
            f"{in_words('step', kept)}, and not those of its evaluations, which `llmgym eval --model {name}` plays."
        )
    if step not in kept:
        raise RunDirectoryError(f"{name!r}: there is no step {step}; this run keeps {in_words('step', kept)}.")
    return Stored(name, kept[step], run, read_yaml(run / "config.yaml"), _by_task([kept[step]]))


def _by_task(files: Iterable[Path]) -> dict[TaskKey, list[Trajectory]]:
    found: dict[TaskKey, list[Trajectory]] = {}
    for file in files:
        for one in read_trajectories(file):
            row = one.data_row
            key = TaskKey("seed", one.seed, one.seat) if row is None else TaskKey("row", row, one.seat)
            found.setdefault(key, []).append(one)
    return found


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
