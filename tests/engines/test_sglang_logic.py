"""Routing, replay, versions and limits around SGLang, with a small HTTP server that takes the same calls."""

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import random_model
from fake_server import KEY, FakeServer

from llmgym.config.choices import WeightTransfer
from llmgym.config.sections import Engine as EngineConfig
from llmgym.config.sections import Sampling
from llmgym.engines import make
from llmgym.engines.base import Completion, GenerationRequest
from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.make import make_engine
from llmgym.engines.served.dialect import FaultyAnswerError, TransientError
from llmgym.engines.served.engine import ServedEngine
from llmgym.engines.served.limits import Limits
from llmgym.engines.served.server import OwnServer, Server
from llmgym.engines.served.weights import Weights
from llmgym.engines.sglang import dialect
from llmgym.engines.sglang.dialect import SGLang
from llmgym.engines.sglang.in_process import InProcess
from llmgym.errors import ConfigError, ContextOverflowError, EngineError

IMPATIENT = Limits(first_pause=0.02, longest_pause=0.1, attempts=4)


@pytest.fixture
def fakes() -> Iterator[list[FakeServer]]:
    """Two servers."""
    servers = [FakeServer(), FakeServer()]
    yield servers
    for fake in servers:
        fake.close()


def connect(
    *fakes: FakeServer,
    patience: float = 5.0,
    messages: list[str] | None = None,
    transfer: WeightTransfer = "directory",
    restarts: int = 3,
) -> ServedEngine:
    workers = [Server(SGLang(), fake.url, KEY, patience, transfer, IMPATIENT) for fake in fakes]
    notify = [].append if messages is None else messages.append
    return ServedEngine(workers, restarts=restarts, limits=IMPATIENT, notify=notify)


def ask(i: int, length: int = 5, *, episode: int | None = None, **options: Any) -> GenerationRequest:
    stop_token_ids, seed = options.pop("stop_token_ids", (2,)), options.pop("seed", i)
    sampling = Sampling.of({"max_tokens": 3, **options})
    home = i if episode is None else episode
    return GenerationRequest(i, home, [7] * length, sampling.max_tokens, stop_token_ids, sampling, seed)


def drain(engine: ServedEngine) -> dict[int, Completion]:
    completions = {}
    while batch := engine.wait():
        completions.update({completion.request_id: completion for completion in batch})
    return completions


WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}


def test_new_episodes_go_to_the_least_busy_server_and_stay_there(fakes: list[FakeServer]) -> None:
    engine = connect(*fakes)
    fakes[0].hold = fakes[1].hold = 10
    engine.submit([ask(i, 10 + i) for i in range(20)])
    assert len(drain(engine)) == 20
    assert [len(fake.prompts) for fake in fakes] == [10, 10]
    first = [{len(prompt) for prompt in fake.prompts} for fake in fakes]
    for fake in fakes:
        fake.prompts.clear()
    for i in range(20):  # one at a time: none would leave its server because another has less to do
        engine.submit([ask(i, 10 + i)])
        drain(engine)
    assert [{len(prompt) for prompt in fake.prompts} for fake in fakes] == first
    engine.close()


def test_a_server_is_sent_4096_requests_at_once(fakes: list[FakeServer]) -> None:
    engine = connect(fakes[0])
    fakes[0].hold = 4096
    engine.submit([ask(i) for i in range(4100)])
    assert set(drain(engine)) == set(range(4100))
    assert fakes[0].most_under_way == 4096
    assert fakes[0].calls.count("/generate") == 4100
    engine.close()


def test_an_update_pauses_flushes_sends_goes_on_and_is_checked(fakes: list[FakeServer]) -> None:
    engine = connect(*fakes)
    for version in (1, 2):
        for fake in fakes:
            fake.calls.clear()
        engine.load_weights(WEIGHTS.items(), version)
        for fake in fakes:
            pause, flush, update, go_on, check = fake.calls
            assert (pause, flush) == ("/pause_generation", "/flush_cache")
            assert (update, go_on) == ("/update_weights_from_disk", "/continue_generation")
            assert check == "/model_info"
            torch.testing.assert_close(fake.weights, WEIGHTS)
        assert len(list(engine._directory.path.glob("*/"))) == 1  # older weights are removed
    engine.submit([ask(0)])
    assert drain(engine)[0].weight_version == 2
    engine.close()
    assert not engine._directory.path.exists()


@pytest.mark.parametrize("with_sessions", [True, False])
def test_weights_travel_over_a_group_of_learner_and_server(with_sessions: bool, fakes: list[FakeServer]) -> None:
    end = ["/end_weight_update"] if with_sessions else []
    for fake in fakes:
        fake.has_sessions = with_sessions
    engine = connect(*fakes, transfer="group")
    for version in (1, 2):
        for fake in fakes:
            fake.calls.clear()
            fake.weights.clear()
        engine.load_weights(WEIGHTS.items(), version)
        for fake in fakes:
            join = ["/init_weights_update_group", "/end_weight_update"] if version == 1 else []  # the group stays
            assert fake.calls == [
                *(
                    "/pause_generation",
                    "/flush_cache",
                    *join,
                    "/begin_weight_update",
                    "/update_weights_from_distributed",
                ),
                *(*end, "/continue_generation", "/model_info"),
            ]
            torch.testing.assert_close(fake.weights, WEIGHTS)
    assert not list(engine._directory.path.glob("*/"))  # nothing is written
    engine.submit([ask(0)])
    assert drain(engine)[0].weight_version == 2
    engine.close()
    assert all(fake.calls[-1] == "/destroy_weights_update_group" for fake in fakes)


def test_a_server_that_refuses_weights_over_a_group_is_lost_and_asked_in_a_new_one(fakes: list[FakeServer]) -> None:
    messages: list[str] = []
    engine = connect(fakes[0], transfer="group", messages=messages)
    engine.load_weights(WEIGHTS.items(), 1)
    joined = fakes[0].calls.count("/init_weights_update_group")
    fakes[0].refusals = 1
    engine.load_weights(WEIGHTS.items(), 2)
    assert "does not take weights" in messages[0]
    assert "refuses" in messages[0]
    assert "is back" in messages[-1]
    assert fakes[0].calls.count("/init_weights_update_group") == joined + 1
    engine.submit([ask(0)])
    assert drain(engine)[0].weight_version == 2
    engine.close()


def test_a_stale_reply_is_asked_for_again_with_the_current_weights(fakes: list[FakeServer]) -> None:
    messages: list[str] = []
    engine = connect(fakes[0], messages=messages)
    engine.load_weights(WEIGHTS.items(), 1)
    current = fakes[0].weight_version
    fakes[0].weight_version = "default"  # somebody started it again
    engine.submit([ask(i) for i in range(8)])
    completions = drain(engine)
    assert set(completions) == set(range(8))
    assert fakes[0].calls.count("/generate") == 16
    assert fakes[0].weight_version == current
    assert "other weights" in messages[0]
    engine.close()


def test_a_dead_servers_requests_go_to_another_and_none_is_answered_twice(fakes: list[FakeServer]) -> None:
    messages: list[str] = []
    engine = connect(*fakes, patience=0.5, messages=messages)
    engine.load_weights(WEIGHTS.items(), 1)
    fakes[0].hold = 1000  # answers nothing
    engine.submit([ask(i, 10 + i) for i in range(20)])
    while len(fakes[0].prompts) < 10:
        time.sleep(0.01)
    fakes[0].stop()
    counts = Counter(completion.request_id for batch in iter(engine.wait, []) for completion in batch)
    assert counts == Counter(range(20))
    assert {len(prompt) for prompt in fakes[1].prompts} == set(range(10, 30))
    assert len(fakes[1].prompts) == 20
    engine.submit([ask(i) for i in range(20, 24)])  # as many as are sent to the dead one, which is noticed by them
    assert set(drain(engine)) == set(range(20, 24))
    assert "Lost the SGLang server" in messages[0]
    engine.close()


def test_a_server_that_comes_back_is_given_the_weights_before_a_request(fakes: list[FakeServer]) -> None:
    messages: list[str] = []
    engine = connect(fakes[0], messages=messages)
    engine.load_weights(WEIGHTS.items(), 3)
    fakes[0].stop()
    fakes[0].weight_version = "default"
    fakes[0].calls.clear()
    engine.submit([ask(0)])
    time.sleep(1.0)
    fakes[0].start()
    assert drain(engine)[0].weight_version == 3
    assert fakes[0].calls.index("/update_weights_from_disk") < fakes[0].calls.index("/generate")
    assert "is back" in messages[-1]
    engine.close()


def test_a_server_that_stays_away_ends_the_run_with_a_message(fakes: list[FakeServer]) -> None:
    engine = connect(fakes[0], patience=0.2)
    fakes[0].stop()
    engine.submit([ask(0)])
    with pytest.raises(EngineError, match="No server is left"):
        engine.wait()
    engine.close()


def test_restarts_are_counted_over_the_whole_run(fakes: list[FakeServer]) -> None:
    engine = connect(fakes[0], restarts=3)
    for version in range(1, 4):
        engine.load_weights(WEIGHTS.items(), version)
        fakes[0].weight_version = "another"  # as after a start by somebody else
        engine.submit([ask(version)])
        assert drain(engine)[version].weight_version == version
    engine.load_weights(WEIGHTS.items(), 4)
    fakes[0].weight_version = "another"
    engine.submit([ask(4)])
    with pytest.raises(EngineError, match="No server is left"):
        engine.wait()
    engine.close()


def test_a_cache_that_cannot_be_flushed_is_not_sampled_from(fakes: list[FakeServer]) -> None:
    engine = connect(fakes[0], patience=0.2)
    fakes[0].flushes = False
    with pytest.raises(EngineError, match="No server is left"):
        engine.load_weights(WEIGHTS.items(), 1)
    assert "/update_weights_from_disk" not in fakes[0].calls
    assert fakes[0].calls.count("/pause_generation") == fakes[0].calls.count("/continue_generation")
    engine.close()


def test_weights_that_were_trained_on_since_are_not_handed_over_as_the_old_ones(tmp_path: Path) -> None:
    tensor = torch.nn.Parameter(torch.zeros(3))
    weights = Weights([("a", tensor)], 1, "tag", tmp_path)
    assert [name for bucket in weights.buckets() for name, _ in bucket] == ["a"]
    tensor.grad = torch.ones(3)
    torch.optim.AdamW([tensor]).step()
    with pytest.raises(EngineError, match="trained on since"):
        list(weights.buckets())


ABORTED = {"meta_info": {"finish_reason": {"type": "abort", "message": "paused"}, "output_token_logprobs": []}}


def test_a_reply_that_was_sampled_past_a_stop_string_is_cut_where_the_string_is_complete(
    fakes: list[FakeServer],
) -> None:
    sampled = [[-0.1 * i, token, None] for i, token in enumerate((97, 98, 99, 100))]
    meta = {"finish_reason": {"type": "length"}, "output_token_logprobs": sampled, "weight_version": "default"}
    fakes[0].odd = [(200, {"meta_info": meta})] * 2
    engine = ServedEngine([Server(SGLang(), fakes[0].url, KEY)], text_of=lambda tokens: "".join(map(chr, tokens)))
    engine.submit([ask(0, max_tokens=4, stop=("bc",))])
    (completion,) = engine.wait()
    assert (completion.tokens, completion.finish_reason) == ([97, 98, 99], "stop")
    assert completion.log_probs == pytest.approx([0.0, -0.1, -0.2])
    engine.submit([ask(0, max_tokens=4)])
    assert engine.wait()[0].tokens == [97, 98, 99, 100]
    engine.close()


@pytest.mark.parametrize("odd", [(200, ABORTED), (200, {}), (503, {"error": "busy"})])
def test_a_request_that_failed_is_sent_again(odd: tuple[int, dict[str, Any]], fakes: list[FakeServer]) -> None:
    engine = connect(fakes[0])
    fakes[0].odd = [odd]
    engine.submit([ask(0, 9)])
    assert drain(engine)[0].tokens == [9, 9, 9]
    assert len(fakes[0].prompts) == 2
    fakes[0].odd = [odd] * 9
    engine.submit([ask(1)])
    with pytest.raises(EngineError, match="sent 4 times"):
        engine.wait()
    engine.close()


def test_polling_takes_no_time_and_whoever_asked_is_told_when_it_is_of_use(fakes: list[FakeServer]) -> None:
    engine = connect(fakes[0])
    told = threading.Semaphore(0)
    engine.on_finished(told.release)
    assert engine.poll() == []
    fakes[0].hold = 2
    engine.submit([ask(0)])
    assert not told.acquire(timeout=0.2)
    assert engine.poll() == []
    engine.submit([ask(1)])
    found = []
    while len(found) < 2:
        assert told.acquire(timeout=5)
        found += [completion.request_id for completion in engine.poll()]
    assert sorted(found) == [0, 1]
    fakes[0].odd = [(400, {"error": "no"})]
    engine.submit([ask(2)])
    while not told.acquire(timeout=5) or engine._done.empty():
        pass
    with pytest.raises(EngineError, match="refuses"):
        engine.poll()
    assert engine.wait() == []
    engine.close()


def test_a_request_that_the_server_refuses_is_not_sent_again(fakes: list[FakeServer]) -> None:
    engine = connect(fakes[0])
    fakes[0].odd = [(400, {"error": {"message": "top_p must be in (0, 1]"}})]
    engine.submit([ask(0)])
    with pytest.raises(EngineError, match="top_p must be in"):
        engine.wait()
    assert len(fakes[0].prompts) == 1
    with pytest.raises(ContextOverflowError):
        engine.submit([ask(0, 1000)])
    engine.close()


def test_what_is_aborted_never_comes_back(fakes: list[FakeServer]) -> None:
    engine = connect(fakes[0])
    fakes[0].hold = 5
    engine.submit([ask(i) for i in range(4)])
    while fakes[0].under_way < 4:
        time.sleep(0.01)
    engine.abort()
    assert fakes[0].calls.count("/abort_request") == 4
    assert engine.wait() == []
    engine.submit([ask(9)])
    assert list(drain(engine)) == [9]
    engine.close()


def test_a_server_that_does_not_fit_is_refused(fakes: list[FakeServer]) -> None:
    fakes[0].version = "0.5.10.post2"
    with pytest.raises(EngineError, match=r"Expected SGLang 0\.5\.11 or later in the SGLang server .* found 0\.5\.10"):
        connect(fakes[0])
    with pytest.raises(EngineError, match="LLMGYM_ENGINE_KEY"):
        ServedEngine([Server(SGLang(), fakes[0].url, "another")])
    fakes[0].stop()
    with pytest.raises(EngineError, match="to start: it was not healthy"):
        connect(fakes[0], patience=0.2)


def test_without_sglang_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "installed_version", lambda: None)
    for worker in (lambda: InProcess("x", {}), lambda: OwnServer(SGLang(), "x", {}, 0)):
        with pytest.raises(EngineError, match=r"found none: install it .*--engine-url.*--engine local"):
            worker()


def test_auto_is_the_embedded_engine_unless_there_are_sglang_and_a_gpu_or_a_url(
    fakes: list[FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model("llama")
    common: dict[str, Any] = {"context_length": 64, "notify": print, "text_of": str}
    monkeypatch.setattr(make, "installed_version", lambda: "0.5.21")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert isinstance(make_engine(EngineConfig.of({"kv_cache_gib": 0.1}), model, "x", **common), LocalEngine)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(make, "installed_version", lambda: None)
    assert isinstance(make_engine(EngineConfig.of({"kv_cache_gib": 0.1}), model, "x", **common), LocalEngine)
    monkeypatch.setenv(make.KEY_VARIABLE, KEY)
    engine = make_engine(EngineConfig.of({"engine_url": [fakes[0].url]}), model, "x", **common)
    assert isinstance(engine, ServedEngine)
    assert engine.context_length == 64
    assert set(fakes[0].weights) == {name for name, _ in model.named_parameters()}  # the learner's, from the start
    engine.close()


@pytest.mark.parametrize(
    ("device", "transfer", "options", "first"),
    [
        ("cuda", "directory", {}, 0),
        ("cuda", "directory", {"base_gpu_id": 3}, 3),
        ("cuda", "group", {}, 1),  # the learner's own cannot be in a group with itself
        ("cpu", "group", {}, 0),
    ],
)
def test_servers_have_gpus_of_their_own(
    device: str,
    transfer: WeightTransfer,
    options: dict[str, int],
    first: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[OwnServer] = []
    monkeypatch.setattr(dialect, "installed_version", lambda: "0.5.21")
    monkeypatch.setattr(make, "ServedEngine", lambda workers, **_: started.extend(workers))
    embeddings = SimpleNamespace(num_embeddings=100)
    model: Any = SimpleNamespace(device=torch.device(device), get_input_embeddings=lambda: embeddings)
    asked = {"engine_servers": 2, "engine_kwargs": {"tp_size": 2, **options}, "engine_transfer": transfer}
    config = EngineConfig.of({"engine": "sglang", **asked})
    make_engine(config, model, "path", context_length=100, notify=print)
    assert [one._arguments["base_gpu_id"] for one in started] == [first, first + 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "local", "engine_url": ["http://localhost:1"]}, "expected --engine sglang"),
        ({"engine_url": ["http://localhost:1"], "engine_kwargs": {"tp_size": 2}}, "expected one"),
        ({"engine": "local", "engine_transfer": "group"}, "expected --engine sglang"),
        ({"engine_transfer": "group"}, "expected engine_servers or engine_url beside 'group'"),
        ({"engine_kwargs": {"trust_remote_code": True}}, "engine_kwargs: expected no trust_remote_code"),
        (
            {"engine_servers": 1, "engine_kwargs": {"trust_remote_code": "yes"}},
            "code of a model directory is never run",
        ),
        ({"engine_weights_dir": "/nowhere"}, "engine_weights_dir: expected a directory"),
    ],
)
def test_options_that_fit_no_engine_are_refused(options: dict[str, Any], message: str) -> None:
    config = EngineConfig.of({"engine": "sglang", **options})
    with pytest.raises(ConfigError, match=message):
        make_engine(config, random_model("llama"), "x", context_length=64, notify=print, text_of=str)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:s3cret@host:30000",
        "me:s3cret@host:30000",
        "ftp://me:s3cret@host",
        "http://me:s3cret/@host",
        "http://me:s3cret@[::1",
        "http://host:30000/?key=s3cret",
    ],
)
def test_an_address_with_a_secret_is_refused_and_the_secret_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="engine_url: expected ") as refusal:
        EngineConfig.of({"engine_url": [url]})
    assert "cret" not in str(refusal.value)


def test_a_key_that_others_can_read_on_the_way_is_warned_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(make.KEY_VARIABLE, "s3cret-s3cret")
    monkeypatch.setattr(make, "ServedEngine", lambda *_, **__: SimpleNamespace(load_weights=lambda *_, **__: None))
    model = random_model("llama")

    def told(*urls: str) -> list[str]:
        messages: list[str] = []
        config = EngineConfig.of({"engine_url": urls})
        make_engine(config, model, "x", context_length=64, notify=messages.append, text_of=str)
        return messages

    (warning,) = told("http://127.0.0.1:1", "http://gpu-1:30000", "http://gpu-2:30000")
    assert "to http://gpu-1:30000 unencrypted" in warning
    assert "s3cret" not in warning
    assert not told("http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "https://gpu-1:30000")
    monkeypatch.delenv(make.KEY_VARIABLE)
    assert not told("http://gpu-1:30000")


def test_a_request_is_complete_and_in_sglangs_words() -> None:
    payload = SGLang().payload(ask(0, 4, seed=(7 << 64) + 3, top_k=0, stop=("x",), temperature=0.5))
    sampling = payload["sampling_params"]
    assert payload["input_ids"] == [7] * 4
    assert (sampling["top_k"], sampling["stop"], sampling["no_stop_trim"]) == (-1, ["x"], True)
    assert 0 <= sampling["sampling_seed"] < 2**31
    seeds = {SGLang().payload(ask(0, seed=(7 << 64) + i))["sampling_params"]["sampling_seed"] for i in range(100)}
    assert len(seeds) == 100
    reply = {"meta_info": {"finish_reason": {"type": "length"}, "output_token_logprobs": [[-0.25, 8, None]]}}
    assert SGLang().completion(ask(3), reply, 6) == Completion(3, [8], [-0.25], "length", 6)
    assert SGLang().completion(ask(3, temperature=0.0), reply, 6).log_probs == [0.0]
    with pytest.raises(TransientError):
        SGLang().completion(ask(3), ABORTED, 6)


def sampled(*pairs: Any, meta: Any = None) -> dict[str, Any]:
    return {"meta_info": meta or {"finish_reason": {"type": "stop"}, "output_token_logprobs": list(pairs)}}


@pytest.mark.parametrize(
    "reply",
    [
        sampled([math.nan, 5, None]),
        sampled([-0.5, 5, None], [-math.inf, 2, None]),
        sampled([3.0, 5, None]),
        sampled(["-0.5", 5, None]),
        sampled([None, 5, None]),
        sampled([5, -0.5, None]),
        sampled([-0.5, 5.7, None]),
        sampled([-0.5, True, None]),
        sampled([-0.5, -1, None]),
        sampled([-0.5, 10**30, None]),
        sampled(*[[-0.5, 5, None]] * 1000),
        sampled([-0.5, 2, None], [-0.5, 5, None]),  # after a stop token
        sampled(-0.5, -0.5),
        sampled([-0.5]),
        sampled({"logprob": -0.5, "token": 5}),
        sampled(meta="x"),
        sampled(meta={"finish_reason": "stop", "output_token_logprobs": [[-0.5, 5, None]]}),
        sampled(meta={"finish_reason": {"type": "stop"}, "output_token_logprobs": 7}),
    ],
    ids=lambda reply: f"{reply['meta_info']!r:.60}",
)
def test_a_reply_without_valid_tokens_and_log_probabilities_is_refused(reply: dict[str, Any]) -> None:
    with pytest.raises(FaultyAnswerError, match=r"^Expected "):
        SGLang().completion(ask(3), reply, 6)


@pytest.mark.parametrize(
    "info",
    [
        {"version": "0.5.21"},
        {"version": "0.5.21", "max_req_input_len": None},
        {"version": "0.5.21", "max_req_input_len": 10, "tp_size": "two"},
    ],
)
def test_a_server_that_does_not_say_what_it_is_is_refused(info: dict[str, Any]) -> None:
    with pytest.raises(FaultyAnswerError, match="Expected SGLang's answer to /server_info, got "):
        SGLang().facts(info, "here")


def test_an_unreadable_answer_to_an_update_is_refused() -> None:
    async def call(method: str, path: str, body: Any = None) -> dict[str, Any]:
        return {}

    with pytest.raises(FaultyAnswerError, match=r"Expected SGLang's answer to /update_weights_from_disk, got \{\}"):
        asyncio.run(SGLang().read(call, Path("x"), "1"))
