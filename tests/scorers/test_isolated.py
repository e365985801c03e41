"""Scorers in processes of their own: whatever one does costs its own episode."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import faulty
import pytest

from llmgym import Episode, FunctionScorer, Score
from llmgym.agents import GRPO
from llmgym.envs.waiting import settled
from llmgym.errors import ConfigError, TrainingError
from llmgym.scorers import PairwiseFunctionScorer, Weighted, ask, find_scorer, isolated
from llmgym.scorers.asking import AnyScorer
from llmgym.types import Turn

FILE = str(Path(faulty.__file__))
TIMEOUT = 2.0
GOOD = ["a", "bb", "ccc", "dddd"]


def episode(said: str = "abc", fault: str | None = None) -> Episode:
    return Episode(turns=[Turn("Why?", said)], task={"fault": fault, "rows": [1, 2]})


def asked(scorer: AnyScorer, *episodes: Episode, group: int = 0) -> list[Score]:
    scores: list[Score] = settled(ask(scorer, episodes, [group] * len(episodes)))
    return scores


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> AnyScorer:
    """Return the scorer of all faults, in two processes."""
    log = tmp_path_factory.mktemp("log") / "run" / "scorers.log"
    scorer = isolated(find_scorer(f"{FILE}:faults")(), workers=2, timeout=TIMEOUT, log=log)
    scorer.log = log  # type: ignore[union-attr]
    return scorer


def assert_lost_alone(scorer: AnyScorer, fault: str, reason: str) -> None:
    """Assert that a fault costs the score of its own episode, and that scores before and after are right."""
    for _ in range(2):
        bad, *good = asked(scorer, episode(fault=fault), *map(episode, GOOD))
        assert bad.value is None
        assert bad.error is not None
        assert reason in bad.error
        assert "faults" in bad.error, "it is named"
        assert [score.value for score in good] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("fault", faulty.HANGS)
def test_a_call_that_hangs_costs_its_own_episode_and_the_worker_is_replaced(faults: AnyScorer, fault: str) -> None:
    assert_lost_alone(faults, fault, "took longer than 2 s")


@pytest.mark.parametrize("fault", faulty.ENDS)
def test_a_call_that_ends_its_process_costs_its_own_episode(faults: AnyScorer, fault: str) -> None:
    ending = {"leaves": "exit code 0", "crashes": "SIGSEGV", "kills_itself": "SIGKILL"}[fault]
    assert_lost_alone(faults, fault, f"it ended its process with {ending}")


@pytest.mark.parametrize("fault", faulty.RAISES)
def test_an_exception_costs_its_own_episode(faults: AnyScorer, fault: str) -> None:
    assert_lost_alone(faults, fault, "raised")
    assert_lost_alone(find_scorer(f"{FILE}:faults")(), fault, "raised")


@pytest.mark.parametrize("fault", faulty.RETURNS)
def test_a_value_that_is_no_score_costs_its_own_episode(faults: AnyScorer, fault: str) -> None:
    expected = "has to return a reward for each" if fault == "rewards of other turns" else "has to return a finite num"
    for scorer in (faults, FunctionScorer(faulty.faults)):
        alone = [asked(scorer, episode(fault=fault)), asked(scorer, episode("bb"))]
        (bad,), (good,) = alone
        assert good.value == 2.0
        assert bad.error is not None
        assert expected in bad.error
        assert "faults" in bad.error


@pytest.mark.parametrize("fault", ["forks", "starts_threads"])
def test_what_a_call_leaves_behind_disturbs_nobody(faults: AnyScorer, fault: str) -> None:
    assert_lost_alone(faults, fault, "has to return a finite number, got float: nan")


def test_a_call_that_takes_too_much_memory_or_prints_a_gigabyte_costs_its_own_episode(faults: AnyScorer) -> None:
    scorer = isolated(find_scorer(f"{FILE}:faults")(), workers=1, timeout=120.0)
    assert_lost_alone(scorer, "eats", "MemoryError")
    assert_lost_alone(scorer, "prints", "got float: nan")
    asked(faults, episode(fault="prints"))
    deadline = time.monotonic() + 30
    log: Path = faults.log  # type: ignore[union-attr]
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert 0 < log.stat().st_size <= 10 * 2**20, "the log keeps the beginning"
    assert "x" * 2**20 in log.read_text()


def test_an_interruption_within_a_call_is_no_interruption_of_the_run(faults: AnyScorer) -> None:
    assert_lost_alone(faults, "interrupts", "ended its process")


def test_a_scorer_that_changes_its_episode_changes_it_for_nobody_else() -> None:
    row = {"fault": None, "rows": [1, 2]}
    episodes = [Episode(turns=[Turn("Why?", "abc")], task=row) for _ in range(3)]
    inside = Weighted({faulty.meddles: 1.0, faulty.right: 1.0})
    outside = isolated(inside, workers=1, timeout=TIMEOUT)
    for scorer in (inside, outside):
        assert [score.value for score in asked(scorer, *episodes)] == [8.0] * 3
        assert row == {"fault": None, "rows": [1, 2]}
        assert len(episodes[0].turns) == 1


def test_parts_of_a_composition_are_isolated_each_by_itself_and_those_of_llmgym_not_at_all() -> None:
    scorer = isolated(find_scorer(f"0.5*{FILE}:faults + 2*exact + 0*{FILE}:right")(), workers=2, timeout=TIMEOUT)
    assert isinstance(scorer, Weighted)
    assert type(scorer.scorers["exact"]) is FunctionScorer
    bad, good = asked(
        scorer,
        Episode(turns=[Turn("2 + 3?", "5")], task={"fault": "sleeps", "answer": "5"}),
        Episode(turns=[Turn("2 + 3?", "5")], task={"fault": None, "answer": "5"}),
    )
    assert bad.value is None
    assert dict(bad.parts) == {"exact": 1.0, f"{FILE}:right": 1.0}
    assert good.value == 2.5


def test_a_pair_that_cannot_be_compared_counts_for_nobody() -> None:
    scorer = isolated(find_scorer("longer-unless-bad")(), workers=2, timeout=TIMEOUT)
    one, two, bad = asked(scorer, episode("a"), episode("aaa"), episode(fault="crashes"))
    assert (one.value, two.value, bad.value) == (0.0, 1.0, None)
    assert bad.error is not None
    assert "longer-unless-bad did not answer: it ended its process with SIGSEGV" in bad.error


def test_scorers_with_options_and_classes_are_the_same_in_a_worker() -> None:
    episodes = [episode("one two"), episode("three")]
    for scorer in (faulty.Length(3.0), faulty.Length, f"{FILE}:Length"):
        here = find_scorer(scorer)()
        there = isolated(here, workers=1, timeout=TIMEOUT)
        assert asked(there, *episodes) == asked(here, *episodes)
        assert type(there) is not type(here)


async def waits(episode: Episode) -> float:
    return 1.0


def test_coroutines_and_what_llmgym_brings_stay_in_this_process() -> None:
    for scorer in (find_scorer("exact")(), FunctionScorer(waits), find_scorer("env:json_ok")()):
        assert isolated(scorer, workers=1, timeout=TIMEOUT) is scorer


def test_a_scorer_that_a_worker_cannot_make_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scorer_workers: .*lambda.* cannot be made in another process"):
        isolated(FunctionScorer(lambda episode: 1.0), workers=1, timeout=TIMEOUT)
    with pytest.raises(ConfigError, match=r"Closing cannot be made in another process.*got 'lock'"):
        isolated(faulty.Closing(), workers=1, timeout=TIMEOUT)
    for name, code, message in (
        ("exits", "import os\nos._exit(3)", "exit code 3"),
        ("raises", "raise KeyError('TOKEN')", "KeyError: 'TOKEN'"),
    ):
        file = tmp_path / f"{name}.py"
        file.write_text("def score(episode):\n    return 1.0\n")
        scorer = find_scorer(f"{file}:score")()
        file.write_text(code)
        with pytest.raises(ConfigError, match=f"Workers cannot be started: .*{message}"):
            isolated(scorer, workers=1, timeout=TIMEOUT)


def test_a_run_goes_on_with_scorers_that_fail_and_ends_where_all_do(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import os, time\n"
        "def some(episode):\n"
        "    print('garbage')\n"
        "    fault = sum(map(ord, episode.actions[0])) % 3\n"
        "    return [lambda: 1.0, lambda: os._exit(1), lambda: float('nan')][fault]()\n"
        "def none(episode):\n"
        "    return None\n"
    )
    options: dict[str, Any] = {
        "env": "AIOpsTriage", "steps": 2, "prompts_per_step": 4, "group_size": 4, "temperature": 1.5,
        "eval_episodes": 0, "output_dir": tmp_path, "scorer_workers": 2, "max_failure_rate": 1.0,
    }  # fmt: skip
    result = GRPO(scorer=f"{file}:some", **options).train()
    metrics = [json.loads(line) for line in (result.path / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2
    assert any(0 < step["scores_missing"] < 16 and step["reward"] == 1.0 for step in metrics)
    assert "garbage" in (tmp_path / "scorers.log").read_text()
    with pytest.raises(TrainingError, match=r"none returned None|none has to return .*\(seed \d+\)"):
        GRPO(scorer=f"{file}:none", **{**options, "steps": 3}).train()


def test_a_function_of_a_script_is_found_by_the_script_s_file(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from llmgym import Episode, FunctionScorer\n"
        "from llmgym.scorers import ask, isolated\n"
        "from llmgym.envs.waiting import settled\n"
        "from llmgym.types import Turn\n"
        "def mine(episode):\n"
        "    return 0.25\n"
        "if __name__ == '__main__':\n"
        "    scorer = isolated(FunctionScorer(mine), workers=1, timeout=5.0)\n"
        "    print(settled(ask(scorer, [Episode(turns=[Turn('a', 'b')])], [0]))[0].value)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "0.25", done.stderr


def test_pairwise_functions_made_in_python_are_compared_in_workers_too() -> None:
    scorer = isolated(PairwiseFunctionScorer(faulty.longer), workers=1, timeout=TIMEOUT)
    assert [score.value for score in asked(scorer, episode("a"), episode("aa"))] == [0.0, 1.0]
