"""`rescore`: stored episodes, as another scorer scores them; nothing is sampled."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from llmgym.config.presets import directory_of
from llmgym.config.sections import Conversation, Environment, Model, Sampling, Tasks
from llmgym.engines.base import Completion
from llmgym.engines.recorded import RecordedEngine
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import ConfigError, DataError
from llmgym.evals.rescored import Again, Rescored
from llmgym.evals.stored import Stored, TaskKey
from llmgym.models.causal_lm import find_model, load_tokenizer
from llmgym.models.pretrained import pretrained, stop_tokens
from llmgym.registry import make_env, resolve_env, takes_rows, takes_split
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.message_collector import MessageCollector
from llmgym.rollout.player import Player
from llmgym.rollout.recorded_speaker import RecordedSpeaker
from llmgym.rollout.run_time import set_run_time
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers import find_scorer
from llmgym.train import checkpoints

_AT_ONCE = 256  # episodes that are played side by side


def rescore(stored: Stored, scorer: str, *, data: Path | None = None) -> Rescored:
    """Play stored episodes again in their environments, with the replies that they had, and ask a scorer.

    Args:
        stored: The episodes.
        scorer: The name of the scorer.
        data: The rows that they are about, if those of the run are not meant.

    Raises:
        ConfigError: There are several seats, or rows are missing.
        DataError: No episode is left.
    """
    episodes = [(key, sample, one) for key, task in stored.tasks.items() for sample, one in enumerate(task)]
    finished = [known for known in episodes if known[2].finished]
    if any(one.seat for _, _, one in episodes):
        raise ConfigError(f"{stored.name!r}: expected an environment with one seat, got episodes of seat 1.")
    if not finished:
        raise DataError(f"{stored.name!r}: expected episodes that came to their end, got none of {len(episodes)}.")
    again = _played([(key, one) for key, _, one in finished], stored, scorer, data)
    same = [
        Again(key, sample, one, other)
        for (key, sample, one), other in zip(finished, again, strict=True)
        if one.messages == other.messages and one.ending == other.ending
    ]
    if not same:
        raise DataError(f"{stored.name!r}: expected its environment to say what it said, got other answers throughout.")
    return Rescored(stored.name, same, len(episodes) - len(finished), len(finished) - len(same))


def _checkpoint(stored: Stored) -> str:
    """Return where the tokenizer of stored episodes is."""
    found = None if stored.run is None else checkpoints.newest_whole(stored.run)
    return directory_of(stored.section(Model).name) if found is None else str(found.path)


def _played(
    keyed: Sequence[tuple[TaskKey, Trajectory]], stored: Stored, scorer: str, data: Path | None
) -> list[Trajectory]:
    """Return episodes, each with its task, played again with the replies that they had, in the same order."""
    episodes = [one for _, one in keyed]
    groups: dict[tuple[TaskKey, int], int] = {}
    tasks = [
        Task(one.seed, groups.setdefault((key, one.seed), len(groups)), one.data_row, number)
        for number, (key, one) in enumerate(keyed)
    ]
    set_run_time(stored.section(Model).date)
    with _environments(stored, min(_AT_ONCE, len(tasks)), data) as envs:
        limits: dict[str, Any] = {"max_overlong": 1.0, "max_failure_rate": 1.0, "needs_scores": False}
        player: Player
        if episodes[0].without_tokens:
            player = MessageCollector(envs, RecordedSpeaker(dict(enumerate(episodes))), find_scorer(scorer)(), **limits)
        else:
            engine = RecordedEngine({number: _replies(number, one) for number, one in enumerate(episodes)})
            player = Collector(envs, _codec(stored), engine, find_scorer(scorer)(), **limits)
        tasks.sort(key=lambda task: task.group)  # siblings are adjacent
        played = player.collect(tasks, Sampling(max_tokens=RecordedEngine.context_length))
    return [one for _, one in sorted(zip(tasks, played, strict=True), key=lambda pair: pair[0].number or 0)]


def _replies(number: int, episode: Trajectory) -> list[Completion]:
    """Return the replies of an episode as an engine of version 0 gives them."""
    return [
        Completion(
            number,
            episode.tokens[one.start : one.stop],
            episode.log_probs[one.start : one.stop],
            one.finish_reason,
            weight_version=0,
        )
        for one in episode.replies
    ]


def _codec(stored: Stored) -> ChatCodec:
    path, found = find_model(_checkpoint(stored))
    tokenizer = load_tokenizer(path, found)
    settings = pretrained(GenerationConfig, path, "a generation_config.json", found)
    return ChatCodec(tokenizer, stop_tokens(settings, path), stored.section(Conversation).history)


@contextlib.contextmanager
def _environments(stored: Stored, count: int, data: Path | None) -> Iterator[TextVectorEnv]:
    """Yield the environments that episodes were played in."""
    played, split = stored.section(Environment), stored.options.get("split")
    env_id = resolve_env(played.required)
    arguments = dict(played.env_kwargs)
    if split is not None and takes_split(env_id):
        arguments["split"] = split
    if split == "eval":
        arguments |= played.eval_env_kwargs
    rows = stored.section(Tasks).path if data is None and split is None else data
    if takes_rows(env_id) and rows is not None:
        arguments["rows"] = rows
    with contextlib.closing(TextVectorEnv([lambda: make_env(env_id, **arguments)] * count)) as envs:
        if len(envs.seats) > 1:
            raise ConfigError(f"{env_id}: expected an environment with one seat, got {len(envs.seats)}.")
        yield envs
