"""Environments over OpenEnv's WebSocket: ours served, theirs played, and what becomes of a lost connection."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import pytest

import llmgym
from llmgym import cli
from llmgym.calls import Action, ToolCall, as_action, calling
from llmgym.envs.faults import EpisodeLostError
from llmgym.envs.waiting import WaitingRoom
from llmgym.errors import ConfigError, EnvironmentContractError, EnvironmentFailedError
from llmgym.types import Message, Outcome, Said, well_formed

pytest.importorskip("websockets", reason="of the extra `openenv`")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from llmgym.envs.adapters.openenv.environment import OpenEnv
from llmgym.envs.server import LARGEST_MESSAGE, serve_env


@contextmanager
def running(server: Server) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def served(make: Callable[[], gymnasium.Env[str, str]], max_sessions: int = 8) -> Iterator[str]:
    with running(serve_env(make, "test", host="127.0.0.1", port=0, max_sessions=max_sessions)) as address:
        yield address


class Shop(llmgym.TextEnv):
    """Sell what a customer asks for."""

    system_prompt = "You keep a shop."
    max_turns = 5

    def begin(self) -> Said:
        self.stock = {name: int(self.np_random.integers(1, 9)) for name in ("tea", "salt")}
        self.wanted = str(self.np_random.choice(list(self.stock)))
        example = [Message("user", "Any tea?"), Message("assistant", "Let me see.", calls=(ToolCall("count", {}),))]
        return [*example, Message("tool", "4", "count", "call00000"), Message("user", f"How much {self.wanted}?")]

    def respond(self, action: str) -> Outcome:
        return Outcome([Message("user", "Thanks.")], reward=0.25, parts={"spoke": 1.0}, over=action == str(self.amount))

    @property
    def amount(self) -> int:
        return self.stock[self.wanted]

    def count(self, what: str, unit: str | None = None) -> Outcome:
        """Count what there is.

        Args:
            what: A good.
            unit: To count in.
        """
        return Outcome(str(self.stock[what]), reward=0.125, parts={"counted": 1.0})

    tools = (count,)

    def score(self, episode: llmgym.Episode) -> llmgym.Score:
        if episode.turns[-1].action == "no judge":
            return llmgym.Score(None, error="the judge is away")
        right = float(episode.turns[-1].action == str(self.amount))
        return llmgym.Score(right, {"right": right})

    def expert(self) -> Iterator[Any]:
        yield [ToolCall("count", {"what": "tea"}), ToolCall("count", {"what": "salt"})]
        yield str(self.amount)


def triage() -> Any:
    return gymnasium.make("llmgym/AIOpsTriage-v0", disable_env_checker=True)


def replies_on(env: Any, seed: int) -> list[str]:
    """Return an expert's replies on a third of the seeds, and others, among them ones that are cut off."""
    if seed % 3 == 0:
        return [as_action(reply) for reply in env.unwrapped.expert()]
    calls = calling(
        ToolCall("count", {"what": "tea"}), ToolCall("sell", {}), ToolCall("count", {"waht": 1}), said="So."
    )
    rest = ["hm", str(calls), "<tool_call>\n{]\n</tool_call>", "é\ud800 \x1b[2J", "no judge"]
    return rest if seed % 3 == 1 else rest[::-1]


def told(env: Any) -> tuple[Any, ...]:
    inner = env.unwrapped
    return inner.episode.system_prompt, inner.heard, inner.toolbox.schemas, inner.episode.turns, inner.scored


@pytest.mark.parametrize("make", [triage, Shop])
def test_fifty_episodes_through_a_socket_equal_those_played_here(make: Callable[[], Any]) -> None:
    here = make()
    with served(make) as address:
        there = OpenEnv(address)
        for seed in range(50):
            assert there.reset(seed=seed) == here.reset(seed=seed)
            assert told(there) == told(here)
            for reply in replies_on(here, seed):
                last = here.step(reply)
                assert there.step(reply) == last
                assert told(there) == told(here)
                if last[2] or last[3]:
                    break
            assert last[2] or last[3]
        there.close()


def test_a_served_environment_keeps_the_contract() -> None:
    with served(Shop) as address:
        env = llmgym.registry.make_env(f"openenv:{address}", render_mode="ansi")
        llmgym.check_env(env, seeds=5)
        env.close()


def test_calls_in_another_familys_words_reach_the_servers_tools() -> None:
    with served(Shop) as address:
        env = OpenEnv(address)
        env.reset(seed=0)
        _, reward, *_ = env.step(Action('count(what="tea")', "", [ToolCall("count", {"what": "tea"})]))
        env.close()
    assert reward == 0.125
    assert [message.role for message in env.heard] == ["tool"]


def test_a_server_that_is_full_says_so_and_has_room_again_once_an_episode_is_over() -> None:
    with served(Shop, max_sessions=1) as address:
        first, second = OpenEnv(address), OpenEnv(address, room_timeout=0.2)
        first.reset(seed=0)
        with pytest.raises(EnvironmentFailedError, match=r"CAPACITY_REACHED: all 1 sessions are taken"):
            second.reset(seed=0)
        first.release_episode()
        second.reset(seed=0)
        with connect(address, proxy=None) as stranger:
            assert json.loads(stranger.recv(timeout=10))["data"]["code"] == "CAPACITY_REACHED"
        first.close()
        second.close()
        other = OpenEnv(address, room_timeout=10)  # by a socket of its own, once the server sees that the other is gone
        other.reset(seed=0)
        other.close()


def test_more_episodes_than_a_server_has_room_for_wait_for_each_other() -> None:
    async def play(index: int, room: WaitingRoom) -> float:
        await envs.in_turn(room, envs.reset_one, index, index)
        total, over = 0.0, False
        while not over:
            result = await envs.in_turn(room, envs.step_one, index, "hm")
            total, over = total + result.reward, result.terminated or result.truncated
        return total

    async def play_all() -> list[float]:
        async with WaitingRoom(40) as room:
            return await asyncio.gather(*(play(index, room) for index in range(40)))

    with served(Shop, max_sessions=3) as address:
        envs = llmgym.TextVectorEnv([lambda: OpenEnv(address)] * 40)
        assert asyncio.run(play_all()) == [5 * 0.25] * 40
        envs.close()


def test_a_server_that_was_started_again_is_found_again() -> None:
    with served(Shop) as address:
        env, other = OpenEnv(address), OpenEnv(address)
        other.reset(seed=0)
        env.reset(seed=0)
        env.release_episode()
    port = int(address.rpartition(":")[2].removesuffix("/ws"))
    with running(serve_env(Shop, "test", host="127.0.0.1", port=port, max_sessions=2)):
        assert env.reset(seed=3)[0] == Shop().reset(seed=3)[0]
        with pytest.raises(EnvironmentFailedError, match="ws://"):
            other.step("hm")
        other.reset(seed=0)
        env.close()
        other.close()


def test_a_lost_server_costs_the_episode_and_no_score() -> None:
    with served(Shop) as address:
        envs = llmgym.TextVectorEnv([lambda: OpenEnv(address)])
        envs.reset_one(0, seed=0)

    async def step() -> None:
        async with WaitingRoom(1) as room:
            await envs.in_turn(room, envs.step_one, 0, "hm")

    with pytest.raises(EpisodeLostError, match="InfrastructureError") as lost:
        asyncio.run(step())
    assert lost.value.kind == "env_error"
    assert lost.value.infrastructure
    assert envs.envs[0].unwrapped.scored is None


def test_an_environment_that_raises_over_there_is_a_fault_here() -> None:
    class Broken(Shop):
        def respond(self, action: str) -> Outcome:
            raise ValueError("no such shop")

    with served(Broken) as address:
        env = OpenEnv(address)
        env.reset(seed=0)
        with pytest.raises(EnvironmentFailedError, match=r"EXECUTION_ERROR: .*ValueError: no such shop"):
            env.step("hm")
        env.reset(seed=0)
        env.close()


def test_clients_of_an_environment_that_waits_wait_side_by_side() -> None:
    class Slow(Shop):
        blocking = True

        def begin(self) -> Said:
            time.sleep(0.3)
            return super().begin()

    async def reset_all() -> None:
        async with WaitingRoom(8) as room:
            await asyncio.gather(*(envs.in_turn(room, envs.reset_one, index, index) for index in range(8)))

    with served(Slow) as address:
        envs = llmgym.TextVectorEnv([lambda: OpenEnv(address)] * 8)
        began = time.perf_counter()
        asyncio.run(reset_all())
        assert time.perf_counter() - began < 4 * 0.3
        envs.close()


def test_a_page_in_a_browser_is_refused() -> None:
    with served(Shop) as address, pytest.raises(InvalidStatus), connect(address, proxy=None, origin="http://evil.test"):
        pass


def test_a_message_that_is_too_large_ends_the_session() -> None:
    with served(Shop) as address, connect(address, proxy=None) as connection:
        connection.send(json.dumps({"type": "step", "data": {"message": "x" * LARGEST_MESSAGE}}))
        with pytest.raises(ConnectionClosed, match="1009"):
            connection.recv(timeout=10)


@pytest.mark.parametrize("address", ["banana", "ws:///ws", "ftp://here/ws"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"expected an address such as ws://127\.0\.0\.1:8000/ws"):
        llmgym.registry.make_env(f"openenv:{address}")


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        env = OpenEnv(f"ws://127.0.0.1:{free.getsockname()[1]}/ws", action_field="message")
        with pytest.raises(EnvironmentFailedError, match=r"ws://127\.0\.0\.1:\d+/ws: ConnectionRefusedError"):
            env.reset(seed=0)


def test_the_command_line_serves_until_it_is_interrupted() -> None:
    command = [
        sys.executable,
        "-m",
        "llmgym.cli",
        "serve-env",
        "AIOpsTriage",
        "--env-kwargs",
        "language=zh",
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        found = re.fullmatch(r"AIOpsTriage at (ws://127\.0\.0\.1:\d+/ws), for 64 clients at a time\n", said)
        assert found
        here = gymnasium.make("llmgym/AIOpsTriage-v0", language="zh", disable_env_checker=True)
        env = OpenEnv(found[1])
        assert env.reset(seed=4)[0] == here.reset(seed=4)[0]
        page = found[1].replace("ws:", "http:").removesuffix("/ws")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{page}/health") as health:
            assert json.load(health) == {"status": "healthy"}
        server.send_signal(signal.SIGINT)
        try:
            assert server.wait(timeout=30) == 130
        finally:
            server.kill()
        env.close()


def test_the_command_line_says_what_it_cannot_serve_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve-env", "AIOpsTriaje"]) == 2
    assert "Did you mean 'AIOpsTriage'" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert cli.main(["serve-env", "AIOpsTriage", "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["serve-env", "AIOpsTriage", "--port", "65536"])
    assert "expected a port from 0 to 65535, got '65536'" in capsys.readouterr().err


# Servers that know nothing of llmgym.


@contextmanager
def foreign(answers: Callable[[dict[str, Any]], dict[str, Any]], action: dict[str, Any]) -> Iterator[str]:
    """Serve a function of the protocol's messages."""

    def handle(connection: ServerConnection) -> None:
        for message in connection:
            if (request := json.loads(message))["type"] == "close":
                break
            connection.send(json.dumps(answers(request)))

    def pages(connection: ServerConnection, request: Any) -> Any:
        return None if request.path == "/ws" else connection.respond(200, json.dumps({"action": action}))

    with running(serve(handle, "127.0.0.1", 0, process_request=pages)) as address:
        yield address


TEXT = {"properties": {"guess": {"type": "string"}, "metadata": {"type": "object"}}, "required": ["guess"]}
MOVE = {"properties": {"row": {"type": "integer"}, "column": {"type": "integer"}}, "required": ["row", "column"]}


def observation(said: Any, reward: Any = None, done: bool = False) -> dict[str, Any]:
    return {"type": "observation", "data": {"observation": said, "reward": reward, "done": done}}


def test_a_reply_is_the_one_text_that_an_action_needs() -> None:
    heard: list[Any] = []

    def answers(request: dict[str, Any]) -> dict[str, Any]:
        heard.append(request)
        return observation({"text": "Guess!"}) if request["type"] == "reset" else observation({"text": ""}, True, True)

    with foreign(answers, TEXT) as address:
        env = OpenEnv(address, reset={"size": 3})
        assert env.reset(seed=7, options={"level": 2})[0] == "Guess!"
        _, reward, terminated, _, info = env.step("a\nb")
        assert (reward, terminated, info) == (1.0, True, {})  # it declares no success
        env.reset()
        env.close()
    assert heard[:2] == [
        {"type": "reset", "data": {"size": 3, "level": 2, "seed": 7}},
        {"type": "step", "data": {"guess": "a\nb"}},
    ]
    assert 0 <= heard[2]["data"]["seed"] < 2**31


def test_an_action_of_several_fields_is_json_and_the_agent_is_told_so() -> None:
    def answers(request: dict[str, Any]) -> dict[str, Any]:
        if request["type"] == "step" and set(request["data"]) != {"row", "column"}:
            return {"type": "error", "data": {"code": "VALIDATION_ERROR", "message": "Invalid", "errors": ["row?"]}}
        return observation({"board": [["x", None]]}, reward=None if request["type"] == "reset" else -0.5)

    with foreign(answers, MOVE) as address:
        env = OpenEnv(address)
        assert env.reset(seed=0)[0] == '{"board": [["x", null]]}'
        assert '"required": ["row", "column"]' in str(env.episode.system_prompt)
        for reply in ("middle", "[1]", '{"row": NaN}'):
            said, reward, over, _, info = env.step(reply)
            assert said.startswith("Reply with one JSON object of this schema")
            assert (reward, over, info) == (0.0, False, {"openenv/refused": 1.0})
        said, reward, over, _, info = env.step('{"row": 1}')
        assert (said, reward, over, info) == ('This action was refused: ["row?"]', 0.0, False, {"openenv/refused": 1.0})
        _, reward, *_ = env.step('Here:\n```json\n{"row": 1, "column": 0}\n```')
        assert reward == -0.5
        env.close()


def test_what_the_agent_is_shown_can_be_chosen() -> None:
    with foreign(lambda request: observation({"prompt": "Rules.", "messages": [1]}), TEXT) as address:
        assert OpenEnv(address).reset(seed=0)[0] == "Rules."
        assert OpenEnv(address, observation_field="messages").reset(seed=0)[0] == "[1]"
        with pytest.raises(ConfigError, match=r"no field 'message'.* Did you mean 'messages'"):
            OpenEnv(address, observation_field="message").reset(seed=0)


@pytest.mark.parametrize(
    "answer",
    [
        observation("text"),
        observation({"text": ""}, reward="high"),
        observation({"text": "", "metadata": {"llmgym": 2}}),
    ],
)
def test_a_server_that_answers_something_else_is_refused(answer: dict[str, Any]) -> None:
    with foreign(lambda request: observation({}) if request["type"] == "reset" else answer, TEXT) as address:
        env = OpenEnv(address)
        env.reset(seed=0)
        with pytest.raises(EnvironmentContractError, match="server"):
            env.step("hm")
        env.close()


@pytest.mark.parametrize("answer", [[], {}, {"type": "error", "data": {"code": "SESSION_ERROR", "message": "gone"}}])
def test_an_answer_that_is_no_observation_is_a_failure_of_the_server(answer: Any) -> None:
    with foreign(lambda request: answer, TEXT) as address, pytest.raises(EnvironmentFailedError, match="ws://"):
        OpenEnv(address).reset(seed=0)


# OpenEnv's own client and server.


def test_openenvs_own_client_plays_fifty_episodes_of_ours() -> None:
    generic = pytest.importorskip("openenv.core.generic_client", reason="openenv-core is not installed")
    here = Shop()
    with served(Shop) as address, generic.GenericEnvClient(address.removesuffix("/ws")).sync() as there:
        for seed in range(50):
            assert there.reset(seed=seed).observation["content"] == here.reset(seed=seed)[0]
            for number, reply in enumerate(replies_on(here, seed), start=1):
                said, reward, terminated, truncated, _ = here.step(reply)
                result = there.step({"message": well_formed(reply)})
                assert (result.observation["content"], result.reward) == (said, reward)
                assert result.done == (terminated or truncated)
                assert there.state()["step_count"] == number
                if result.done:
                    break


def test_a_server_of_openenvs_own_is_played() -> None:
    http_server = pytest.importorskip("openenv.core.env_server.http_server", reason="openenv-core is not installed")
    interfaces = pytest.importorskip("openenv.core.env_server.interfaces")
    types = pytest.importorskip("openenv.core.env_server.types")
    uvicorn = pytest.importorskip("uvicorn")

    class Guess(types.Action):  # type: ignore[name-defined, misc]
        guess: str

    class Said(types.Observation):  # type: ignore[name-defined, misc]
        text: str

    class Guessing(interfaces.Environment):  # type: ignore[name-defined, misc]
        SUPPORTS_CONCURRENT_SESSIONS = True

        def reset(self, seed: int | None = None, episode_id: str | None = None, **rest: Any) -> Said:
            self._number = (seed or 0) % 5
            return Said(text=f"0 to {rest.get('upto', 4)}?")

        def step(self, action: Guess, timeout_s: float | None = None, **rest: Any) -> Said:
            right = action.guess == str(self._number)
            return Said(text="Yes." if right else "No.", reward=right, done=right)

        @property
        def state(self) -> Any:
            return types.State()

    app = http_server.create_fastapi_app(Guessing, Guess, Said, max_concurrent_envs=2)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    env = OpenEnv(f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/ws", reset={"upto": 4})
    for seed in range(50):
        assert env.reset(seed=seed)[0] == "0 to 4?"
        assert env.step("6")[:3] == ("No.", 0.0, False)
        assert env.step(str(seed % 5))[:3] == ("Yes.", 1.0, True)
    env.close()
    server.should_exit = True
    thread.join()
