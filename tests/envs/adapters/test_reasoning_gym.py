"""Reasoning Gym's data sets as environments: its own answers earn all there is, and its scorers run no code."""

import time
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from episodes import episodes, episodes_elsewhere

import llmgym
from llmgym.errors import ConfigError, UnknownNameError
from llmgym.registry import make_env

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

from llmgym.envs.adapters.reasoning_gym.data_sets import APART, REFUSED, WITHOUT_ORACLE, _factory

NAMES = sorted(set(_factory.DATASETS) - set(REFUSED))
SLOW = {"arc_agi", "figlet_font", "futoshiki", "intermediate_integration", "knight_swap", "sudoku", "zebra_puzzles"}
JUNK = ["", "abc", "nan", "9" * 5000, "1e999999999", "9**9**9**9", "[[1, 2", "{}", "null", "\x00", "<answer>" * 9999]


def make(name: str, **config: Any) -> Any:
    return make_env(f"reasoning_gym:{name}", **config).unwrapped


def reward(env: Any, seed: int, reply: str | None = None) -> float:
    env.reset(seed=seed)
    _, earned, terminated, _, info = env.step(next(env.expert()) if reply is None else reply)
    assert terminated
    assert "score_missing" not in info, env.scored.error
    return float(earned)


@pytest.mark.parametrize("name", ["chain_sum", "countdown", "graph_color", "n_queens", "polynomial_multiplication"])
def test_the_packages_own_answer_earns_the_top_score_in_fifty_episodes(name: str) -> None:
    env = make(name)
    assert [reward(env, seed) for seed in range(50)] == [1.0] * 50


@pytest.mark.parametrize("name", sorted(set(NAMES) - SLOW - WITHOUT_ORACLE))
def test_the_packages_own_answer_earns_the_top_score_in_every_data_set(name: str) -> None:
    env = make(name)
    assert [reward(env, seed) for seed in range(2)] == [1.0] * 2


@pytest.mark.parametrize("name", sorted(set(NAMES) - SLOW))
def test_no_reply_raises_or_takes_long_or_spoils_the_next_episode(name: str) -> None:
    env = make(name)
    env.reset(seed=1)
    began = time.perf_counter()
    earned = [reward(env, 1, reply) for reply in JUNK]
    assert earned.count(1.0) <= 1  # by luck
    assert time.perf_counter() - began < 5.0
    if name not in WITHOUT_ORACLE:
        assert reward(env, 1) == 1.0


@pytest.mark.parametrize("name", ["chain_sum", "isomorphic_strings", "word_ladder", "gsm_symbolic", "list_functions"])
def test_an_episode_is_the_same_in_another_process_with_another_order_of_sets_and_another_global_seed(
    name: str,
) -> None:
    name = f"reasoning_gym:{name}"
    assert episodes(name, [0, 1, 2]) == episodes_elsewhere(name, [2, 1, 0], hash_seed=77)


def test_tasks_of_neighbouring_seeds_differ() -> None:
    env = make("chain_sum")
    assert len({env.reset(seed=seed)[0] for seed in range(200)}) == 200


@pytest.mark.parametrize("name", ["chain_sum", "binary_matrix", "word_ladder", "boxnet", "pool_matrix"])
def test_it_passes_the_checkers(name: str) -> None:
    llmgym.check_env(make_env(f"reasoning_gym:{name}", render_mode="ansi"), seeds=3)


@pytest.mark.parametrize("name", ["string_insertion", "spiral_matrix", "binary_matrix", "n_queens"])
def test_a_reply_is_not_run_as_code(name: str, tmp_path: Path) -> None:
    attack = f"open({str(tmp_path / 'pwned')!r}, 'w')"
    assert reward(make(name), 0, attack) == 0.0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["countdown", "puzzle24", "simple_integration", "polynomial_multiplication"])
def test_nor_through_sympy(name: str, tmp_path: Path) -> None:
    reward(make(name), 0, f"open({str(tmp_path / 'pwned')!r}, 'w')")
    assert not list(tmp_path.iterdir())


def test_an_answer_that_the_scorer_cannot_read_earns_what_no_answer_does_and_says_so() -> None:
    env = make("prime_factorization")
    assert reward(env, 0, "abc") == 0.0
    assert env.scored.parts == {"unreadable": 1.0}
    reward(env, 0)
    assert env.scored.parts == {"unreadable": 0.0}


def test_an_answer_that_takes_too_long_to_check_has_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("simple_integration")
    env.reset(seed=0)
    monkeypatch.setattr("llmgym.envs.adapters.reasoning_gym.environment._SCORING", 0.0)
    *_, info = env.step("(x+y+1)**30")
    assert info == {"score_missing": 1.0}
    assert "took longer than" in env.scored.error


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_says_why(name: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[name]):
        make(name)


def test_the_data_sets_own_arguments_are_arguments() -> None:
    env = make("chain_sum", min_terms=6, max_terms=6)
    assert all(env.reset(seed=seed)[0].count("+") + env.reset(seed=seed)[0].count("-") >= 5 for seed in range(5))
    assert env.question.oracle is not None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"min_term": 3}, "Did you mean 'min_terms'"),
        ({"min_terms": 300}, "max_terms must be >= min_terms"),
        ({"seed": 3}, "the seed of an episode decides"),
    ],
)
def test_wrong_arguments_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("chain_sum", **config)


def test_an_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'chain_sum'"):
        make("chainsum")


def test_it_is_made_by_gymnasium_too() -> None:
    one = gymnasium.make("llmgym/ReasoningGym-v0", task="chain_sum")
    many = gymnasium.make_vec("llmgym/ReasoningGym-v0", num_envs=2, task="chain_sum")
    assert many.reset(seed=3)[0][0] == one.reset(seed=3)[0]


def test_those_whose_questions_depend_on_the_order_of_sets_are_apart() -> None:
    assert {"isomorphic_strings", "polynomial_multiplication", "ransom_note", "knight_swap", "word_ladder"} <= APART
