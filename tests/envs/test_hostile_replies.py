"""10,000 hostile replies to all built-in environments and scorers: no exception, and nothing that is not deserved."""

import functools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_texts import TEXTS
from playing import make, told

from llmgym import Episode, registered_envs
from llmgym.envs.waiting import settled
from llmgym.scorers import ask, find_scorer, registered_scorers
from llmgym.types import Turn

ENVS = [
    name.removeprefix("llmgym/").removesuffix("-v0")
    for name in registered_envs()
    if name.startswith("llmgym/") and name != "llmgym/qa-v0"
]
EPISODES = {"Code": 40, "SQL": 150}  # which take longer, for they run what they are given
SCORERS = [name for name in registered_scorers() if "-" not in name and name != "env"]  # those of the package
SCORERS += ["number:0.01", r"regex:\d+$", "json_schema:FILE", "length:100", "language:de", "language:zh"]
SCORED = {"code": 60, "math": 100}
SEEDS = 20

BOUND = settings(suppress_health_check=list(HealthCheck), database=None, derandomize=True)


@functools.cache
def earned_by_the_expert(name: str, seed: int, calculator: bool) -> float:
    return told(environment(name, calculator), seed, "expert")[0]


@functools.cache
def environment(name: str, calculator: bool) -> Any:
    return make(name, **({"calculator": True} if calculator else {}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "calculator"), [(name, False) for name in ENVS] + [("Countdown", True), ("Sums", True)]
)
def test_no_hostile_reply_breaks_an_environment_or_earns_more_than_its_expert(name: str, calculator: bool) -> None:
    @settings(BOUND, max_examples=EPISODES.get(name, 250))
    @given(st.integers(0, SEEDS - 1), st.lists(TEXTS, min_size=1, max_size=6))
    def play(seed: int, replies: list[str]) -> None:
        env = environment(name, calculator)
        env.reset(seed=seed)
        total, over, turn = 0.0, False, 0
        while not over:
            _, reward, terminated, truncated, info = env.step(replies[turn % len(replies)])
            assert math.isfinite(reward)
            assert all(math.isfinite(part) for part in info.values())
            total, over, turn = total + reward, terminated or truncated, turn + 1
        assert total <= earned_by_the_expert(name, seed, calculator) + 1e-6

    play()


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVS)
def test_ten_megabytes_are_a_reply_like_any_other(name: str) -> None:
    env = environment(name, False)
    for reply in ("9" * 10**7, "[a, " * (10**7 // 4)):
        env.reset(seed=0)
        _, reward, _, _, _ = env.step(reply)
        assert math.isfinite(reward)
        assert reward <= earned_by_the_expert(name, 0, False) + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORERS)
def test_no_hostile_reply_breaks_a_scorer(name: str, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"a": {"type": "integer"}}}')
    scorer = find_scorer(name.replace("FILE", str(schema)))()

    @settings(BOUND, max_examples=SCORED.get(name, 250))
    @given(TEXTS, st.sampled_from(["5", "Bonn", "1/2", "x = 3", "[1, 2]", "\\frac{1}{2}"]) | TEXTS)
    def judge(reply: str, answer: str) -> None:
        task = {"answer": answer, "tests": "assert solve(1) == 2"}
        (score,) = settled(ask(scorer, [Episode(turns=[Turn("2 + 3? [T1] [S2]", reply)], task=task)], [0]))
        assert "raised" not in str(score.error), score.error
        if score.value is None:
            assert score.error
        else:
            assert 0.0 <= score.value <= 1.0

    judge()
