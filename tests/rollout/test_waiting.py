"""Environments that wait do so at the same time, and no result depends on which is first."""

import asyncio
import hashlib
import random
import threading
import time
from typing import Any

import pytest
import torch
from conftest import random_model
from fake_server import KEY, FakeServer
from transformers import PreTrainedTokenizerFast

import llmgym
from llmgym.config.sections import Sampling
from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.scripted import ScriptedEngine
from llmgym.engines.served.engine import ServedEngine
from llmgym.engines.served.server import Server
from llmgym.engines.sglang.dialect import SGLang
from llmgym.envs.vector import TextVectorEnv
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory

WAIT = 0.2


class Patient(llmgym.TextEnv):
    """Four turns; what it says depends on what it is told."""

    max_turns = 4
    wait = 0.0

    def begin(self) -> str:
        self.told = str(self.np_random.integers(1000))
        return self.told

    def answer(self, action: str) -> str | None:
        self.told = hashlib.sha256((self.told + action).encode()).hexdigest()[:6]
        return self.told if len(self.episode.turns) < 4 else None

    def respond(self, action: str) -> Any:
        return self.answer(action)

    def score(self, episode: llmgym.Episode) -> Any:
        return float(sum(map(len, episode.actions)))


class Awaiting(Patient):
    async def respond(self, action: str) -> str | None:
        await asyncio.sleep(self.wait)
        return self.answer(action)

    async def score(self, episode: llmgym.Episode) -> float:
        await asyncio.sleep(0)
        return float(sum(map(len, episode.actions)))


class Blocking(Patient):
    blocking = True

    def respond(self, action: str) -> str | None:
        time.sleep(self.wait)
        return self.answer(action)


class Moody(Awaiting):
    """Waits for as long as nobody can foresee."""

    async def respond(self, action: str) -> str | None:
        await asyncio.sleep(random.random() * 0.01)  # no secret
        return self.answer(action)


def played(kind: type[Patient], engine: Any, codec: ChatCodec, count: int, in_flight: int) -> list[Trajectory]:
    collector = Collector(TextVectorEnv([kind] * in_flight), codec, engine)
    return collector.collect([Task(seed, seed) for seed in range(count)], Sampling(max_tokens=6), seed=5)


def scripted(tokenizer: PreTrainedTokenizerFast) -> ScriptedEngine:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return ScriptedEngine(lambda request: [*tokenizer("ok")["input_ids"], end])


@pytest.mark.parametrize("kind", [Awaiting, Blocking])
def test_environments_that_wait_do_so_at_the_same_time(
    kind: type[Patient], tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "wait", WAIT)
    begun = time.monotonic()
    trajectories = played(kind, scripted(tokenizer), ChatCodec(tokenizer), 64, 64)
    seconds = time.monotonic() - begun
    assert all(len(one.replies) == 4 and one.ending == "terminated" for one in trajectories)
    assert 4 * WAIT <= seconds < 64 * WAIT  # one after another it would be 51 s


@pytest.mark.parametrize("kind", [Moody, Blocking])
def test_an_environment_that_waits_goes_on_while_a_server_has_not_answered(
    kind: type[Patient], tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "wait", 0.02)
    fake = FakeServer()
    engine = ServedEngine([Server(SGLang(), fake.url, KEY)])
    fake.hold, fake.keeps_holding = 8, True  # a server that answers nobody before all have asked
    late = threading.Timer(20.0, lambda: fake.loop.call_soon_threadsafe(fake.give_up))
    late.start()
    try:
        trajectories = played(kind, engine, ChatCodec(tokenizer), 8, 8)
        assert not fake.gave_up
        assert all(len(one.replies) == 4 and one.ending == "terminated" for one in trajectories)
        assert fake.calls.count("/generate") == 4 * 8
        begun = time.process_time()
        fake.hold = 9  # one more than will ask
        threading.Timer(1.0, lambda: fake.loop.call_soon_threadsafe(fake.give_up)).start()
        played(kind, engine, ChatCodec(tokenizer), 8, 8)
        assert time.process_time() - begun < 0.8  # whoever waits does not spin
    finally:
        late.cancel()
        engine.close()
        fake.close()


def test_in_which_order_they_come_back_changes_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    codec, model = ChatCodec(tokenizer), random_model("qwen2", vocab_size=len(tokenizer))
    expected = played(Patient, LocalEngine(model), codec, 16, 16)
    for kind, in_flight in ((Moody, 1), (Moody, 8), (Moody, 16), (Blocking, 8), (Awaiting, 16)):
        found = played(kind, LocalEngine(model), codec, 16, in_flight)
        for one, other in zip(expected, found, strict=True):
            assert (one.tokens, one.mask, one.score) == (other.tokens, other.mask, other.score)
            assert one.messages == other.messages
            torch.testing.assert_close(torch.tensor(one.log_probs), torch.tensor(other.log_probs), atol=1e-4, rtol=0)


def test_an_environment_that_fails_while_others_wait_ends_the_rollout(tokenizer: PreTrainedTokenizerFast) -> None:
    class Failing(Awaiting):
        async def respond(self, action: str) -> str | None:
            await asyncio.sleep(0.01)
            if self.told == self.episode.turns[0].observation and int(self.told) % 2:
                raise RuntimeError("the tool is gone")
            return self.answer(action)

    engine = scripted(tokenizer)
    with pytest.raises(RuntimeError, match="the tool is gone"):
        played(Failing, engine, ChatCodec(tokenizer), 16, 8)
    assert engine.wait() == []  # nothing is left of it
    assert len(played(Patient, engine, ChatCodec(tokenizer), 4, 4)) == 4


def test_a_coroutine_serves_gymnasium_alone_and_where_a_loop_runs_already() -> None:
    def steps() -> Any:
        env = Awaiting()
        env.reset(seed=3)
        found = [env.step(f"reply {turn}") for turn in range(4)]
        return [(observation, reward, terminated) for observation, reward, terminated, *_ in found]

    async def inside() -> Any:
        return steps()

    plain = Patient()
    plain.reset(seed=3)
    expected = [plain.step(f"reply {turn}")[:3] for turn in range(4)]
    assert steps() == expected
    assert asyncio.run(inside()) == expected  # as in a notebook


def test_a_rollout_runs_where_a_loop_runs_already(tokenizer: PreTrainedTokenizerFast) -> None:
    async def inside() -> list[Trajectory]:
        return played(Awaiting, scripted(tokenizer), ChatCodec(tokenizer), 4, 2)

    assert [one.ending for one in asyncio.run(inside())] == ["terminated"] * 4
