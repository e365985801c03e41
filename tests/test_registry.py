"""Names find environments, and a name that does not says which one is near."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import llmgym
from llmgym.agents import GRPO
from llmgym.envs.aiops import AIOpsTriage
from llmgym.errors import ConfigError, UnknownNameError
from llmgym.registry import make_env, takes_split


@pytest.mark.parametrize(
    "name", ["AIOpsTriage", "AIOpsTriage-v0", "llmgym/AIOpsTriage", "llmgym/AIOpsTriage-v0", "llmgym:AIOpsTriage"]
)
def test_short_names_stand_for_the_full_id(name: str) -> None:
    assert llmgym.resolve_env(name) == "llmgym/AIOpsTriage-v0"


@pytest.mark.parametrize("name", ["AIOpTriage", "llmgym/AIOpsTrage-v0", "AIOpsTriage-v7"])
def test_an_unknown_name_names_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean '.*AIOpsTriage"):
        llmgym.resolve_env(name)


@pytest.mark.parametrize("given", [llmgym.TextEnv, llmgym.TextEnv()])
def test_an_environment_that_is_given_itself_is_told_how_to_get_an_id(given: object) -> None:
    with pytest.raises(
        ConfigError, match=r"^env: expected the id of .*@llmgym.register_env\(.*, got <.*TextEnv"
    ) as error:
        GRPO(env=given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["dificulty", "split_"])
def test_an_argument_that_an_environment_does_not_know_is_refused_before_a_model_is_loaded(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"AIOpsTriage-v0 has no argument '{name}'. Did you mean '.*'\? Arguments: .*scorer"
    ):
        GRPO(env="AIOpsTriage", model="nowhere/at/all", env_kwargs={name: 2})


def test_arguments_of_an_environment_that_hands_on_whatever_it_gets_are_not_judged_by_their_names() -> None:
    def make(**options: object) -> llmgym.TextEnv:
        assert options == {"anything": 1}
        return llmgym.TextEnv()

    llmgym.register_entry_point("Open-test-v0", make)
    try:
        make_env("Open-test-v0", anything=1)
    finally:
        del gymnasium.registry["Open-test-v0"]


def test_a_subclass_that_hands_on_its_arguments_has_the_splits_of_its_base() -> None:
    class Stern(AIOpsTriage):
        def __init__(self, patience: int = 3, **options: Any) -> None:
            super().__init__(**options)

    llmgym.register_entry_point("Stern-test-v0", Stern)
    try:
        assert takes_split("Stern-test-v0")
    finally:
        del gymnasium.registry["Stern-test-v0"]


def test_a_missing_module_is_named() -> None:
    with pytest.raises(UnknownNameError, match="cannot import 'no_such_module'"):
        llmgym.resolve_env("no_such_module:Some-v0")


def test_a_module_before_the_colon_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import llmgym

@llmgym.register_env("Parrot-v0", word="hello")
@llmgym.register_env("Parrot-v1", word="bye")
class Parrot(llmgym.TextEnv):
    def __init__(self, word, **options):
        super().__init__(**options)
        self.word = word
    def begin(self):
        return f"Say {self.word}."
    def score(self, episode):
        return float(episode.actions[0] == self.word)
    def expert(self):
        yield self.word
"""
    (tmp_path / "parrots.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert llmgym.resolve_env("parrots:Parrot") == "Parrot-v1"
    assert llmgym.resolve_env("parrots:Parrot-v0") == "Parrot-v0"
    env = gymnasium.make("parrots:Parrot-v0", render_mode="ansi")
    llmgym.check_env(env)
    assert env.reset(seed=0)[0] == "Say hello."
    assert gymnasium.make_vec("Parrot-v1", num_envs=2).reset()[0] == ("Say bye.", "Say bye.")
    for name in ("Parrot-v0", "Parrot-v1"):
        gymnasium.registry.pop(name)
        llmgym.registry._IDS.remove(name)


def test_an_exact_id_wins_over_one_in_llmgyms_namespace() -> None:
    gymnasium.register("AIOpsTriage-v0", entry_point="llmgym.envs.aiops:AIOpsTriage")
    try:
        assert llmgym.resolve_env("AIOpsTriage-v0") == "AIOpsTriage-v0"
    finally:
        gymnasium.registry.pop("AIOpsTriage-v0")


@pytest.mark.parametrize("source", ["import no_such_thing", "def broken(:", "raise ValueError('not today')"])
def test_a_module_that_does_not_import_says_why(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for find in (llmgym.resolve_env, llmgym.scorers.resolve_scorer):
        with pytest.raises(UnknownNameError, match=r"cannot import 'broken_module' \(\w+: "):
            find("broken_module:Thing-v0")


def test_the_name_of_another_packages_environment_stands_for_an_id_that_keeps_its_name() -> None:
    assert llmgym.resolve_env("reasoning_gym:chain_sum") == "reasoning_gym/chain_sum-v0"
    assert gymnasium.spec("reasoning_gym/chain_sum-v0").kwargs == {"task": "chain_sum"}


def test_names_that_no_id_can_hold_get_ids_of_their_own() -> None:
    names = ["reasoning_gym:ws://here:1", "reasoning_gym:ws://here/1", "reasoning_gym:ws-here-1"]
    ids = [llmgym.resolve_env(name) for name in names]
    assert len(set(ids)) == len(names)
    assert [gymnasium.spec(one).kwargs["task"] for one in ids] == [name.partition(":")[2] for name in names]


def test_another_package_needs_a_name_after_its_colon() -> None:
    with pytest.raises(UnknownNameError, match="such as reasoning_gym:chain_sum"):
        llmgym.resolve_env("reasoning_gym:")


def test_the_nearest_package_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'reasoning_gym'"):
        llmgym.resolve_env("resoning_gym:chain_sum")
