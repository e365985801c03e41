"""Reward functions written for verl and TRL are called as these libraries call them."""

import asyncio
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmgym.errors import ConfigError, DataError, UnknownNameError
from llmgym.scorers import AnyScorer, ask, register_scorer, resolve_scorer
from llmgym.scorers.asking import asked_per, is_waiting
from llmgym.scorers.names import _SCORERS
from llmgym.types import Episode, Message, Score, Turn

VERL = {
    "data_source": "openai/gsm8k",
    "prompt": [{"role": "user", "content": "2 + 3?"}],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "5"},
    "extra_info": {"split": "train", "index": 7},
    "answer": "5",
}


def asked(scorer: Any, *episodes: Episode) -> list[Score]:
    found: AnyScorer = resolve_scorer(scorer)
    scores = ask(found, episodes, range(len(episodes)))

    async def wait() -> list[Score]:
        return await scores  # type: ignore[misc]

    return scores if isinstance(scores, list) else asyncio.run(wait())


def episode(reply: str, task: Any, *, system: str | None = None) -> Episode:
    return Episode(system, [Turn("2 + 3?", reply)], task)


# verl.


def test_a_function_of_verl_gets_what_verl_gives_it_by_keyword() -> None:
    calls = []

    def compute_score(
        data_source: Any, solution_str: Any, ground_truth: Any, extra_info: Any = None, **rest: Any
    ) -> float:
        calls.append((data_source, solution_str, ground_truth, extra_info, rest))
        return float(solution_str == ground_truth)

    assert [one.value for one in asked(compute_score, episode("5", VERL), episode("6", VERL))] == [1.0, 0.0]
    extra = {"split": "train", "index": 7, "num_turns": 2, "rollout_reward_scores": {}}
    assert calls == [("openai/gsm8k", reply, "5", extra, {}) for reply in ("5", "6")]


def test_a_solution_is_the_whole_response() -> None:
    said = [Turn("2 + 3?", "a call"), Turn("disk: 40 %", "5", (Message("tool", "disk: 40 %"),))]
    (one,) = asked(lambda solution_str: float(solution_str == "a call\ndisk: 40 %\n5"), Episode(None, said, VERL))
    assert one.value == 1.0


def test_of_a_mapping_only_score_is_the_reward_and_its_other_numbers_are_parts() -> None:
    def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> dict[str, Any]:
        return {"score": -1.0, "acc": False, "length": 3, "pred": "6"}

    (one,) = asked(compute_score, episode("6", VERL))
    assert (one.value, one.parts) == (-1.0, {"acc": 0.0, "length": 3.0})


def test_a_coroutine_of_verl_is_waited_for() -> None:
    async def compute_score(solution_str: str, ground_truth: str, **rest: Any) -> float:
        await asyncio.sleep(0)
        return float(solution_str == ground_truth)

    assert is_waiting(resolve_scorer(compute_score))
    assert [one.value for one in asked(compute_score, episode("5", VERL), episode("6", VERL))] == [1.0, 0.0]


def test_a_row_in_other_columns_gives_verls_function_its_answer() -> None:
    def compute_score(data_source: Any, solution_str: str, ground_truth: Any, extra_info: Any) -> float:
        assert data_source is None
        return float(solution_str == ground_truth)

    assert asked(compute_score, episode("5", {"prompt": "2 + 3?", "answer": "5"}))[0].value == 1.0


def test_none_of_verls_function_is_a_missing_score_and_so_is_an_error() -> None:
    (none,) = asked(lambda solution_str: None, episode("5", VERL))
    assert (none.value, none.error) == (None, "<lambda> returned None")

    def compute_score(solution_str: str, **rest: Any) -> float:
        raise ValueError("signal only works in main thread")

    (failed,) = asked(compute_score, episode("5", VERL))
    assert failed.value is None
    assert "compute_score raised ValueError: signal only works" in str(failed.error)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"reward": 1.0}, "a mapping with 'score', got the keys reward"),
        ("1", "a finite number"),
        (math.nan, "a finite"),
    ],
)
def test_what_is_no_score_is_missing_and_said(value: Any, message: str) -> None:
    (missing,) = asked(lambda solution_str: value, episode("5", VERL))
    assert missing.value is None
    assert message in str(missing.error)


# TRL.

PLAIN = {"prompt": "2 + 3?", "solution": "5", "level": 1}
CHAT = {"prompt": [{"role": "user", "content": "2 + 3?"}], "solution": "5", "level": 1}


def test_a_function_of_trl_gets_the_whole_batch_in_texts_where_prompts_are_texts() -> None:
    calls = []

    def reward(prompts: Any, completions: Any, solution: Any, **rest: Any) -> list[float]:
        calls.append((prompts, completions, solution, set(rest), rest["level"]))
        return [float(said == right) for said, right in zip(completions, solution, strict=True)]

    assert asked_per(resolve_scorer(reward)) == "rollout"
    assert [one.value for one in asked(reward, episode("5", PLAIN), episode("6", PLAIN))] == [1.0, 0.0]
    assert calls == [(["2 + 3?"] * 2, ["5", "6"], ["5", "5"], {"level", "log_extra", "log_metric"}, [1, 1])]


def test_it_gets_messages_where_prompts_are_messages() -> None:
    calls = []

    def reward(completions: Any, prompts: Any, **rest: Any) -> list[float]:
        calls.append((prompts, completions))
        return [0.0]

    turns = [Turn("2 + 3?", "a call"), Turn("disk: 40 %", "5", (Message("tool", "disk: 40 %", "metrics"),))]
    asked(reward, Episode("Be brief.", turns, CHAT))
    assert calls == [
        (
            [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3?"}]],
            [
                [
                    {"role": "assistant", "content": "a call"},
                    {"role": "tool", "content": "disk: 40 %", "name": "metrics"},
                    {"role": "assistant", "content": "5"},
                ]
            ],
        )
    ]


def test_none_and_nan_are_missing_scores() -> None:
    def reward(prompts: Any, completions: Any, **rest: Any) -> list[float | None]:
        return [None, 0.5, math.nan]

    found = asked(reward, *(episode("5", PLAIN) for _ in range(3)))
    assert [one.value for one in found] == [None, 0.5, None]
    assert found[0].error == "reward returned None"


def test_a_coroutine_of_trl_is_waited_for() -> None:
    async def reward(completions: Sequence[str], **rest: Any) -> list[float]:
        await asyncio.sleep(0)
        return [float(len(text)) for text in completions]

    assert [one.value for one in asked(reward, episode("5", PLAIN), episode("", PLAIN))] == [1.0, 0.0]


def test_what_it_logs_becomes_parts() -> None:
    def reward(completions: Any, log_extra: Any, log_metric: Any, **rest: Any) -> list[float]:
        log_metric("accuracy", 0.5)
        log_extra("length", [len(text) for text in completions])
        log_extra("said", completions)
        return [1.0, 0.0]

    found = asked(reward, episode("5", PLAIN), episode("abc", PLAIN))
    assert [one.parts for one in found] == [{"accuracy": 0.5, "length": 1.0}, {"accuracy": 0.5, "length": 3.0}]


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0, 3.0], 1.0, None, {"a": 1.0, "b": 2.0}])
def test_another_number_of_rewards_than_completions_is_missing_and_said(values: Any) -> None:
    missing = asked(lambda completions: values, episode("5", PLAIN), episode("5", PLAIN))
    assert [one.value for one in missing] == [None, None]
    assert all("a list of 2, one for each" in str(one.error) for one in missing)


def test_one_reward_that_is_none_costs_its_own_episode() -> None:
    first, second = asked(lambda completions: ["x", 1.0], episode("5", PLAIN), episode("5", PLAIN))
    assert (first.value, second.value) == (None, 1.0)


def test_rows_with_different_columns_are_refused() -> None:
    with pytest.raises(DataError, match="some rows lack 'level'"):
        asked(
            lambda completions, **rest: [0.0, 0.0], episode("5", PLAIN), episode("5", {"prompt": "a", "solution": "b"})
        )


@pytest.mark.parametrize("name", ["completion_ids", "trainer_state"])
def test_a_function_that_asks_for_what_a_scorer_does_not_see_is_refused(name: str) -> None:
    function = {
        "completion_ids": lambda completions, completion_ids: [0.0],
        "trainer_state": lambda completions, trainer_state: [0.0],
    }[name]
    with pytest.raises(ConfigError, match=f"asks for {name}; a scorer sees text and columns alone"):
        resolve_scorer(function)


# How they are found.

SOURCE = """
from helper import TRUTH

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str == TRUTH)

def batch(prompts, completions, **kwargs):
    return [float(text == TRUTH) for text in completions]

def plain(episode):
    return float(episode.actions[-1] == TRUTH)

class Judge:
    def score(self, episodes):
        return [plain(episode) for episode in episodes]

TABLE = {"no": "function"}
"""


@pytest.mark.parametrize("name", ["compute_score", "batch", "plain", "Judge"])
def test_a_function_is_found_by_its_file_and_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))  # which is taken away again
    (tmp_path / "helper.py").write_text("TRUTH = '5'")
    (tmp_path / "reward.py").write_text(SOURCE)
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    found = asked(f"{tmp_path}/reward.py:{name}", episode("5", PLAIN), episode("6", PLAIN))
    assert [one.value for one in found] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere.py:f", "cannot import .*no such file"),
        ("broken.py:f", "cannot import .*SyntaxError"),
        ("fine.py:missing", "fine.py' has no scorer 'missing'"),
        ("fine.py:table", "fine.py' has no scorer 'table'"),
    ],
)
def test_a_file_that_has_no_such_scorer_says_so(place: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def f(:")
    (tmp_path / "fine.py").write_text("table = {}")
    with pytest.raises(UnknownNameError, match=message):
        resolve_scorer(f"{tmp_path}/{place}")


def test_a_function_of_several_arguments_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected a function of one episode, verl's .*, got <lambda>\(a, b\)"):
        resolve_scorer(lambda a, b: 0.0)


def test_a_reward_function_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmgym.scorers.names._SCORERS", dict(_SCORERS))
    register_scorer("mine")(lambda solution_str, ground_truth: float(solution_str == ground_truth))
    assert asked("mine", episode("5", VERL))[0].value == 1.0
