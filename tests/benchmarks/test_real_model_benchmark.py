"""The benchmark of the real model: its task is fair, and its verdict follows from what was played."""

import itertools
import json
import math
import statistics
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.paired import PairedDifference
from benchmarks.real_model import Played, Run, draw, table
from benchmarks.where_is import WhereIs
from llmgym.envs.checker import check_env


@pytest.mark.parametrize("split", ["train", "eval"])
def test_the_task_keeps_the_contract_and_its_expert_earns_everything(split: str) -> None:
    check_env(WhereIs(split=split))


def test_what_is_held_out_has_people_and_places_that_training_never_shows() -> None:
    words = {split: set() for split in ("train", "eval")}
    for split, seen in words.items():
        env = WhereIs(split=split)
        for seed in range(200):
            story, _, question = env.reset(seed=seed)[0].rpartition(". ")
            assert question.removeprefix("Where is ")[:-1] in story
            seen |= {word for sentence in story.split(". ") for word in sentence.split(" is in the ")}
    assert len(words["train"]) == 16
    assert len(words["eval"]) == 8
    assert not words["train"] & words["eval"]


@pytest.mark.parametrize(
    ("reply", "reward"),
    [("Anna is in the hall.", 1.0), ("hall", 1.0), ("the park", 0.1), ("the hall or the park", 0.0), ("1.", 0.0)],
)
def test_a_reply_is_right_if_it_names_the_right_place_and_no_other(reply: str, reward: float) -> None:
    env = WhereIs()
    env.reset(seed=0)
    env.places, env.episode.task = ["garden", "hall", "park"], "hall"
    assert env.step(reply)[1] == pytest.approx(reward)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 1), (3, 3), (2, 8)])
def test_the_p_value_is_the_share_of_ways_to_toss_coins_that_are_as_uneven(gained: int, lost: int) -> None:
    tosses = [sum(toss) for toss in itertools.product((1, -1), repeat=gained + lost)]
    uneven = sum(abs(toss) >= abs(gained - lost) for toss in tosses) / len(tosses)
    assert PairedDifference(gained, lost, 20).p_value == pytest.approx(uneven)


def test_the_interval_is_that_of_a_mean_of_differences_with_half_a_task_more_in_each_of_four_cells() -> None:
    paired = PairedDifference.of([False] * 6 + [True] * 4, [True] * 5 + [False] * 3 + [True] * 2)
    assert (paired.gained, paired.lost, paired.tasks, paired.difference) == (5, 2, 10, pytest.approx(0.3))
    halves = [1] * 11 + [-1] * 5 + [0] * 8  # counted in halves
    half_width = 1.959964 * statistics.pstdev(halves) / math.sqrt(len(halves) / 2)
    expected = [statistics.mean(halves) - half_width, statistics.mean(halves) + half_width]
    assert paired.interval() == pytest.approx(expected)


def run(before: int, after: int, seconds: float = 60.0) -> Run:
    played = [Played([i < right for i in range(100)], 0.9, 0.5, [("Where?", "There.")]) for right in (before, after)]
    return Run("weights", *played, curve=[0.1, 0.5], seconds=seconds, training_seconds=50.0, peak_gib=3.0)


def test_a_run_passes_if_it_rises_enough_for_sure_and_in_time(tmp_path: Path) -> None:
    assert run(20, 50).passes
    assert not run(20, 49).passes  # too little
    assert not run(20, 90, seconds=2401).passes  # too late
    swapped = replace(run(0, 0), before=Played([True] * 33 + [False] * 67, 1.0, 0.5, []))
    assert not swapped.passes  # the wrong way
    assert "PASS" in table([run(20, 50)])
    assert Run.from_json(json.dumps(asdict(run(20, 50)))).paired == run(20, 50).paired
    draw(tmp_path / "curve.png", [run(20, 50), run(10, 90)])
    assert (tmp_path / "curve.png").stat().st_size < 100_000
