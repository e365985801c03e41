"""Whatever a server answers, an engine samples what an honest one would have said, or ends with a sentence."""

import math
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from fake_server import KEY, FakeServer
from hostile_server import (
    FAREWELLS,
    FAULTS,
    LIES,
    PASSING,
    REFUSALS,
    STALE,
    STARTS,
    UPDATES,
    VOCABULARY,
    HostileServer,
)

from llmgym.config.sections import Sampling
from llmgym.engines.base import Completion, GenerationRequest
from llmgym.engines.served.dialect import TransientError
from llmgym.engines.served.engine import ServedEngine
from llmgym.engines.served.limits import Limits
from llmgym.engines.served.log import _LONGEST_LINE, ServerLog
from llmgym.engines.served.server import OwnServer, Server, _wished
from llmgym.engines.sglang.dialect import SGLang
from llmgym.errors import EngineError

pytestmark = pytest.mark.hostile

T = TypeVar("T")

LIMITS = Limits(
    answer=0.5,
    call=0.3,
    farewell=0.2,
    health=0.2,
    health_every=0.2,
    attempts=8,
    call_attempts=3,
    first_pause=0.005,
    longest_pause=0.02,
    answer_bytes=2**20,
)
WEIGHTS = {"a": torch.arange(6.0)}


@pytest.fixture
def servers() -> Iterator[list[FakeServer]]:
    """What is put here is closed at the end."""
    started: list[FakeServer] = []
    yield started
    for server in started:
        server.close()


def ended(act: Callable[[], T]) -> T:
    """Return what `act` returns; that it does is a part of every test."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(act())
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result(timeout=60)


def connect(*servers: FakeServer, limits: Limits = LIMITS, **options: Any) -> ServedEngine:
    workers = [Server(SGLang(), server.url, KEY, 0.2, limits=limits) for server in servers]
    chosen = {"vocabulary": VOCABULARY, "limits": limits, "restarts": 100, "notify": [].append, **options}
    return ended(lambda: ServedEngine(workers, **chosen))


def ask(i: int) -> GenerationRequest:
    return GenerationRequest(i, i, [7] * (10 + i), 3, (2,), Sampling.of({"max_tokens": 3}), i)


def replies(engine: ServedEngine, requests: Sequence[GenerationRequest]) -> dict[int, Completion]:
    """Return the replies, and close the engine."""

    def play() -> dict[int, Completion]:
        found = {}
        try:
            engine.submit(requests)
            while finished := engine.wait():
                found |= {completion.request_id: completion for completion in finished}
        finally:
            engine.abort()
            engine.close()
        return found

    return ended(play)


def honest(requests: Sequence[GenerationRequest], version: int = 0) -> dict[int, Completion]:
    return {
        one.request_id: Completion(one.request_id, [len(one.tokens)] * 3, [-0.5] * 3, "stop", version)
        for one in requests
    }


@pytest.mark.parametrize("fault", {**PASSING, **LIES})
def test_a_fault_in_every_third_answer_changes_nothing(fault: str, servers: list[FakeServer]) -> None:
    servers.append(server := HostileServer(fault, every=3))
    messages: list[str] = []
    requests = [ask(i) for i in range(6)]
    assert replies(connect(server, notify=messages.append), requests) == honest(requests)
    assert server.faulty
    assert bool(messages) == (fault in LIES)
    assert server.sent < 2**25


@pytest.mark.parametrize("fault", {**PASSING, **LIES})
def test_a_fault_in_every_answer_ends_the_run_with_a_sentence(fault: str, servers: list[FakeServer]) -> None:
    servers.append(server := HostileServer(fault))
    with pytest.raises(EngineError, match=r"^the SGLang server http:.* gave no answer to .* sent 2 times: ") as end:
        replies(connect(server, limits=few(2)), [ask(0)])
    assert KEY not in str(end.value)
    assert len(str(end.value)) < 1000
    assert fault in PASSING or "Expected" in str(end.value)


def few(attempts: int) -> Limits:
    return replace(LIMITS, answer=0.2, attempts=attempts)


@pytest.mark.parametrize("fault", ["503 for ever", "never", "log-probability NaN", "reset"])
def test_what_one_server_always_gets_wrong_another_is_asked(fault: str, servers: list[FakeServer]) -> None:
    servers += [server := HostileServer(fault), FakeServer()]
    requests = [ask(i) for i in range(8)]
    assert replies(connect(*servers, limits=few(2)), requests) == honest(requests)
    assert server.faulty


def test_a_server_that_gives_nothing_but_faulty_answers_is_lost(servers: list[FakeServer]) -> None:
    servers += [server := HostileServer("log-probability 3"), FakeServer()]
    messages: list[str] = []
    requests = [ask(i) for i in range(40)]
    engine = connect(*servers, limits=Limits(faults=4, first_pause=0.001), restarts=2, notify=messages.append)
    assert replies(engine, requests) == honest(requests)
    assert server.faulty >= 4
    assert any("Lost the SGLang server" in said and "answers cannot be right" in said for said in messages)


@pytest.mark.parametrize("fault", STALE)
def test_a_reply_of_other_weights_is_never_taken(fault: str, servers: list[FakeServer]) -> None:
    servers += [sometimes := HostileServer(fault, every=3), always := HostileServer(fault)]
    engine = connect(sometimes)
    ended(lambda: engine.load_weights(WEIGHTS.items(), 1))
    requests = [ask(i) for i in range(4)]
    assert replies(engine, requests) == honest(requests, version=1)
    engine = connect(always, restarts=2)
    ended(lambda: engine.load_weights(WEIGHTS.items(), 1))
    with pytest.raises(EngineError, match=r"No server is left.*other weights than it was given"):
        replies(engine, requests)


@pytest.mark.parametrize("fault", REFUSALS)
def test_what_is_refused_for_good_ends_the_run_at_once(fault: str, servers: list[FakeServer]) -> None:
    servers.append(server := HostileServer(fault))
    with pytest.raises(EngineError, match=r"refuses: .*\(status 4\d\d\)|wants another key") as end:
        replies(connect(server), [ask(0)])
    assert server.faulty == 1
    assert KEY not in str(end.value)


@pytest.mark.parametrize("fault", STARTS)
def test_a_server_that_says_nothing_true_of_itself_is_not_begun_with(fault: str, servers: list[FakeServer]) -> None:
    servers.append(server := HostileServer(fault))
    with pytest.raises(EngineError, match=r"^Expected the SGLang server .* to start: ") as end:
        connect(server)
    assert len(str(end.value)) < 1000


@pytest.mark.parametrize("fault", [fault for fault in STARTS if fault.startswith("info")])
def test_a_server_may_say_what_it_is_at_the_second_time(fault: str, servers: list[FakeServer]) -> None:
    servers.append(server := HostileServer(fault, every=2))
    server._asked = 1
    assert replies(connect(server), [ask(0)]) == honest([ask(0)])
    assert server.faulty == 1


@pytest.mark.parametrize("fault", UPDATES)
def test_weights_that_were_not_taken_are_given_again(fault: str, servers: list[FakeServer]) -> None:
    servers += [sometimes := HostileServer(fault, every=2), always := HostileServer(fault)]
    sometimes._asked = 1
    engine = connect(sometimes)
    ended(lambda: engine.load_weights(WEIGHTS.items(), 1))
    assert sometimes.faulty == 1
    assert replies(engine, [ask(0)]) == honest([ask(0)], version=1)
    engine = connect(always, restarts=1)
    with pytest.raises(EngineError, match="No server is left: every one was lost") as end:
        ended(lambda: engine.load_weights(WEIGHTS.items(), 1))
    assert len(str(end.value)) < 1500
    ended(engine.close)


def test_a_server_that_is_ill_while_it_answers_nothing_is_lost(servers: list[FakeServer]) -> None:
    servers += [server := HostileServer("health 500", honest=1)]
    server.hold = 100  # answers nothing
    engine = connect(server, restarts=1)
    with pytest.raises(EngineError, match=r"No server is left.*status 500: 'ill'"):
        replies(engine, [ask(0)])


@pytest.mark.parametrize("fault", FAREWELLS)
def test_what_is_dropped_is_dropped_whether_or_not_the_server_says_so(fault: str, servers: list[FakeServer]) -> None:
    servers.append(server := HostileServer(fault))
    server.hold = 2
    engine = connect(server)
    asked = threading.Event()
    server.when_asked = asked.set
    engine.submit([ask(0)])
    while not server.under_way:
        pass
    ended(engine.abort)
    assert asked.is_set()
    assert engine.wait() == []
    server.hold = 0
    assert replies(engine, [ask(1)]) == honest([ask(1)])


@pytest.mark.parametrize("fault", ["never", "update never"])
def test_whoever_interrupts_a_run_waits_for_no_server(fault: str, servers: list[FakeServer]) -> None:
    servers.append(server := HostileServer(fault))
    server.when_asked = lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    engine = connect(server, limits=Limits())  # the limits of a real run
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - wherever it is by then
        if fault == "update never":
            engine.load_weights(WEIGHTS.items(), 1)
        engine.submit([ask(0)])
        engine.wait()
    ended(engine.abort)
    ended(engine.close)
    assert 2 * Limits().farewell < 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grace", "signals", "end"),
    [("1", 1, "grpo: interrupted; the same command with --resume goes on\n"), ("600", 2, "grpo: interrupted\n")],
)
def test_ctrl_c_ends_a_run_whose_server_never_answers(
    grace: str, signals: int, end: str, servers: list[FakeServer], tmp_path: Path
) -> None:
    servers.append(server := HostileServer("never"))
    asked = threading.Event()
    server.when_asked = asked.set
    options = {"engine-url": server.url, "grace": grace, "eval-episodes": "0", "output-dir": str(tmp_path / "runs")}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "llmgym.agents.grpo", *words]
    environment = {**os.environ, "LLMGYM_ENGINE_KEY": KEY}
    said = tmp_path / "said"
    with said.open("w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as run:
        try:
            assert asked.wait(timeout=240), said.read_text()
            run.send_signal(signal.SIGINT)
            for _ in range(signals - 1):
                while "A second signal ends it at once" not in said.read_text() and run.poll() is None:
                    time.sleep(0.05)
                run.send_signal(signal.SIGINT)
            assert run.wait(timeout=60) == 130
        finally:
            run.kill()
    assert f"waits at most {grace} s for its episodes" in said.read_text()
    assert said.read_text().endswith(end)


def test_pauses_grow_to_a_bound_and_are_as_long_as_a_server_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    limits = Limits(first_pause=1.0, longest_pause=60.0)

    def pauses(wished: float | None) -> list[float]:
        slept.clear()
        for attempt in (1, 2, 3, 50):
            pause = limits.pause(attempt, wished)
            with pytest.raises(StopIteration):
                pause.send(None)
        return list(slept)

    for wished, expected in ((None, [1, 2, 4, 60]), (3.0, [3, 3, 4, 60]), (1e9, [60] * 4), (-5.0, [1, 2, 4, 60])):
        for pause, least in zip(pauses(wished), expected, strict=True):
            assert least <= pause <= 1.25 * least
    assert pauses(None) != pauses(None)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("0", 0, 0),
        ("3", 3, 3),
        (format_datetime(datetime(2000, 1, 1)), -math.inf, 0),  # without a zone it is UTC
    ],
)
def test_a_server_says_in_seconds_or_as_a_date_when_it_wants_to_be_asked_again(
    header: str, least: float, most: float
) -> None:
    seconds = _wished(header)
    assert seconds is not None
    assert least <= seconds <= most


def test_a_date_that_is_to_come_is_waited_for() -> None:
    seconds = _wished(format_datetime(datetime.now(UTC) + timedelta(hours=2)))
    assert seconds is not None
    assert 3600 <= seconds <= 7200


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "soon",
        "-1",
        "1.5",
        "\u00b2",
        "Mon, 01 Jan " + "9" * 20 + " 00:00:00 GMT",
        "1 Jan 1 00:00 +" + "9" * 14,
    ],
)
def test_what_says_no_time_is_no_wish(header: str | None) -> None:
    assert _wished(header) is None


def test_a_server_is_asked_again_no_sooner_than_it_wishes(servers: list[FakeServer]) -> None:
    servers.append(HostileServer("429 for a second", every=2))
    engine = connect(servers[0], limits=replace(LIMITS, longest_pause=2.0))
    begun = time.monotonic()
    assert replies(engine, [ask(0), ask(1)]) == honest([ask(0), ask(1)])
    assert time.monotonic() - begun >= 1.0


def test_a_server_may_be_busy_for_more_than_a_minute() -> None:
    limits = Limits()
    pauses = [min(limits.first_pause * 2**i, limits.longest_pause) for i in range(limits.attempts - 1)]
    assert sum(pauses) > 60
    assert limits.first_pause < 1


ODD = [None, True, -1, 0, 10**12, 10**400, 0.5, math.nan, -math.inf, "", "stop", "1", [], [None], [[-0.5, 7, None]], {}]
ODD += [{"type": "stop"}, {"type": []}, {"type": "abort"}]


def mutated(chance: random.Random, value: Any) -> Any:
    """Return something that JSON may hold with one place of it changed, removed or doubled."""
    if not value or not isinstance(value, list | dict) or chance.random() < 0.2:
        return chance.choice(ODD)
    changed = value.copy()
    key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if isinstance(changed, list) and chance.random() < 0.1:
        changed.insert(key, changed[key])
    elif chance.random() < 0.1:
        del changed[key]
    else:
        changed[key] = mutated(chance, value[key])
    return changed


def test_a_mutated_answer_is_a_completion_or_is_refused() -> None:
    chance = random.Random(7)
    request = replace(ask(0), max_tokens=4)
    rows = [[-0.5, 7, None], [-0.25, 8, None], [0.0, 9, "x"]]
    honest = {
        "output_ids": [7, 8, 9],
        "meta_info": {"finish_reason": {"type": "length", "length": 3}, "output_token_logprobs": rows, "id": "a"},
    }
    completions = 0
    for _ in range(200):
        try:
            found = SGLang().completion(request, mutated(chance, honest), 0)
        except TransientError:  # a faulty answer is one
            continue
        completions += 1
        assert 1 <= len(found.tokens) == len(found.log_probs) <= 4
        assert all(type(token) is int and 0 <= token < 2**31 for token in found.tokens)
        assert all(type(one) is float and -1e5 < one <= 1e-2 for one in found.log_probs)
        assert found.finish_reason in ("stop", "length")
    assert 0 < completions < 100


def test_every_fault_is_in_a_test() -> None:
    assert len(FAULTS) == sum(map(len, (PASSING, LIES, STALE, REFUSALS, STARTS, UPDATES, FAREWELLS)))


# The log of a server of ours.


class Chatty(SGLang):
    """A server that writes its options, as SGLang does at `log_level=info`, and fails."""

    def require_installed(self) -> None:
        """It needs nothing."""

    def serve(self, model_path: str, arguments: Any, port: int, key: str) -> None:
        os.write(1, f"server_args={{'port': {port}, 'api_key': '{key}'}} {'x' * 200_000}\n".encode())
        os.write(2, f"ValueError: not with {key}\n".encode())
        os._exit(3)


def written(text: bytes) -> ServerLog:
    """Return the log of a process that has written a text and ended."""
    reading, writing = os.pipe()
    log = ServerLog(open(reading, "rb"), KEY, "SGLang")  # noqa: SIM115 - the log closes it
    with open(writing, "wb") as process:
        process.write(text)
    log._copying.join(timeout=60)
    return log


@pytest.mark.slow
def test_the_log_of_a_server_is_private_and_has_no_key_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    server = OwnServer(Chatty(), "model", {}, 0, patience=60.0)
    with pytest.raises(EngineError, match=r"exit code 3: ValueError: not with \*\*\* \(log: .*server\.log\)") as end:
        ended(lambda: ServedEngine([server]))
    (log,) = tmp_path.glob("*/server.log")
    assert str(log) in str(end.value)
    said = log.read_text()
    assert "'api_key': '***'" in said
    assert str(server._key) not in said
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700
    written(b"").remove()
    assert log.exists()  # the error told the user to read it


def test_nobody_knows_the_name_of_a_log_before_nor_leads_it_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    logs = [written(b"well") for _ in range(2)]
    names = [log.path.parent.name.removeprefix("llmgym-sglang-") for log in logs]
    assert names[0] != names[1]
    assert all(len(name) >= 8 for name in names)
    for log in logs:
        log.remove()
    (guessed := tmp_path / "guessed").mkdir()
    (victim := tmp_path / "victim").write_text("mine")
    (guessed / "server.log").symlink_to(victim)
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(guessed))
    with open(os.devnull, "rb") as source, pytest.raises(FileExistsError):
        ServerLog(source, KEY, "SGLang")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_key_in_a_line_of_any_length_is_left_out(end: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for before in range(_LONGEST_LINE - len(KEY) - 1, _LONGEST_LINE + 2):
        log = written(b"x" * before + 2 * KEY.encode() + b"a\nb" + end)
        assert log.path.read_bytes() == b"x" * before + b"******a\nb" + end
        log.remove()


def test_a_server_is_known_by_a_url_that_has_no_secret() -> None:
    with pytest.raises(ValueError, match="without a password"):
        Server(SGLang(), "http://me:s3cret@127.0.0.1:1")
    assert not issubclass(TransientError, EngineError)
