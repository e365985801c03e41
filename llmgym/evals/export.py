"""Stored episodes as training data in TRL's columns: demonstrations, pairs, feedback, prompts, or plain lines."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmgym.data.conversations import CONVERSATION, as_rows
from llmgym.errors import ConfigError, DataError
from llmgym.evals.stored import Stored, TaskKey, first_reply
from llmgym.evals.where import Where
from llmgym.files import whole_or_absent
from llmgym.rollout.trajectory import Trajectory
from llmgym.types import Message

_SCORES = [("score_chosen", pa.float64()), ("score_rejected", pa.float64())]
_SCHEMAS: Mapping[str, pa.Schema] = {
    "sft": pa.schema([("messages", CONVERSATION)]),
    "dpo": pa.schema([*((name, CONVERSATION) for name in ("prompt", "chosen", "rejected")), *_SCORES]),
    "kto": pa.schema([("prompt", CONVERSATION), ("completion", CONVERSATION), ("label", pa.bool_())]),
    "prompts": pa.schema(
        [
            ("prompt", CONVERSATION),
            ("seed", pa.int64()),
            ("row", pa.int64()),
            ("samples", pa.int64()),
            ("pass_rate", pa.float64()),
            ("mean_score", pa.float64()),
        ]
    ),
}


@dataclass(frozen=True)
class Sample:
    """An episode with what can be asked of it.

    Attributes:
        task: What it is about.
        episode: The episode.
        facts: What conditions are about, by name, besides the parts of its score.
    """

    task: TaskKey
    episode: Trajectory
    facts: Mapping[str, Any]

    @property
    def asked(self) -> Mapping[str, Any]:
        """What conditions are about, by name."""
        return {**self.episode.parts, **self.facts}

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What was said before the first reply."""
        return tuple(self.episode.messages[: first_reply(self.episode)])

    @property
    def completion(self) -> tuple[Message, ...]:
        """What followed, up to the last reply."""
        messages = self.episode.messages
        last = max(place for place, message in enumerate(messages) if message.role == "assistant")
        return tuple(messages[first_reply(self.episode) : last + 1])


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        rows: How many rows.
        episodes: How many episodes were there.
        unfinished: Episodes that were left out because nobody replied in them, or their environment failed.
        filtered: Episodes that the condition left out.
        alike: Tasks that give no pair, since their episodes have equal scores or there is but one.
    """

    rows: int
    episodes: int
    unfinished: int
    filtered: int
    alike: int


def samples_of(stored: Stored) -> list[Sample]:
    """Return episodes with the facts that conditions are about."""
    declared = any("success" in one.parts for task in stored.tasks.values() for one in task)
    tasks = stored.tasks.items()
    return [sample for task, episodes in tasks for sample in _of_task(task, episodes, declared=declared)]


def _of_task(task: TaskKey, episodes: Sequence[Trajectory], *, declared: bool) -> Iterator[Sample]:
    verdicts = [one.verdict for one in episodes if declared and one.verdict is not None]
    scores = [one.score for one in episodes if one.score is not None]
    shared = {
        "samples": len(episodes),
        "pass_rate": sum(verdicts) / len(verdicts) if verdicts else None,
        "mean_score": sum(scores) / len(scores) if scores else None,
    }
    for one in episodes:
        own = {
            "score": one.score,
            "success": one.verdict if declared else None,
            "ending": one.ending,
            "failed": one.failed,
            "cut_off": one.cut_off,
            "turns": len(one.replies),
            "tokens": one.written_tokens,
            "seed": one.seed,
            "row": one.data_row,
            "seat": one.seat,
            "step": task.step,
        }
        yield Sample(task, one, {**own, **shared})


def export(stored: Stored, form: str, path: Path, *, where: str | None = None, label: str | None = None) -> Exported:
    """Write stored episodes as training data; the file is whole or absent.

    Args:
        stored: The episodes.
        form: What as. ``sft``: a conversation per episode. ``dpo``: the best and the worst episode of each
            task. ``kto``: an episode per row, good or bad. ``prompts``: the beginning of each task. ``jsonl``: all that
            is known of each episode.
        path: A file whose name ends with .parquet or .jsonl.
        where: A condition that episodes fulfil, see `Where`.
        label: Which episodes are good ones, for ``kto``; a condition too. None: those with ``success``.

    Raises:
        ConfigError: A condition cannot be read, `label` is given for another format than ``kto``, the name of the file
            does not say what it should be, or it cannot be written.
        DataError: No episode is left.
    """
    if path.suffix not in (".parquet", ".jsonl") or (form == "jsonl" and path.suffix != ".jsonl"):
        suffixes = ".jsonl" if form == "jsonl" else ".parquet or .jsonl"
        raise ConfigError(f"{str(path)!r}: expected the name of a file that ends with {suffixes}.")
    if label is not None and form != "kto":
        raise ConfigError(f"label: is about the good and the bad episodes of kto, and the format is {form}.")
    if path.resolve() in {file.resolve() for file in stored.files}:
        raise ConfigError(f"{str(path)!r}: expected another file than one of those that are exported.")
    samples = samples_of(stored)
    names = {name for sample in samples for name in sample.asked}
    condition = None if where is None else Where(where, names)
    usable = [one for one in samples if one.episode.replies and not one.episode.failed]
    chosen = [one for one in usable if condition is None or condition(one.asked)]
    if not usable:
        raise DataError(f"{stored.name!r}: expected finished episodes, got none of {len(samples)}.")
    if not chosen:
        raise DataError(f"{stored.name!r}: none of its {len(usable)} finished episodes fulfils {where!r}.")
    match form:
        case "sft":
            rows: list[dict[str, Any]] = [{"messages": as_rows([*one.prompt, *one.completion])} for one in chosen]
        case "dpo":
            rows = [row for task in _by_task(chosen) if (row := _pair(task)) is not None]
        case "kto":
            good = Where("success" if label is None else label, names)
            rows = [_prompt(one) | {"completion": as_rows(one.completion), "label": good(one.asked)} for one in chosen]
        case "prompts":
            shared = ("seed", "row", "samples", "pass_rate", "mean_score")
            rows = [_prompt(one) | {name: one.facts[name] for name in shared} for one, *_ in _by_task(chosen)]
        case _:
            rows = [{**_whole(one), "parts": one.episode.parts} for one in chosen]
    if not rows:
        raise DataError(f"{stored.name!r}: expected a task with two episodes of unequal score, got none to pair.")
    try:
        _write(path, rows, _SCHEMAS.get(form))
    except OSError as error:
        raise ConfigError(f"{str(path)!r}: expected a file that can be written ({error.strerror}).") from None
    alike = len(_by_task(chosen)) - len(rows) if form == "dpo" else 0
    return Exported(len(rows), len(samples), len(samples) - len(usable), len(usable) - len(chosen), alike)


def _whole(sample: Sample) -> dict[str, Any]:
    return {"messages": as_rows(sample.episode.messages), **sample.facts}


def _prompt(sample: Sample) -> dict[str, Any]:
    return {"prompt": as_rows(sample.prompt)}


def _by_task(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Return samples of the same task together, in the order in which their tasks come first."""
    tasks: dict[TaskKey, list[Sample]] = {}
    for one in samples:
        tasks.setdefault(one.task, []).append(one)
    return list(tasks.values())


def _pair(task: Sequence[Sample]) -> dict[str, Any] | None:
    """Return the best and the worst episode of a task, divided where they begin to differ; None if they are alike."""
    scored = sorted((one for one in task if one.episode.score is not None), key=lambda one: one.facts["score"])
    if not scored or scored[0].facts["score"] == scored[-1].facts["score"]:
        return None
    worst, best = scored[0], scored[-1]
    shared = list(best.prompt)
    if list(worst.prompt) != shared:
        return None
    rest = [list(best.completion), list(worst.completion)]
    while all(len(one) > 2 for one in rest) and rest[0][:2] == rest[1][:2]:  # a reply and its answer that both have
        shared += rest[0][:2]
        rest = [one[2:] for one in rest]
    return {
        "prompt": as_rows(shared),
        "chosen": as_rows(rest[0]),
        "rejected": as_rows(rest[1]),
        "score_chosen": best.facts["score"],
        "score_rejected": worst.facts["score"],
    }


def _write(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None) -> None:
    with whole_or_absent(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")
        else:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            temporary.write_text("".join(lines), encoding="utf-8")
