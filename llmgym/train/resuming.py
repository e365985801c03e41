"""What a run goes on from: the checkpoint of a run with the same options, or of any run for a fork of it."""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmgym.config.sections import LearningConfig
from llmgym.data.strict_json import json_object
from llmgym.errors import ConfigError, DataError, RunDirectoryError
from llmgym.report.console import notify
from llmgym.train import checkpoints

if TYPE_CHECKING:
    from llmgym.train.checkpoints import Checkpoint

_FREE = {
    *("steps", "output_dir", "sample_every", "eval_every", "save_every", "keep", "keep_best", "resume", "resume_from"),
    *("grace", "max_time", "max_memory", "max_disk", "rescue_dir", "canary_every", "worker_restarts", "ray_address"),
    *("engine_start_timeout", "engine_answer_timeout", "engine_restarts"),
    *("tracker", "tracker_project", "tracker_name", "metric_names"),
}
"""Options that may change, since nothing that is learnt depends on them."""

_ROUNDING = {
    "steps",  # where the learning rate falls over all of them
    *("device", "micro_batch_tokens", "gradient_checkpointing", "sharded", "kv_cache_gib", "engine_url"),
    *("engine_servers", "engine_kwargs", "engine_weights_dir", "engine_transfer", "engine_check"),
    *("isolate_env", "env_timeout", "groups_at_once", "rollout_workers", "worker_cpus", "worker_gpus"),
    *("scorer_workers", "scorer_timeout", "env_retries", "max_failure_rate", "max_overlong"),
}
"""Options that may change although numbers are then no longer the same to the bit."""

_NOTE = "run.json"


@dataclass(frozen=True)
class Note:
    """What a checkpoint says of its run.

    Attributes:
        algorithm: Its name.
        options: Every option, as the run was given it.
        date: What chat templates were told.
        begun: Training steps before the run began, so that its first one is the next.
        tokenizer: Hash of the tokenizer and its chat template.
        versions: Of packages that numbers depend on.
    """

    algorithm: str
    options: Mapping[str, Any]
    date: str
    begun: int
    tokenizer: str
    versions: Mapping[str, str | None]

    def write(self, state: Path) -> None:
        """Write it beside the state of a checkpoint."""
        (state / _NOTE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Note | None:
        """Read the note of a checkpoint; None if it has none that can be read."""
        try:
            note = cls(**json_object(checkpoint.path / checkpoints.STATE / _NOTE))
            datetime.fromisoformat(note.date)
        except (DataError, ValueError, TypeError):
            return None
        sound = isinstance(note.options, dict) and type(note.begun) is int and isinstance(note.tokenizer, str)
        return note if sound else None


@dataclass(frozen=True)
class Past:
    """What a run goes on from.

    Attributes:
        run: The directory of the earlier run.
        checkpoint: Where it is gone on from.
        note: What the checkpoint says of its run.
        forks: Whether a new run goes on, and not the same one.
        others: All checkpoints of the earlier run, as they were when this one was chosen.
    """

    run: Path
    checkpoint: Checkpoint
    note: Note
    forks: bool
    others: Sequence[Checkpoint] = ()

    def require_unchanged(self) -> None:
        """See that nobody has written to the run since its checkpoint was chosen; call this when it is locked.

        Raises:
            RunDirectoryError: Somebody has.
        """
        if list(self.others) != checkpoints.checkpoints_of(self.run):
            raise RunDirectoryError(f"Another process has gone on with the run {str(self.run)!r} meanwhile: try again.")

    @property
    def date(self) -> datetime:
        """What chat templates are told."""
        return datetime.fromisoformat(self.note.date)


def past_of(config: LearningConfig, algorithm: str) -> Past | None:
    """Return what a run goes on from, if its options say that it does.

    Raises:
        ConfigError: The run that it would go on had other options.
        RunDirectoryError: What it is to be forked from has no checkpoint to go on from.
    """
    origin = config.saving.resume_from
    past = _same_run(config, algorithm) if config.saving.resume else None
    return _fork(origin, config, algorithm) if past is None and origin is not None else past


def _fork(name: str, config: LearningConfig, algorithm: str) -> Past:
    """Return a checkpoint of a run directory, or the one that is named itself."""
    place, step = checkpoints.run_and_step(name)
    path = place.absolute()
    itself = checkpoints.checkpoint_at(path)
    if itself is not None and step is not None and itself.step != step:
        raise RunDirectoryError(f"resume_from {name!r}: expected a checkpoint of step {step}, it is of {itself.step}.")
    found = itself if itself is not None and itself.fault() is None else checkpoints.newest_whole(path, step)
    note = None if found is None else Note.of(found)
    if not path.is_dir():
        at = "" if step is not None or "@" not in name else "; after @ comes the number of a step"
        raise RunDirectoryError(f"resume_from {name!r}: there is no directory {str(path)!r}{at}.")
    if found is None or note is None:
        of = "" if step is None else f" of step {step}"
        raise RunDirectoryError(
            f"resume_from {name!r}: expected a run directory with a complete checkpoint"
            f"{of}, or such a checkpoint; found those of steps: {checkpoints.steps_in_words(path, step)}. "
            "`keep` says how many a run keeps."
        )
    if note.algorithm != algorithm:
        raise ConfigError(f"resume_from {name!r}: a run of {note.algorithm} is not one that {algorithm} goes on from.")
    if changed := _differences(note, config):
        notify(f"The run that goes on from {name!r} differs from it: {_shown(changed)}.")
    return Past(path, found, note, forks=True)


def _same_run(config: LearningConfig, algorithm: str) -> Past | None:
    """Return the newest checkpoint of the newest run of the same options."""
    parent = config.run.output_dir.expanduser().absolute()
    runs = [one for one in parent.iterdir() if one.is_dir()] if parent.is_dir() else []
    known = [(one, checkpoints.checkpoints_of(one)) for one in runs]
    dated = sorted(((own[0].path.stat().st_mtime_ns, one, own) for one, own in known if own), reverse=True)
    others: list[tuple[Path, dict[str, tuple[Any, Any]]]] = []
    for _, run, own in dated:
        notes = [note for note in map(Note.of, own) if note is not None and note.algorithm == algorithm]
        if not notes:
            continue
        changed = _differences(notes[0], config)
        if notes[0].options.get("resume_from") != config.saving.resume_from:
            continue
        if changed.keys() - _ROUNDING:
            others.append((run, changed))
            continue
        found = checkpoints.newest_whole(run)
        note = None if found is None else Note.of(found)
        if found is None or note is None:
            notify(f"The run {str(run)!r} has no checkpoint that can be gone on from.")
            continue
        if changed:
            notify(f"The run goes on with {_shown(changed)}: its numbers are no longer the same to the bit.")
        return Past(run, found, note, forks=False, others=own)
    if others and config.saving.resume_from is None:
        run, changed = others[0]
        raise ConfigError(
            f"resume: the newest run of {algorithm} in {str(parent)!r} had other options: {_shown(changed)}. Expected "
            f"the same ones, or another output_dir; resume_from {str(run)!r} begins a new run that goes on from it."
        )
    notify(f"No run of {algorithm} in {str(parent)!r} has a checkpoint: a new one begins.", warning=False)
    return None


def _differences(note: Note, config: LearningConfig) -> dict[str, tuple[Any, Any]]:
    """Return the options that may not change unnoticed and have, with both values."""
    before, now = dict(note.options), config.plain()
    if config.model.date is None:
        before["date"] = now["date"] = None  # the earlier date is told again
    free = _FREE if config.learner.learning_rate_decay in (None, "none") else _FREE - {"steps"}
    names = [name for name in {**before, **now} if name not in free]
    return {name: (before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)}


def _shown(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} {now!r:.80} in place of {before!r:.80}" for name, (before, now) in changed.items())
