"""`play`: the episodes of an evaluation, which are kept as they come, so that one that was interrupted goes on."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmgym.addresses import key_in
from llmgym.config.presets import made_for_others
from llmgym.data.strict_json import json_object
from llmgym.data.trajectories import read_trajectories, write_trajectories
from llmgym.errors import DataError, RunDirectoryError, import_extra
from llmgym.evals.subjects import Subject
from llmgym.files import whole_or_absent
from llmgym.learn.needs import seconds_of
from llmgym.report.run_directory import RunDirectory
from llmgym.rollout.message_collector import MessageCollector
from llmgym.rollout.player import Player
from llmgym.rollout.task import Task, in_shares
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers import find_scorer, judges_alone
from llmgym.scorers.composition import put_on
from llmgym.train.actor import Actor
from llmgym.train.environments import make_envs
from llmgym.train.hardware import device_of
from llmgym.train.local_rollouts import LocalRollouts
from llmgym.train.setting import set_up
from llmgym.train.tasks import RunRows, run_rows

_AT_ONCE = 256  # episodes that are played side by side, and kept together
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_KEYS = ("LLMGYM_ENDPOINT_KEY", "OPENAI_API_KEY")  # environment variables, the first that has one


@dataclass(frozen=True)
class Played:
    """What was played of a subject.

    Attributes:
        path: Where it is kept.
        tasks: The episodes of each task; if several seats learn, those of each seat by themselves.
        seconds: That playing took, over all tries.
    """

    path: Path
    tasks: Sequence[Sequence[Trajectory]]
    seconds: float


def play(subject: Subject, tell: Callable[[str], object]) -> Played:
    """Play what is missing of an evaluation, and return all of it.

    A reply is seeded by the number of its episode, so what was interrupted comes to the same as what was not.

    Args:
        subject: What is evaluated.
        tell: Is told how far it is.

    Raises:
        RunDirectoryError: Another process plays the same, or there is no place for the episodes.
    """
    set_up(subject.config)
    settings = subject.plain()
    path = subject.asked.output_dir / _name(subject, _written(settings))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parent = str(subject.asked.output_dir)
        raise RunDirectoryError(
            f"--output-dir {parent!r}: expected a directory that can be written to ({error.strerror})."
        ) from None
    directory = RunDirectory(path)  # which one process at a time writes to
    try:
        with whole_or_absent(path / "settings.json") as temporary:
            model = {"model": subject.config.model.name, "date": subject.config.model.date}
            temporary.write_text(_written({**settings, **model}), encoding="utf-8")
        rows = run_rows(subject.config, subject.env_id, {"eval_data": subject.asked.data})
        shares = in_shares(_tasks(subject, rows), max(1, _AT_ONCE // subject.asked.samples))
        files = [path / f"episodes-{share[0].number:07d}.parquet" for share in shares]
        _play_missing(subject, rows, dict(zip(files, shares, strict=True)), tell)
        episodes = [one for file, tasks in zip(files, shares, strict=True) for one in _kept(file, len(tasks))]
        seconds = sum(_seconds(file.with_suffix(".json")) for file in files)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise RunDirectoryError(
            f"{str(path)!r}: expected room for the episodes ({os.strerror(error.errno)}). Those that are in it are "
            "kept, and the same command goes on."
        ) from error
    finally:
        directory.close(discard=not any(path.glob("episodes-*.parquet")))
    groups = [list(group) for _, group in itertools.groupby(episodes, key=lambda episode: episode.group)]
    return Played(path, groups, seconds)


def _kept(file: Path, tasks: int) -> list[Trajectory]:
    """Return the episodes of a file, which has one of each seat for each of its tasks.

    Raises:
        DataError: It has some of them only, or those of another evaluation.
    """
    episodes = read_trajectories(file)
    if not episodes or len(episodes) % tasks:
        raise DataError(
            f"{str(file)!r}: expected {tasks} episodes of each seat, got {len(episodes)}; without this file, the same "
            "command plays them."
        )
    return episodes


def _seconds(file: Path) -> float:
    """Return how long the episodes took that a file is about.

    Raises:
        DataError: It does not say.
    """
    seconds = json_object(file).get("seconds")
    if not isinstance(seconds, float) or not seconds >= 0:
        raise DataError(f"{str(file)!r}: expected seconds, got {seconds!r:.80}.")
    return seconds


def _written(settings: dict[str, Any]) -> str:
    return json.dumps(settings, indent=2, sort_keys=True, default=str) + "\n"


def _tasks(subject: Subject, rows: RunRows | None) -> list[Task]:
    """Return the tasks of an evaluation, each as often as it is played: seeds from 0 on, or rows."""
    count, samples = subject.asked.tasks, subject.asked.samples
    chosen = range(count) if rows is None else rows.evaluated(count)
    return [
        Task(place, place, None if rows is None else row, number=place * samples + sample)
        for place, row in enumerate(chosen)
        for sample in range(samples)
    ]


def _play_missing(
    subject: Subject, rows: RunRows | None, shares: dict[Path, Sequence[Task]], tell: Callable[[str], object]
) -> None:
    """Play those shares whose files are not there."""
    missing = {file: tasks for file, tasks in shares.items() if not file.exists()}
    total = sum(map(len, shares.values()))
    done = total - sum(map(len, missing.values()))
    if not missing:
        return
    before = f", of which {done} are there already" if done else ""
    tell(f"{subject.label}: {total} episodes of {subject.env_id}{before}.")
    misplaced = None if subject.endpoint.url else made_for_others(subject.config.model.name, subject.env_id)
    if misplaced is not None:
        tell(f"{misplaced}: expect little success in {subject.env_id}.")
    begun, first = time.perf_counter(), done
    variable, _ = _key()
    if subject.endpoint.url is not None and variable:
        tell(f"{subject.endpoint.url} is given the key in {variable}.")
    plays = _player if subject.endpoint.url is None else _endpoint_player
    with (
        _telling_what_is_kept(lambda: tell(f"{done:,} of {total:,} episodes are kept.")),
        plays(subject, rows, max(map(len, missing.values()))) as player,
    ):
        for file, tasks in missing.items():
            started = time.perf_counter()
            episodes = player.collect(tasks, subject.config.sampling, seed=subject.config.run.seed)
            now = time.perf_counter()
            with whole_or_absent(file.with_suffix(".json")) as temporary:
                temporary.write_text(json.dumps({"seconds": now - started}) + "\n", encoding="utf-8")
            write_trajectories(file, episodes)
            done += len(tasks)
            left = (now - begun) / (done - first) * (total - done)
            if done < total:
                tell(f"{done} of {total} episodes, about {seconds_of(left)} left.")


@contextlib.contextmanager
def _telling_what_is_kept(tell: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        tell()
        raise


@contextlib.contextmanager
def _player(subject: Subject, rows: RunRows | None, count: int) -> Iterator[Player]:
    """Yield what plays with the model of a subject."""
    scorer = None if subject.scorer is None else find_scorer(subject.scorer)()
    actor = Actor(subject.config, keeps_reference=False, plays=True, rows=rows)
    actor.rollouts = LocalRollouts(actor)
    if scorer is not None:
        put_on(scorer, actor.model.device.type)
    split = subject.asked.split
    try:
        with contextlib.closing(actor.make_envs(min(_AT_ONCE, count), split=split)) as envs:
            yield actor.rollouts.player(envs, judges_alone(scorer), split=split, needs_scores=False)
    finally:
        actor.close()


@contextlib.contextmanager
def _endpoint_player(subject: Subject, rows: RunRows | None, count: int) -> Iterator[Player]:
    """Yield what plays with a model that a server has."""
    asked, config, split = subject.endpoint, subject.config, subject.asked.split
    speaker = import_extra("llmgym.evals.endpoint", "endpoint").ChatEndpoint(asked, config.model.name, _key()[1])
    scorer = None if subject.scorer is None else find_scorer(subject.scorer)()
    if scorer is not None:
        put_on(scorer, device_of(config.model.device))
    with contextlib.closing(make_envs(config, rows, min(_AT_ONCE, count), split=split)) as envs:
        yield MessageCollector(
            envs,
            speaker,
            judges_alone(scorer),
            max_overlong=config.conversation.max_overlong,
            max_failure_rate=config.environment.max_failure_rate,
            needs_scores=False,
            env_retries=config.environment.env_retries,
        )


def _key() -> tuple[str, str] | tuple[None, None]:
    """Return the environment variable that the key of an endpoint is in, and the key; twice None if there is none."""
    return next(((name, found) for name in _KEYS if (found := key_in(name))), (None, None))


def _name(subject: Subject, settings: str) -> str:
    """Return the name of a directory for what is asked: in words, and with a hash of all that decides its numbers."""
    words = re.sub("[^A-Za-z0-9.@_-]+", "-", f"{subject.env_id.rpartition('/')[2]}-{subject.label}").strip("-")
    return f"{words[:80]}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
