"""`TextVectorEnv` does what Gymnasium's own vector environment does, in every autoreset mode and however it is made."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import llmgym
from llmgym import TextVectorEnv

MODES = list(AutoresetMode)
ODD = "é\n\ud800🙂" * 50_000
"""Longer than a pipe holds, and with a lone surrogate."""


class Dice(llmgym.TextEnv):
    """Throws dice until the agent stops or the fourth turn is over; tells what was thrown in parts."""

    max_turns = 4

    def begin(self) -> str:
        return f"{self.options.get('name', 'dice')} {self.np_random.integers(100)}"

    def respond(self, action: str) -> Any:
        thrown = int(self.np_random.integers(1, 7))
        if action == "stop":
            return None
        return llmgym.Outcome(f"{thrown} {action}", reward=float(thrown), parts={"even": float(thrown % 2 == 0)})

    def score(self, episode: llmgym.Episode) -> dict[str, float]:
        return {"turns": float(len(episode.turns))}


class PlainDice(gymnasium.Env[str, str]):
    """A Gymnasium environment of somebody who has never heard of `TextEnv`."""

    observation_space = action_space = llmgym.UnicodeText()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "begin", {"first": int(self.np_random.integers(9))}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        thrown = int(self.np_random.integers(1, 7))
        return f"{thrown} {action}", float(thrown), action == "stop", False, {"thrown": thrown} if thrown > 3 else {}


class Loud(gymnasium.Wrapper[str, str, str, str]):
    """Says everything in capitals."""

    def reset(self, **options: Any) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        return observation.upper(), info

    def step(self, action: str) -> Any:
        observation, *rest = self.env.step(action)
        return (observation.upper(), *rest)


@pytest.fixture(params=["register_env", "gymnasium.register", "llmgym/AIOpsTriage-v0"])
def env_id(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param.startswith("llmgym/"):
        yield request.param
        return
    name = "Dice-test-v0"
    if request.param == "register_env":
        llmgym.register_env(name)(Dice)
    else:
        gymnasium.register(name, entry_point=f"{__name__}:Dice")
    yield name
    del gymnasium.registry[name]
    if name in llmgym.registry._IDS:
        llmgym.registry._IDS.remove(name)


def same(one: Any, other: Any) -> None:
    """Compare what vector environments return: texts, arrays, and infos of arrays."""
    assert type(one) is type(other) or (isinstance(one, tuple) and isinstance(other, tuple))
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            same(*pair)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("kind", [Dice, PlainDice])
@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=25)
@given(
    replies=st.lists(st.tuples(*[st.sampled_from(["go", "", "stop"])] * 3), max_size=12),
    seed=st.integers(0, 1000) | st.tuples(*[st.integers(0, 9)] * 3).map(list),
)
def test_whatever_is_said_it_returns_what_gymnasiums_sync_vector_env_returns(
    kind: type, mode: AutoresetMode, replies: list[tuple[str, ...]], seed: Any
) -> None:
    ours, theirs = TextVectorEnv([kind] * 3, autoreset_mode=mode), SyncVectorEnv([kind] * 3, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"] == mode
    same(ours.reset(seed=seed, options={"name": "x"}), theirs.reset(seed=seed, options={"name": "x"}))
    for said in replies:
        one, other = ours.step(said), theirs.step(said)
        same(one, other)
        over = one[2] | one[3]
        if mode == AutoresetMode.DISABLED and over.any():
            same(*(envs.reset(options={"reset_mask": over, "name": "y"}) for envs in (ours, theirs)))


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.SAME_STEP])
def test_an_episode_that_is_over_is_not_stepped_on(mode: AutoresetMode) -> None:
    envs = TextVectorEnv([PlainDice] * 2, mode)
    envs.reset(seed=0)
    envs.step_some({1: "stop"})
    with pytest.raises(ResetNeeded, match="environment 1 is over"):
        envs.step(["go", "go"])
    seen, _ = envs.reset(options={"reset_mask": np.array([False, True])})
    assert seen[1] == "begin"
    envs.step(["go", "go"])


@pytest.mark.parametrize("mask", [[True, False], np.ones(2), np.ones(3, dtype=bool), np.zeros(2, dtype=bool), None])
def test_a_mask_that_chooses_no_environments_is_refused(mask: Any) -> None:
    with pytest.raises(ValueError, match="reset_mask"):
        TextVectorEnv([Dice] * 2).reset(options={"reset_mask": mask})


@pytest.mark.parametrize("mode", [None, "sync", "async"])
@pytest.mark.parametrize("autoreset", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_make_vec_takes_wrappers_and_an_autoreset_mode(env_id: str, mode: str | None, autoreset: AutoresetMode) -> None:
    envs = gymnasium.make_vec(
        env_id, num_envs=2, vectorization_mode=mode, wrappers=[Loud], vector_kwargs={"autoreset_mode": autoreset}
    )
    assert envs.metadata["autoreset_mode"] == autoreset
    single = Loud(gymnasium.make(env_id))
    assert envs.reset(seed=3)[0] == tuple(single.reset(seed=3 + i)[0] for i in range(2))
    assert envs.step(["a", "b"])[0][1] == single.step("b")[0]
    envs.close()


def test_the_spec_of_a_vector_environment_makes_it_again() -> None:
    disabled = {"autoreset_mode": AutoresetMode.DISABLED}
    envs = gymnasium.make_vec("llmgym/AIOpsTriage-v0", num_envs=3, wrappers=[Loud], vector_kwargs=disabled)
    again = gymnasium.make_vec(envs.spec)
    assert isinstance(again, TextVectorEnv)
    assert (again.num_envs, again.autoreset_mode) == (3, AutoresetMode.DISABLED)
    same(again.reset(seed=0), envs.reset(seed=0))


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_processes_share_texts_of_any_length(context: str, copies: bool) -> None:
    envs = AsyncVectorEnv([PlainDice] * 2, context=context, copy=copies, autoreset_mode=AutoresetMode.SAME_STEP)
    first, _ = envs.reset(seed=0)
    assert tuple(first) == ("begin", "begin")
    seen = envs.step([ODD, "short"])[0]
    assert [text[2:] for text in seen] == [ODD, "short"]
    assert tuple(first) == (("begin", "begin") if copies else tuple(seen))
    envs.close()


def test_a_registration_is_written_as_json_and_read_again(env_id: str) -> None:
    spec = gymnasium.spec(env_id)
    read = EnvSpec.from_json(spec.to_json())
    assert read == spec
    assert gymnasium.make(read).reset(seed=1) == gymnasium.make(env_id).reset(seed=1)
    made = gymnasium.make(env_id).spec
    assert made is not None
    assert EnvSpec.from_json(made.to_json()) == made
    assert gymnasium.make_vec(read, num_envs=2).reset(seed=1)[0] == gymnasium.make_vec(env_id, 2).reset(seed=1)[0]


AWAY = """
import llmgym
for level in range(3):
    @llmgym.register_env(f"Away-v{level}", word="hi")
    class Away(llmgym.TextEnv):
        number = level
        def __init__(self, word, **options):
            super().__init__(**options)
            self.word = word
        def begin(self):
            return f"{self.word} {self.number}"
"""


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_registration_makes_its_environment_in_a_process_that_has_not_imported_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "away.py").write_text(AWAY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    for level in range(3):  # of three classes of one name
        json = run(f"import away, gymnasium; print(gymnasium.spec('Away-v{level}').to_json())")
        read = (
            "import sys, gymnasium; from gymnasium.envs.registration import EnvSpec\n"
            "spec = EnvSpec.from_json(sys.argv[1]); print(gymnasium.make(spec).reset()[0], gymnasium.make_vec(spec, 2))"
        )
        assert run(read, json) == f"hi {level} TextVectorEnv(Away-v{level}, num_envs=2)\n"


def test_what_no_other_process_can_import_is_made_there_all_the_same() -> None:
    @llmgym.register_env("Local-test-v0")
    class Local(Dice):
        pass

    envs = gymnasium.make_vec("Local-test-v0", 2, "async", vector_kwargs={"context": "spawn"})
    assert envs.reset(seed=0)[0] == gymnasium.make_vec("Local-test-v0", 2).reset(seed=0)[0]
    envs.close()
    del gymnasium.registry["Local-test-v0"]
    llmgym.registry._IDS.remove("Local-test-v0")


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda env: pickle.loads(pickle.dumps(env)),
        lambda env: cloudpickle.loads(cloudpickle.dumps(env)),
    ],
    ids=["deepcopy", "pickle", "cloudpickle"],
)
def test_a_copy_goes_on_as_the_original_does(env_id: str, copied: Any, turns: int) -> None:
    env = gymnasium.make(env_id)
    env.reset(seed=4)
    for _ in range(turns):
        env.step("[M1]")
    other = copied(env)
    assert env.step("a") == other.step("a")
    for _ in range(2):  # episodes, which draw other tasks each
        assert env.reset() == other.reset()
        assert env.step("a") == other.step("a")
