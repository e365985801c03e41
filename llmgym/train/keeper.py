"""`Keeper`: writes the checkpoints of a run, and finds another place for one that cannot be written."""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError

from llmgym.config.sections import Saving
from llmgym.errors import ConfigError, RunDirectoryError
from llmgym.learn.needs import GIB
from llmgym.report.console import notify
from llmgym.train.checkpoints import STATE, checkpoints_of, final_path, keep_newest, new_checkpoint, series_path
from llmgym.train.held_out import HeldOut
from llmgym.train.journal import Journal
from llmgym.train.resuming import Note
from llmgym.train.state_files import PackedState, packed_state

_ROOM = 1.2  # times what a checkpoint takes


class Kept(Protocol):
    """What is kept: a trainer."""

    @property
    def steps_done(self) -> int:
        """Training steps so far."""
        ...

    @property
    def checkpoint_bytes(self) -> int:
        """About how many bytes a checkpoint takes."""
        ...

    def write(self, path: Path) -> None:
        """Write the model to a new directory."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what training goes on from."""
        ...

    def note(self) -> Note:
        """Return what a checkpoint says of the run."""
        ...


class Keeper:
    """Keeps what was learnt.

    Args:
        run: The directory of the run.
        saving: Which checkpoints are kept, and where else one may go.
        trainer: Whose state is kept.
        journal: The same.
        held_out: Which step was best.
    """

    def __init__(self, run: Path, saving: Saving, trainer: Kept, journal: Journal, held_out: HeldOut) -> None:
        self._run, self._saving, self._trainer, self._journal = run, saving, trainer, journal
        self._held_out = held_out

    def require_space(self) -> None:
        """Refuse a disk that has no room for a checkpoint.

        Raises:
            RunDirectoryError: It has not.
        """
        wanted = self._trainer.checkpoint_bytes
        free = shutil.disk_usage(self._run).free
        if free < _ROOM * wanted:
            raise RunDirectoryError(
                f"{str(self._run)!r}: expected room for a checkpoint of about {wanted / 1e9:.2f} GB, found "
                f"{free / 1e9:.2f} GB. Free some, or name another --output-dir."
            )

    def room_beside(self, max_disk: float | None) -> float:
        """Return how many bytes of those that a run may take, in GiB, its checkpoints leave; any number if it may.

        Raises:
            ConfigError: They leave none.
        """
        if max_disk is None:
            return math.inf
        count = self._saving.keep + (self._saving.keep_best is not None) + 1  # one is written before another is deleted
        taken = count * _ROOM * self._trainer.checkpoint_bytes
        if taken >= max_disk * GIB:
            raise ConfigError(
                f"max_disk: {count} checkpoints may be there at a time, which take about {taken / GIB:.2g} GiB; "
                f"expected more than that, got {max_disk:g}."
            )
        return max_disk * GIB - taken

    def save_in_series(self, last: int) -> None:
        """Write a checkpoint while the run goes on, if it is time or the step was the best, and delete the oldest.

        Args:
            last: The step with which the run ends, and which has a checkpoint anyway.
        """
        every, step = self._saving.save_every, self._trainer.steps_done
        due = every and step % every == 0
        if step < last and (due or step == self._best()):
            self._save(series_path(self._run, step), whole=True)
            self._clear()

    def save_at_end(self, *, whole: bool = True) -> None:
        """Write the checkpoint of a run that ends.

        Args:
            whole: Whether training can go on from it; not where an update was interrupted.
        """
        path = final_path(self._run)
        self._save(path, whole=whole)
        if whole:
            self._clear()
        notify(f"Checkpoint of step {self._trainer.steps_done}: {path}", warning=False)
        best = self._best()
        if best is not None and best != self._trainer.steps_done:
            notify(f"Best checkpoint, by {self._saving.keep_best}: {series_path(self._run, best)}", warning=False)

    def _clear(self) -> None:
        """Delete the checkpoints that are not kept."""
        keep_newest(self._run, self._saving.keep, besides=self._best())

    def _best(self) -> int | None:
        """Return the best step of those that have a checkpoint or can have one now."""
        if self._held_out.metric is None:
            return None
        kept = {one.step for one in checkpoints_of(self._run)}
        return self._held_out.best(self._journal, among=kept | {self._trainer.steps_done})

    def _save(self, path: Path, *, whole: bool) -> None:
        """Write a checkpoint, or, if that fails, write it elsewhere and say so."""
        state = None
        if whole:
            try:
                state = packed_state({**self._trainer.state_dict(), "journal": self._journal.state_dict()})
            except RunDirectoryError:
                self._write(final_path(self._run), None)  # the weights are not lost
                raise
        try:
            self.require_space()
            self._write(path, state)
        except (OSError, SafetensorError) as error:
            other = self._rescue_place()
            self._write(other, state)
            raise RunDirectoryError(
                f"The checkpoint of step {self._trainer.steps_done} could not be written to {str(path)!r} ({error}). "
                f"It is in {str(other)!r}; --resume-from {other} goes on from it."
            ) from error

    def _write(self, path: Path, state: PackedState | None) -> None:
        """Write the model, and a state to go on from if there is one."""
        with new_checkpoint(path, self._trainer.steps_done) as partial:
            self._trainer.write(partial)
            if state is not None:
                (partial / STATE).mkdir()
                state.write(partial / STATE)
                self._trainer.note().write(partial / STATE)

    def _rescue_place(self) -> Path:
        """Return a new name where the run directory cannot be written to."""
        parent = self._saving.rescue_dir
        name = f"{self._run.name}-step-{self._trainer.steps_done:05d}-"
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=name, dir=parent)) / "checkpoint"
