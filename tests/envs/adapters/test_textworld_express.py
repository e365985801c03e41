"""TextWorldExpress's games as environments: its own ways to win do, and episodes do not disturb each other."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from episodes import episodes, episodes_elsewhere

import llmgym
from llmgym.errors import ConfigError, UnknownNameError
from llmgym.registry import make_env

pytest.importorskip("textworld_express", reason="textworld-express is not installed")
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java")


@contextlib.contextmanager
def made(name: str, **options: Any) -> Iterator[Any]:
    env = make_env(f"textworld_express:{name}", **options)
    yield env.unwrapped
    env.close()


@needs_java
@pytest.mark.parametrize("name", ["cookingworld", "sorting"])
def test_the_packages_own_way_wins_fifty_episodes(name: str) -> None:
    with made(name) as env:
        for seed in range(50):
            env.reset(seed=seed)
            *_, last = [env.step(reply) for reply in env.expert()]
            assert last[1:3] == (1.0, True)


@needs_java
def test_it_passes_the_checkers_and_the_games_with_random_ways_to_win_have_no_expert() -> None:
    for name in ["sorting", "coin"]:
        with made(name, render_mode="ansi") as env:
            llmgym.check_env(env, seeds=3)
            assert (type(env).expert is llmgym.TextEnv.expert) == (name == "coin")


@needs_java
def test_an_episode_is_the_same_in_another_process_in_another_order() -> None:
    name = "textworld_express:cookingworld"
    assert episodes(name, [0, 1, 2]) == episodes_elsewhere(name, [2, 1, 0], hash_seed=77)


@needs_java
def test_games_that_are_played_in_turn_do_not_disturb_each_other() -> None:
    with made("sorting") as one, made("sorting") as two:
        assert one.reset(seed=1) == two.reset(seed=1)
        for reply in one.expert():
            assert one.step(reply) == two.step(reply)


@needs_java
def test_no_command_raises() -> None:
    with made("cookingworld", max_turns=3) as env:
        for command in ["", "help", "x" * 10_000, "\x00", "\ud800", "1\n2", "quit"]:
            env.reset(seed=0)
            _, reward, terminated, truncated, _ = env.step(command)
            assert (reward, terminated, truncated) == (0.0, False, False)
        steps = [env.step("look around") for _ in range(2)]
        assert [step[3] for step in steps] == [False, True]


@needs_java
def test_the_last_line_of_a_reply_is_the_command_and_commands_are_listed_unless_told_not_to() -> None:
    with made("cookingworld") as env, made("cookingworld", commands=False) as bare:
        first, _ = env.reset(seed=0)
        assert "\n\nCommands: " in first
        assert env.step("I had better look.\n\nlook around")[0].startswith("You are in")
        assert bare.reset(seed=0)[0] == first.partition("\n\nCommands: ")[0]


@needs_java
def test_what_is_wrong_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'cookingworld'"):
        make_env("textworld_express:cookinworld")
    with pytest.raises(ConfigError, match="split: expected one of train, eval, test, got 'dev'"):
        make_env("textworld_express:coin", split="dev")


def test_it_says_that_java_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="needs Java"):
        make_env("textworld_express:coin")
