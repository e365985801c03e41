"""`UnicodeText` holds every string."""

import functools
import pickle
from typing import Any

import pytest
from gymnasium.spaces import Text
from gymnasium.vector.utils import batch_space
from tensordict import NonTensorStack, TensorDictBase
from torchrl.envs import GymEnv, GymWrapper, ParallelEnv, SerialEnv, check_env_specs

import llmgym
from llmgym import UnicodeText


def test_every_string_belongs_and_nothing_else() -> None:
    space = UnicodeText()
    assert all(text in space for text in ("", "\n", "é", "日志", "🙂", "\x00", "\ud800", "a" * 10**6))
    assert all(other not in space for other in (None, 1, b"x", ["x"]))


def test_samples_belong_and_follow_the_seed() -> None:
    one, other = UnicodeText(seed=3), UnicodeText(seed=3)
    samples = [one.sample() for _ in range(20)]
    assert samples == [other.sample() for _ in range(20)]
    assert len(set(samples)) > 10
    assert all(sample in one for sample in samples)


def test_it_equals_itself_pickled_and_batches_to_a_tuple() -> None:
    assert pickle.loads(pickle.dumps(UnicodeText())) == UnicodeText()
    assert ("a", "b\n") in batch_space(UnicodeText(), 2)


def test_whoever_knows_gymnasiums_texts_knows_it() -> None:
    assert isinstance(UnicodeText(), Text)
    assert Text(10) != UnicodeText()
    assert not UnicodeText().is_np_flattenable


def reply(seen: TensorDictBase) -> TensorDictBase:
    """Cite a metric, whatever is asked, in every environment of a batch."""
    return seen.set("action", NonTensorStack(*["[M1]"] * len(seen)) if seen.batch_size else "[M1]")


def test_torchrl_steps_text_environments() -> None:
    for env in (GymEnv("llmgym/AIOpsTriage-v0"), GymWrapper(llmgym.envs.aiops.AIOpsTriage())):
        check_env_specs(env)
        env.set_seed(0)
        played = env.rollout(5, reply)
        assert played["action"] == ["[M1]", "[M1]"]
        assert played["next", "terminated"].flatten().tolist() == [False, True]
        assert played["observation"][0].startswith("Round 1.")
        assert played["next", "observation"][0] == played["observation"][1]


@pytest.mark.parametrize("kind", [SerialEnv, functools.partial(ParallelEnv, use_buffers=False, mp_start_method="fork")])
def test_torchrl_steps_several_side_by_side(kind: Any) -> None:
    envs = kind(2, functools.partial(GymEnv, "llmgym/AIOpsTriage-v0"))
    played = envs.rollout(2, reply)
    assert [len(episode) for episode in played["observation"]] == [2, 2]
    assert played["next", "terminated"].flatten().tolist() == [False, True] * 2
    envs.close()
