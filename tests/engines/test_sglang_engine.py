"""The real SGLang behind the engine protocol, on a CPU: `make test-sglang` installs and runs it (tests/sglang_cpu)."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import random_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

pytest.importorskip("sglang", reason="SGLang is not installed here: make test-sglang")
pytest.importorskip("sgl_kernel", reason="SGLang has no kernels here: make test-sglang")

from cpu_options import CPU

from llmgym.agents.grpo import main
from llmgym.config.sections import Sampling
from llmgym.data.trajectories import read_trajectories
from llmgym.engines.base import Completion, GenerationRequest, complete
from llmgym.engines.served.engine import ServedEngine
from llmgym.engines.served.server import OwnServer
from llmgym.engines.served.worker import Worker
from llmgym.engines.sglang.dialect import SGLang
from llmgym.engines.sglang.in_process import InProcess
from llmgym.errors import EngineError
from llmgym.learn.policy import Policy
from llmgym.learn.reference import log_probs_of
from llmgym.train.canary import Canary

pytestmark = pytest.mark.slow

STOP = 2


class Setup:
    """A running engine, the learner's model, and what they exchanged.

    Attributes:
        before_answer: Called with the worker before every request that it is sent.
        replies: What SGLang itself answered, request by request.
        messages: What was said of losses.
    """

    def __init__(self, worker: Worker, model: PreTrainedModel) -> None:
        self.worker, self.model = worker, model
        self._start = [parameter.detach().clone() for parameter in model.parameters()]
        self.replies: list[Mapping[str, Any]] = []
        self.messages: list[str] = []
        self.before_answer: Callable[[], None] = lambda: None
        answer = worker.answer

        async def record(rid: str, payload: Mapping[str, Any]) -> dict[str, Any]:
            self.before_answer()
            reply = await answer(rid, payload)
            self.replies.append(reply)
            return reply

        worker.answer = record  # type: ignore[method-assign]
        self.engine = ServedEngine([worker], notify=self.messages.append)

    def answer(self, requests: Iterable[GenerationRequest]) -> dict[int, Completion]:
        self.engine.submit(list(requests))
        return drain(self.engine)

    def train(self, seed: int) -> None:
        """Change the learner's weights in place, as an optimiser does, always as far from those of the start."""
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter, start in zip(self.model.parameters(), self._start, strict=True):
                parameter.copy_(start + 0.05 * torch.randn_like(start))

    @property
    def process(self) -> int:
        """The process that samples."""
        if isinstance(self.worker, InProcess):
            return next(child.pid for child in self.worker._children if child.pid is not None)
        assert isinstance(self.worker, OwnServer)
        assert self.worker._process is not None
        return self.worker._process.pid


@pytest.fixture(scope="module", params=["in process", "over HTTP"])
def sglang(
    request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setup]:
    """Started once for all tests, which takes a while, and warmed up."""
    path = tmp_path_factory.mktemp("model")
    model = random_model("qwen2", tie_word_embeddings=True)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    worker = InProcess(str(path), CPU) if request.param == "in process" else OwnServer(SGLang(), str(path), CPU, 0)
    setup = Setup(worker, model)
    setup.answer(ask(i, range(3, 20 + i)) for i in range(4))
    yield setup
    setup.engine.close()
    assert not multiprocessing.active_children()


def ask(i: int, tokens: Iterable[int], **options: Any) -> GenerationRequest:
    stop_token_ids, seed = options.pop("stop_token_ids", (STOP,)), options.pop("seed", i)
    sampling = Sampling.of({"max_tokens": 12, **options})
    return GenerationRequest(i, i, list(tokens), sampling.max_tokens, stop_token_ids, sampling, seed)


def drain(engine: ServedEngine) -> dict[int, Completion]:
    completions = {}
    while batch := engine.wait():
        completions.update({completion.request_id: completion for completion in batch})
    return completions


def plain_log_probs(model: PreTrainedModel, tokens: list[int], temperature: float) -> torch.Tensor:
    """The log-probability of every token given those before it, by a plain forward pass: [T-1]."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


def assert_three_ragged_turns_agree(sglang: Setup, temperature: float, first_episode: int) -> None:
    rng = random.Random(first_episode)
    numbers = range(first_episode, first_episode + 6)
    episodes = {i: [rng.randrange(3, 259) for _ in range(rng.randrange(3, 60))] for i in numbers}
    sampled: dict[int, list[tuple[int, list[float]]]] = {i: [] for i in episodes}
    for _ in range(3):
        requests = [
            ask(i, tokens, max_tokens=rng.randrange(1, 20), temperature=temperature) for i, tokens in episodes.items()
        ]
        for i, completion in sglang.answer(requests).items():
            assert completion.weight_version == sglang.engine.weight_version
            assert (completion.finish_reason == "stop") == (completion.tokens[-1] == STOP)
            sampled[i].append((len(episodes[i]), completion.log_probs))
            episodes[i] += completion.tokens
            episodes[i] += [rng.randrange(3, 259) for _ in range(rng.randrange(1, 30))]
    for i, tokens in episodes.items():
        expected = plain_log_probs(sglang.model, tokens, temperature)
        for start, log_probs in sampled[i]:
            torch.testing.assert_close(
                torch.tensor(log_probs), expected[start - 1 : start - 1 + len(log_probs)], atol=1e-4, rtol=0
            )


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_equal_a_plain_forward_pass_before_and_after_an_update(sglang: Setup, temperature: float) -> None:
    version = sglang.engine.weight_version
    assert_three_ragged_turns_agree(sglang, temperature, 100)
    sglang.train(seed=version)
    sglang.engine.load_weights(sglang.model.named_parameters(), version + 1)
    assert sglang.engine.weight_version == version + 1
    assert_three_ragged_turns_agree(sglang, temperature, 200)


def test_log_probs_with_top_p_are_those_of_the_whole_vocabulary(sglang: Setup) -> None:
    tokens = list(range(40, 80))
    completion = sglang.answer([ask(0, tokens, top_p=0.5, top_k=20)])[0]
    expected = plain_log_probs(sglang.model, [*tokens, *completion.tokens], 1.0)[len(tokens) - 1 :]
    torch.testing.assert_close(torch.tensor(completion.log_probs), expected, atol=1e-4, rtol=0)


def test_at_temperature_0_the_likeliest_tokens_are_certain(sglang: Setup) -> None:
    tokens = list(range(60, 90))
    completion = sglang.answer([ask(0, tokens, temperature=0.0)])[0]
    with torch.no_grad():
        for token in completion.tokens:
            assert token == int(sglang.model(torch.tensor([tokens])).logits[0, -1].argmax())
            tokens.append(token)
    assert completion.log_probs == [0.0] * len(completion.tokens)


def test_turn_2_finds_turn_1_in_the_cache_and_an_update_empties_it(sglang: Setup) -> None:
    first = [random.Random(9).randrange(3, 259) for _ in range(200)]
    reply = sglang.answer([ask(0, first, stop_token_ids=())])[0].tokens
    second = [*first, *reply, *range(100, 120)]
    sglang.answer([ask(0, second)])
    assert sglang.replies[-1]["meta_info"]["cached_tokens"] >= len(first) + len(reply) - 1
    sglang.engine.load_weights(sglang.model.named_parameters(), sglang.engine.weight_version + 1)
    sglang.answer([ask(0, second)])
    assert sglang.replies[-1]["meta_info"]["cached_tokens"] == 0


def test_a_reply_ends_after_a_stop_string_which_stays_part_of_it(
    sglang: Setup, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokens = list(range(30, 60))
    free = sglang.answer([ask(0, tokens, temperature=0.0, max_tokens=30, stop_token_ids=())])[0].tokens
    text = tokenizer.decode(free)
    stop = text[8:10]
    stopped = sglang.answer([ask(0, tokens, temperature=0.0, max_tokens=30, stop_token_ids=(), stop=(stop,))])[0]
    assert stopped.finish_reason == "stop"
    assert stopped.tokens == free[: len(stopped.tokens)]
    shortest = next(n for n in range(len(free) + 1) if stop in tokenizer.decode(free[:n]))
    assert len(stopped.tokens) == shortest


def test_what_is_aborted_never_comes_back(sglang: Setup) -> None:
    sglang.engine.submit([ask(i, range(3, 100 + i), max_tokens=1000, stop_token_ids=()) for i in range(8)])
    sglang.engine.abort()
    assert sglang.engine.wait() == []
    sglang.engine.load_weights(sglang.model.named_parameters(), sglang.engine.weight_version + 1)
    assert list(sglang.answer([ask(77, range(3, 30))])) == [77]


def test_a_server_takes_weights_over_a_process_group_and_in_a_new_one_when_it_was_lost(sglang: Setup) -> None:
    if not isinstance(sglang.worker, OwnServer):
        pytest.skip("an SGLang in this process is given tensors")
    sglang.worker.transfer = "group"
    for seed in (7, 8):
        sglang.train(seed)
        sglang.engine.load_weights(sglang.model.named_parameters(), sglang.engine.weight_version + 1)
        assert_three_ragged_turns_agree(sglang, 1.0, 500 + 10 * seed)
    os.kill(sglang.process, signal.SIGKILL)
    assert_three_ragged_turns_agree(sglang, 1.0, 600)  # with weights that travelled over another group
    sglang.worker.transfer = "directory"


def canary_of(engine: ServedEngine, model: PreTrainedModel) -> Canary:
    policy = Policy(model)
    log_probs = partial(log_probs_of, policy, micro_batch_tokens=2048)
    return Canary(lambda requests: [complete(engine, requests)], log_probs, [list(range(3, 30))], (STOP,))


def test_a_probe_raises_no_alarm_of_weights_that_arrive_and_one_of_a_layer_that_does_not(sglang: Setup) -> None:
    canary, worst = canary_of(sglang.engine, sglang.model), 0.0
    for seed in range(10, 30):
        sglang.train(seed)
        sglang.engine.load_weights(sglang.model.named_parameters(), sglang.engine.weight_version + 1)
        worst = max(worst, canary.check(sglang.engine.weight_version))
    assert worst < canary.tolerance / 20
    sglang.train(seed=30)
    some = [(name, one) for name, one in sglang.model.named_parameters() if "layers.0." not in name]
    sglang.engine.load_weights(some, sglang.engine.weight_version + 1)
    with pytest.raises(EngineError, match="some of the weights reached it and some did not"):
        canary.check(sglang.engine.weight_version)
    sglang.engine.load_weights(sglang.model.named_parameters(), sglang.engine.weight_version + 1)
    canary.check(sglang.engine.weight_version)


@pytest.mark.long
def test_a_probe_finds_the_one_server_of_two_that_was_not_updated(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model("qwen2", tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    workers = [OwnServer(SGLang(), str(tmp_path), CPU, number) for number in (1, 2)]
    engine = ServedEngine(workers)
    try:
        canary = canary_of(engine, model)
        canary.check(0)

        async def nothing(weights: Any) -> None:
            """Take no weights, and say that all is well."""

        for left_out in (True, False):
            with monkeypatch.context() as patch:
                if left_out:
                    patch.setattr(workers[1], "load", nothing)
                    patch.setattr(workers[1], "is_stale", lambda reply, weights: False)
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter += 0.02 * torch.randn_like(parameter)
                engine.load_weights(model.named_parameters(), engine.weight_version + 1)
                if left_out:
                    with pytest.raises(EngineError, match="engine and learner differ by"):
                        canary.check(engine.weight_version)
                else:
                    assert canary.check(engine.weight_version) < canary.tolerance / 20
    finally:
        engine.close()


def test_memory_can_be_lent_to_the_learner_until_the_next_weights(sglang: Setup) -> None:
    sglang.engine.lend_memory()
    sglang.train(seed=5)
    sglang.engine.load_weights(sglang.model.named_parameters(), sglang.engine.weight_version + 1)
    assert_three_ragged_turns_agree(sglang, 1.0, 300)


def test_killing_sglang_in_the_middle_of_a_batch_loses_no_request_and_says_so(sglang: Setup) -> None:
    sglang.train(seed=6)
    sglang.engine.load_weights(sglang.model.named_parameters(), sglang.engine.weight_version + 1)
    sent = 0
    killed = sglang.process

    def kill_once() -> None:
        nonlocal sent
        sent += 1
        if sent == 10:  # some have been answered, some are under way, some are not sent yet
            os.kill(killed, signal.SIGKILL)

    sglang.before_answer = kill_once
    sglang.messages.clear()
    requests = [ask(i, range(3, 100 + i), max_tokens=200, stop_token_ids=()) for i in range(16)]
    sglang.engine.submit(requests[:4])
    finished = {completion.request_id for completion in sglang.engine.wait()}
    sglang.engine.submit(requests[4:])
    completions = drain(sglang.engine)
    sglang.before_answer = lambda: None
    assert finished | set(completions) == set(range(16))
    assert not finished & set(completions)
    assert sglang.process != killed
    assert "Lost" in sglang.messages[0]
    assert f"version {sglang.engine.weight_version} of the weights" in sglang.messages[0]
    assert "is back" in sglang.messages[-1]
    assert_three_ragged_turns_agree(sglang, 1.0, 400)  # with the current weights, not those it was started with


@pytest.mark.parametrize("own", [InProcess, OwnServer])
def test_a_start_that_takes_too_long_is_ended_and_nothing_is_left_of_it(
    own: type[Worker], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    random_model("qwen2", tie_word_embeddings=True).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    path = str(tmp_path)
    worker = InProcess(path, CPU, 4.0) if own is InProcess else OwnServer(SGLang(), path, CPU, 9, patience=4.0)
    with pytest.raises(EngineError, match=r"to start: it (did not start|was not healthy) within 4 s"):
        ServedEngine([worker])
    until = time.monotonic() + 30
    while left := {child.pid for child in psutil.Process().children(recursive=True)} - before:
        assert time.monotonic() < until, left
        time.sleep(0.2)


def test_a_process_that_ends_while_sglang_starts_ends_the_start(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    random_model("qwen2", tie_word_embeddings=True).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    messages: list[str] = []
    engine = ServedEngine([worker := InProcess(str(tmp_path), CPU)], notify=messages.append)
    first = {child.pid for child in worker._children}
    engine.submit([ask(0, range(3, 20), max_tokens=200, stop_token_ids=())])
    os.kill(worker._children[0].pid or 0, signal.SIGKILL)
    until = time.monotonic() + 120
    while len(again := {child.pid for child in worker._children} - first) < 2:
        assert time.monotonic() < until, messages
        time.sleep(0.05)
    os.kill(again.pop() or 0, signal.SIGKILL)  # while it starts
    assert list(drain(engine)) == [0]
    assert "Attempt 1 to start the embedded SGLang again failed: its process" in messages[1]
    engine.close()


def test_grpo_trains_through_sglang_and_survives_its_death(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = InProcess.answer
    sent = killed = 0

    async def kill_in_the_second_step(self: InProcess, rid: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal sent, killed
        sent += 1
        if sent == 32 + 20:
            killed = self._children[0].pid or 0
            os.kill(killed, signal.SIGKILL)
        return await answer(self, rid, payload)

    monkeypatch.setattr(InProcess, "answer", kill_in_the_second_step)
    sizes = {"steps": 3, "prompts-per-step": 4, "group-size": 4, "max-tokens": 48, "eval-episodes": 0}
    words = ["--engine", "sglang", "--engine-check", "0.001", "--output-dir", str(tmp_path)]
    words += [f"--{name}={value}" for name, value in sizes.items()]
    assert main([*words, "--engine-kwargs", *(f"{key}={json.dumps(value)}" for key, value in CPU.items())]) == 0
    (run,) = tmp_path.iterdir()
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [1, 2, 3]
    for step in (1, 2, 3):
        trajectories = read_trajectories(run / "trajectories" / f"step-{step:05d}.parquet")
        assert len(trajectories) == 16
        assert {reply.weight_version for t in trajectories for reply in t.replies} == {step - 1}
        assert all(t.ending == "terminated" for t in trajectories)
    printed = capsys.readouterr().out
    assert "Lost the embedded SGLang" in printed
    assert "unfinished requests are sent again" in printed
    assert not multiprocessing.active_children()  # closed with the run
    time.sleep(2)  # SGLang's own watchdog looks once a second, and has nothing to say of that
    assert all(f"pid={killed}" in line for line in caplog.messages if "crashed" in line)
