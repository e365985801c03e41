"""What pages are answered about real runs is what their files hold."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmgym.data.trajectories import SCHEMA, read_trajectories, write_trajectories
from llmgym.errors import ConfigError, DataError, UnknownNameError
from llmgym.learn.advantages import ESTIMATORS
from llmgym.rollout.trajectory import Trajectory
from llmgym.types import Message
from llmgym.view import Answers, open_runs
from llmgym.view.advantages import FROM_A_GROUP, advantages
from llmgym.view.runs import Run
from tests.view.conftest import episode


def asked(paths: list[Path]) -> Answers:
    runs = open_runs(paths)
    for run in runs:
        run.refresh()
    return Answers(runs)


@pytest.fixture(scope="module")
def answers(real_runs: list[Path]) -> Answers:
    return asked(real_runs)


@pytest.fixture(scope="module")
def stored(real_runs: list[Path]) -> dict[tuple[str, int, int], Trajectory]:
    return {
        (run.name, int(shard.stem[-5:]), index): one
        for run in real_runs
        for shard in sorted(run.glob("trajectories/*.parquet"))
        for index, one in enumerate(read_trajectories(shard))
    }


def test_an_episode_without_tokens_is_shown_by_its_words_and_has_the_servers_counts(
    run_of: Callable[..., Path],
) -> None:
    one = Trajectory(seed=7, group=0, messages=[Message("user", "Is it?"), Message("assistant", "yes")])
    one.hear_of("stop", 12, 5)
    one.score, one.ending = 1.0, "terminated"
    lost = Trajectory(seed=8, group=1, messages=[Message("user", "Is it?")], ending="no_reply", score_error="too busy")
    found = asked([run_of({1: [one, lost]})])
    page = found.answer("episode", {"step": "1", "index": "0"})
    assert (page["tokens"], page["length"], page["replies"][0]["tokens"]) == ([], 5, 5)
    assert [message["content"] for message in page["messages"]] == ["Is it?", "yes"]
    assert found.answer("episode", {"step": "1", "index": "1"})["score_error"] == "too busy"
    assert [row["length"] for row in rows(found, ending="no_reply")] == [0]


def rows(answers: Answers, **query: Any) -> list[dict[str, Any]]:
    """Return all rows of the table, page after page."""
    found: list[dict[str, Any]] = []
    start = 0
    while True:
        page = answers.answer("episodes", {"count": "7", **{k: str(v) for k, v in query.items()}, "from": str(start)})
        found += page["rows"]
        start = page["to"]
        if start >= page["total"]:
            return found


def names(found: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(one["run"], one["step"], one["index"]) for one in found]


def test_runs_are_described_by_their_own_files(answers: Answers, real_runs: list[Path]) -> None:
    fast, slow = answers.answer("runs", {})["runs"]
    assert (fast["label"], fast["steps"], fast["episodes"]) == ("fast", 3, 36)
    assert (slow["label"], slow["steps"], slow["episodes"]) == ("slow", 2, 24)
    own = json.loads((real_runs[0] / "evaluations.json").read_text())
    assert [one["success"] for one in fast["evaluations"]] == [one["success"] for one in own.values()]
    assert fast["options"]["learning_rate"] == "0.005"
    assert not fast["faults"]


def test_an_evaluation_is_what_its_episodes_came_to_a_task_counting_once(tmp_path: Path) -> None:
    told = [(1, 1.0), (1, 1.0), (1, 0.0), (2, 0.0), (3, 1.0)]
    shards = [told[:2], told[2:]]
    for number, shard in enumerate(shards):
        played = [episode(score=score, seed=seed, group=place) for place, (seed, score) in enumerate(shard)]
        write_trajectories(tmp_path / f"episodes-{number:07d}.parquet", played)
    (tmp_path / "settings.json").write_text("{}")
    run = Run(tmp_path, "evaluation")
    run.refresh()
    (found,) = run.evaluations
    assert found["success"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert 0 <= found["success_low"] < found["success"] < found["success_high"] <= 1
    assert (found["step"], found["episodes"], found["measure"]) == (0, 5, "success")


def test_metrics_are_those_of_the_file_from_any_line_on(answers: Answers, real_runs: list[Path]) -> None:
    lines = [json.loads(line) for line in (real_runs[0] / "metrics.jsonl").read_text().splitlines()]
    whole = answers.answer("metrics", {"run": "fast"})
    for name, values in whole["columns"].items():
        assert values == [line.get(name) for line in lines]
    assert whole["columns"].keys() == set(itertools.chain(*lines))
    rest = answers.answer("metrics", {"run": "fast", "from": "2", "edition": str(whole["edition"])})
    assert rest["columns"]["reward"] == [lines[2]["reward"]]
    again = answers.answer("metrics", {"run": "fast", "from": "2", "edition": "77"})
    assert again["from"] == 0, "a file that was replaced is read from its start"


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ({}, lambda step, one: True),
        ({"step": 2}, lambda step, one: step == 2),
        ({"outcome": "failure"}, lambda step, one: not one.succeeded),
        ({"outcome": "success"}, lambda step, one: one.succeeded),
        ({"outcome": "unknown"}, lambda step, one: "success" not in one.parts),
        ({"low": 0.5}, lambda step, one: one.score >= 0.5),
        ({"high": 0.5}, lambda step, one: one.score <= 0.5),
        ({"low": 0.4, "high": 0.6, "step": 1}, lambda step, one: step == 1 and 0.4 <= one.score <= 0.6),
        ({"shortest": 57}, lambda step, one: one.sampled_tokens >= 57),
        ({"longest": 56}, lambda step, one: one.sampled_tokens <= 56),
        ({"ending": "terminated"}, lambda step, one: one.ending == "terminated"),
        ({"ending": "truncated"}, lambda step, one: one.ending == "truncated"),
        ({"group": 1}, lambda step, one: one.group == 1),
        ({"text": "SLOW_STORAGE"}, lambda step, one: any("slow_storage" in m.content for m in replies(one))),
        ({"text": "Round 2"}, lambda step, one: False),
        ({"text": "Round 2", "everybody": 1}, lambda step, one: True),
    ],
)
def test_a_filter_keeps_those_episodes_that_fit_and_no_others(
    answers: Answers, stored: dict[tuple[str, int, int], Trajectory], query: dict[str, Any], fits: Any
) -> None:
    found = names(rows(answers, run="fast", **query))
    assert Counter(found) == Counter(name for name, one in stored.items() if name[0] == "fast" and fits(name[1], one))


def replies(one: Trajectory) -> list[Any]:
    return [message for message in one.messages if message.role == "assistant"]


def test_a_task_is_found_by_its_seed(answers: Answers, stored: dict[tuple[str, int, int], Trajectory]) -> None:
    seed = stored["fast", 2, 0].seed
    for words in (f"seed {seed}", str(seed)):
        assert {step for _, step, _ in names(rows(answers, task=words))} == {2}
    assert not rows(answers, task=f"row {seed}")


@pytest.mark.parametrize("sort", ["step", "-step", "score", "-score", "length", "-length", "turns"])
def test_tables_are_sorted_and_paging_loses_nothing(answers: Answers, sort: str) -> None:
    found = rows(answers, sort=sort)
    values = [one[sort.removeprefix("-")] for one in found]
    assert values == sorted(values, reverse=sort.startswith("-"))
    assert len(set(names(found))) == len(found) == 36


def test_the_summary_is_of_all_that_fits_and_not_of_the_page(
    answers: Answers, stored: dict[tuple[str, int, int], Trajectory]
) -> None:
    summary = answers.answer("episodes", {"run": "slow", "count": "1"})["summary"]
    own = [one for (run, _, _), one in stored.items() if run == "slow"]
    assert summary["count"] == 24
    assert summary["successes"] == sum(one.succeeded for one in own)
    assert summary["score"] == pytest.approx(np.mean([one.score for one in own]))
    for name, value in summary["parts"].items():
        assert value == pytest.approx(np.mean([one.parts[name] for one in own]))


def test_failures_are_counted_among_all_and_per_task(
    answers: Answers, stored: dict[tuple[str, int, int], Trajectory]
) -> None:
    own = [one for (run, step, _), one in stored.items() if run == "fast" and step == 2]
    failed = Counter(f"seed {one.seed}" for one in own if not one.succeeded)
    summary = answers.answer("episodes", {"run": "fast", "step": "2", "outcome": "failure"})["summary"]
    assert (summary["count"], summary["among"]) == (failed.total(), len(own))
    assert {one["task"]: (one["count"], one["of"]) for one in summary["tasks"]} == {
        task: (count, 4) for task, count in failed.items()
    }
    counts = [one["count"] for one in summary["tasks"]]
    assert counts == sorted(counts, reverse=True)


def test_metrics_and_parts_are_explained_by_the_table_of_metrics_and_the_environment(answers: Answers) -> None:
    meanings = answers.answer("metrics", {"run": "fast"})["meanings"]
    assert all(meanings.values())
    assert meanings["reward"] == "Mean of the rewards of episodes that have a score"
    assert "round 2 is exactly one JSON object" in meanings["part/json_ok"]
    parts = answers.answer("runs", {})["runs"][0]["parts"]
    assert parts.keys() == answers.answer("episode", {"step": "1", "index": "0"})["parts"].keys()


def test_an_episode_is_shown_as_it_was_stored(answers: Answers, stored: dict[tuple[str, int, int], Trajectory]) -> None:
    for (run, step, index), one in list(stored.items())[::5]:
        page = answers.answer("episode", {"run": run, "step": str(step), "index": str(index)})
        assert page["tokens"] == one.tokens
        assert [message["content"] for message in page["messages"]] == [message.content for message in one.messages]
        sampled = [start <= place < stop for place in range(len(one.tokens)) for start, stop in [span(page, place)]]
        assert sampled == one.mask
        log_prob = colour(page, "log_prob")["values"]
        expected = [value for value, own in zip(one.log_probs, one.mask, strict=True) if own]
        assert log_prob == pytest.approx(expected, rel=1e-4)
        for reply, message in zip(one.replies, replies(one), strict=True):
            said = "".join(page["pieces"][reply.start : reply.stop])
            assert said.removesuffix("<|im_end|>").strip() == message.content.strip()
        assert page["times"]["rollout_seconds"] > 0


def span(page: dict[str, Any], place: int) -> tuple[int, int]:
    return next(((a, b) for a, b in page["sampled"] if a <= place < b), (-1, -1))


def colour(page: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in page["colours"] if one["name"] == name)


def test_an_advantage_is_that_which_the_run_learnt_from(
    answers: Answers, stored: dict[tuple[str, int, int], Trajectory]
) -> None:
    own = [one for (run, step, _), one in stored.items() if run == "fast" and step == 1]
    reward, group = torch.tensor([one.score for one in own]), torch.tensor([one.group for one in own])
    expected = ESTIMATORS["group_std"](reward, group, torch.ones(len(own), dtype=torch.bool), torch.ones(len(own)))
    for index in range(len(own)):
        query = {"run": "fast", "step": "1", "index": str(index)}
        page = answers.answer("episode", query)
        values = colour(page, "advantage")["values"]
        assert set(values) == {values[0]}
        assert values[0] == pytest.approx(float(expected[index]), rel=1e-4, abs=1e-6)
        log_probs = np.array(colour(page, "log_prob")["values"])
        assert colour(page, "push")["values"] == pytest.approx(values[0] * (1 - np.exp(log_probs)), abs=1e-4)
        siblings = answers.answer("group", query)["episodes"]
        mine = next(one for one in siblings if one["index"] == index)
        assert mine["advantage"] == pytest.approx(float(expected[index]), rel=1e-4, abs=1e-6)
        assert len({one["task"] for one in siblings}) == 1
        assert len(siblings) == 4


@given(
    st.sampled_from(list(FROM_A_GROUP)),
    st.lists(st.tuples(st.none() | st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 50)), min_size=1, max_size=9),
)
def test_advantages_are_those_of_the_estimators(estimator: Any, group: list[tuple[float | None, int]]) -> None:
    score = np.array([np.nan if value is None else value for value, _ in group])
    length = np.array([float(tokens) for _, tokens in group])
    found = advantages(estimator, score, length)
    reward, scored = torch.tensor(np.nan_to_num(score)), torch.tensor(~np.isnan(score))
    zeros = torch.zeros(len(group), dtype=torch.long)
    expected = ESTIMATORS[estimator](reward, zeros, scored, torch.tensor(length))
    assert found == pytest.approx(expected.numpy(), abs=1e-9)


def learnt(run: Path, **columns: float | None) -> None:
    """Let a learner have found a number for each token of a step, or nothing."""
    shard = run / "trajectories" / "step-00001.parquet"
    table = pq.read_table(shard)
    lengths = [len(tokens) for tokens in table["tokens"].to_pylist()]
    for name, value in columns.items():
        column = pa.array([[] if value is None else [value] * length for length in lengths], pa.list_(pa.float32()))
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table.replace_schema_metadata(SCHEMA.metadata), shard)


def test_what_was_not_learnt_from_has_no_colours_of_a_learner(copied: Path) -> None:
    learnt(copied, advantages=None, entropies=None, learner_log_probs=math.nan)
    page = asked([copied]).answer("episode", {"step": "1", "index": "0"})
    for name in ("entropy", "mismatch"):
        assert colour(page, name)["values"] is None
        assert "only for those that were learnt from" in colour(page, name)["note"]
    assert "Computed from the scores of its group" in colour(page, "advantage")["note"]


def test_what_a_learner_found_colours_tokens(copied: Path) -> None:
    learnt(copied, advantages=0.5, entropies=0.25, learner_log_probs=-1.0)
    page = asked([copied]).answer("episode", {"step": "1", "index": "3"})
    assert set(colour(page, "advantage")["values"]) == {0.5}
    assert colour(page, "advantage")["note"] == "As the learner had it."
    assert set(colour(page, "entropy")["values"]) == {0.25}
    own = colour(page, "log_prob")["values"]
    assert colour(page, "mismatch")["values"] == pytest.approx([-1.0 - value for value in own], abs=1e-4)


def test_a_run_whose_advantages_need_the_whole_batch_has_none_computed(copied: Path) -> None:
    (copied / "config.yaml").write_text("advantage: batch_std\n")
    learnt(copied, advantages=None)
    page = asked([copied]).answer("episode", {"step": "1", "index": "3"})
    assert colour(page, "advantage")["values"] is colour(page, "push")["values"] is None
    assert "'batch_std' compares with the whole batch" in colour(page, "advantage")["note"]
    assert "advantage" not in asked([copied]).answer("group", {"step": "1", "index": "3"})["episodes"][0]


def test_without_a_tokenizer_tokens_have_no_text(copied: Path) -> None:
    (copied / "checkpoint" / "tokenizer.json").unlink()
    (copied / "config.yaml").write_text("model: some/name-of-a-hub\n")
    assert asked([copied]).answer("episode", {"step": "1", "index": "0"})["pieces"] is None


def test_a_run_that_goes_on_has_the_tokenizer_of_its_model(copied: Path) -> None:
    (copied / "checkpoint" / "tokenizer.json").unlink()
    pieces = asked([copied]).answer("episode", {"step": "1", "index": "0"})["pieces"]
    assert "".join(pieces).count("<|im_end|>") >= 2


def test_tasks_of_two_runs_are_put_together(answers: Answers, stored: dict[tuple[str, int, int], Trajectory]) -> None:
    found = answers.answer("tasks", {"run": "fast", "other": "slow"})
    assert (found["total"], found["missing"]) == (6, [3, 0])
    differences = [abs(row["difference"]) for row in found["rows"]]
    assert differences == sorted(differences, reverse=True)
    for row in found["rows"]:
        for run, side in zip(("fast", "slow"), row["sides"], strict=True):
            own = [
                one
                for (label, step, _), one in stored.items()
                if label == run and step == side["step"] and f"seed {one.seed}" == row["task"]
            ]
            assert side["count"] == len(own) == 4
            assert side["score"] == pytest.approx(np.mean([one.score for one in own]))
            assert side["success"] == pytest.approx(np.mean([one.succeeded for one in own]))
            shown = stored[run, side["step"], side["index"]]
            assert f"seed {shown.seed}" == row["task"]
            off = [abs((one.score or 0.0) - side["score"]) for one in own]
            assert abs((shown.score or 0.0) - side["score"]) == min(off), "the most typical one is shown"


def test_replies_are_the_last_ones(answers: Answers, stored: dict[tuple[str, int, int], Trajectory]) -> None:
    found = answers.answer("replies", {"run": "fast", "of": "3.1,1.2,3.0"})["replies"]
    assert found == [stored["fast", *place].messages[-1].content for place in ((3, 1), (1, 2), (3, 0))]


@pytest.mark.parametrize(
    ("path", "query", "error", "message"),
    [
        ("nothing", {}, UnknownNameError, "expected one of runs, metrics"),
        ("episodes", {"run": "other"}, UnknownNameError, "expected one of fast, slow, got 'other'"),
        ("episodes", {"step": "x"}, ConfigError, "step: expected a number, got 'x'"),
        ("episodes", {"outcome": "good"}, ConfigError, "outcome: expected one of success, failure, unknown"),
        ("episodes", {"sort": "__class__"}, ConfigError, "sort: expected one of step"),
        ("episodes", {"task": "seven"}, ConfigError, "task: expected a seed or a row"),
        ("episodes", {"from": "-1"}, ConfigError, "from: expected a whole number"),
        ("episode", {"step": "9", "index": "0"}, DataError, "Step 9 has no episode 0"),
        ("replies", {"of": "1"}, ConfigError, "of: expected step.index"),
        ("replies", {}, ConfigError, "of: expected step.index"),
        ("replies", {"of": f"{10**40}.1"}, DataError, "has no episode 1"),
        ("episodes", {"step": str(10**40)}, ConfigError, "step: expected a number"),
        ("episodes", {"low": "inf"}, ConfigError, "low: expected a number"),
    ],
)
def test_questions_that_make_no_sense_are_told_so(
    answers: Answers, path: str, query: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        answers.answer(path, query)


def test_runs_of_one_name_are_told_apart(real_runs: list[Path], tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "run" / "trajectories").mkdir(parents=True)
    labels = [run.label for run in open_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])]
    assert labels == ["a/run", "b/run"]
    with pytest.raises(DataError, match="got one twice"):
        open_runs([real_runs[0], real_runs[0]])
    with pytest.raises(DataError, match="expected the directory of a run"):
        open_runs([tmp_path])
