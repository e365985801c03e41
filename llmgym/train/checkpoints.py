"""Checkpoints of a run: whole or not there, checked when they are read, the oldest deleted last.

A run directory has them in two places: ``checkpoints/step-00010``, written while it runs, and ``checkpoint``, written
when it ends. Each is a model as transformers loads it, with the state that training goes on from in ``state``, and
``complete.json``, which is written last and holds the hash of every other file.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmgym.data.strict_json import json_object
from llmgym.errors import DataError, LLMGymError, RunDirectoryError, said_by
from llmgym.files import rename, require_file, sync_directory
from llmgym.report.console import notify
from llmgym.train.state_files import read_state

SCHEMA = 1
"""Version of what a state holds. It changes when an older one can no longer be gone on from."""

STATE = "state"
_FINAL, _SERIES, _MARK = "checkpoint", "checkpoints", "complete.json"
_STEPS = 10**15  # more than any run takes


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that says it is complete.

    Attributes:
        path: Its directory.
        step: Training steps before it.
        hashes: SHA-256 of every file, by its path in the directory.
        schema: See `SCHEMA`.
    """

    path: Path
    step: int
    hashes: Mapping[str, str]
    schema: Any

    def fault(self) -> str | None:
        """Return what is wrong with it; None if all is as it was written."""
        if self.schema != SCHEMA:
            return f"its state is of version {self.schema}, and this llmgym reads version {SCHEMA}"
        for name, expected in self.hashes.items():
            try:
                found = _hash(self.path / name)
            except (OSError, ValueError) as error:  # ValueError: that is no name of a file
                return f"{name} cannot be read ({error})"
            if found != expected:
                return f"{name} is not what was written"
        return None if f"{STATE}/state.json" in self.hashes else "it has no state to go on from"

    @contextlib.contextmanager
    def taking_over(self) -> Iterator[None]:
        """Say of what fails while its state is taken over that it is the state which does not fit.

        Raises:
            RunDirectoryError: Something has failed.
        """
        try:
            yield
        except LLMGymError:
            raise
        except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise RunDirectoryError(
                f"The state in {str(self.path / STATE)!r} is none that this run can go on from: {said_by(error)}."
            ) from error

    def state(self) -> dict[str, Any]:
        """Return the state that training goes on from."""
        return read_state(self.path / STATE)


def final_path(run: Path) -> Path:
    """Return where a run that ends has its checkpoint."""
    return run / _FINAL


def series_path(run: Path, step: int) -> Path:
    """Return where a run has the checkpoint of a step."""
    return run / _SERIES / f"step-{step:05d}"


@contextlib.contextmanager
def new_checkpoint(path: Path, step: int) -> Iterator[Path]:
    """Yield a name for a directory that does not exist; what is written there becomes the complete checkpoint `path`.

    Raises:
        RunDirectoryError: `path` exists already.
    """
    if path.exists():
        raise RunDirectoryError(f"Expected a new directory for the checkpoint, but {str(path)!r} exists.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        files = sorted(file for file in partial.rglob("*") if file.is_file())
        hashes = {file.relative_to(partial).as_posix(): _hash(file) for file in files}
        mark = {"schema": SCHEMA, "step": step, "files": hashes}
        (partial / _MARK).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
        sync_directory(partial)
        rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def checkpoint_at(path: Path) -> Checkpoint | None:
    """Return the checkpoint that a directory is, if it says that it is complete."""
    try:
        mark = json_object(path / _MARK)
    except DataError:
        return None
    step, files, schema = (mark.get(name) for name in ("step", "files", "schema"))
    if type(step) is not int or not 0 <= step < _STEPS or not isinstance(files, dict):
        return None
    return Checkpoint(path, step, {name: str(hashed) for name, hashed in files.items()}, schema)


def checkpoints_of(run: Path) -> list[Checkpoint]:
    """Return the checkpoints of a run that say that they are complete, the newest first."""
    places = [run / _FINAL, *(run / _SERIES).glob("step-*")]
    found = [one for one in map(checkpoint_at, places) if one is not None]
    return sorted(found, key=lambda one: one.step, reverse=True)


def run_and_step(name: str) -> tuple[Path, int | None]:
    """Return the directory and the step that a name means, such as ``runs/mine@40``; without a step, None.

    Raises:
        RunDirectoryError: No run has taken so many steps.

    Examples:
        >>> run_and_step("runs/mine@40"), run_and_step("runs/me@home")
        ((PosixPath('runs/mine'), 40), (PosixPath('runs/me@home'), None))
    """
    place, _, step = name.rpartition("@")
    named = bool(place) and step.isdecimal()
    if named and len(step) > len(str(_STEPS)):
        raise RunDirectoryError(f"{place!r}: expected a step, got a number of {len(step):,} digits.")
    return Path(place if named else name).expanduser(), int(step) if named else None


def steps_in_words(run: Path, besides: int | None = None) -> str:
    """Return the steps that a run has checkpoints of, besides one that is of no use, for a message."""
    return ", ".join(str(one.step) for one in checkpoints_of(run) if one.step != besides) or "none"


def newest_whole(run: Path, step: int | None = None) -> Checkpoint | None:
    """Return the newest checkpoint of a run that is as it was written; name those that are not, and leave them out.

    Args:
        run: The run's directory.
        step: The one to return, of no other step.
    """
    for one in checkpoints_of(run):
        if step is not None and one.step != step:
            continue
        fault = one.fault()
        if fault is None:
            return one
        notify(f"The checkpoint {str(one.path)!r} is left out: {fault}.")
    return None


def keep_newest(run: Path, count: int, besides: int | None = None) -> None:
    """Delete the checkpoints of the series that are not of the newest steps, or that the final one repeats.

    Args:
        run: The directory of the run.
        count: Of the newest steps that are kept.
        besides: Another step that is kept.
    """
    found = checkpoints_of(run)
    steps = sorted({one.step for one in found}, reverse=True)[:count]
    final = [one.step for one in found if one.path.name == _FINAL]
    for one in found:
        if one.path.parent.name == _SERIES and (one.step not in [*steps, besides] or one.step in final):
            going = one.path.with_name(f".{one.path.name}.partial")  # what is half deleted is none
            rename(one.path, going)
            shutil.rmtree(going, ignore_errors=True)
    with contextlib.suppress(OSError):  # there is none, or there are some in it
        (run / _SERIES).rmdir()


def go_back_to(checkpoint: Checkpoint, run: Path) -> None:
    """Make a checkpoint the newest of a run's series, because the run goes on from it.

    Whatever else would be in the way of later ones is moved aside, into ``superseded``: checkpoints that were left out,
    those of later steps, and weights without a state.
    """
    place = series_path(run, checkpoint.step)
    for partial in [*run.glob(".*.partial"), *(run / _SERIES).glob(".*.partial")]:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    for one in [run / _FINAL, *(run / _SERIES).glob("*")]:
        found = checkpoint_at(one)
        earlier = found is not None and found.step < checkpoint.step and found.path.name != _FINAL
        if one.exists() and one != checkpoint.path and not earlier:
            aside = _free(run / "superseded" / one.name)
            aside.parent.mkdir(exist_ok=True)
            shutil.move(one, aside)
    if checkpoint.path != place:
        place.parent.mkdir(exist_ok=True)
        shutil.move(checkpoint.path, place)  # which may be on another file system


def _free(path: Path) -> Path:
    """Return a name that nothing has."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def _hash(file: Path) -> str:
    require_file(file)
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
