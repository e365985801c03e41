"""`llmgym eval --endpoint`: a server's model on the same tasks, whatever the server does."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Said

import llmgym
from llmgym.cli import main
from llmgym.data.trajectories import read_trajectories
from llmgym.rollout.trajectory import Trajectory

Serving = Callable[..., ChatServer]


@pytest.fixture
def serving() -> Iterator[Serving]:
    servers: list[ChatServer] = []

    def serve(model: Callable[[dict[str, Any]], Said], delay: float = 0.0) -> ChatServer:
        servers.append(ChatServer(model, delay))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLMGYM_ENDPOINT_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def evaluate(server: ChatServer, *words: str, code: int = 0, model: str = "gpt") -> Any:
        """Return what the command prints as JSON, or its last line on standard error."""
        command = ["eval", "--endpoint", server.url, "--model", model, "--output-dir", str(tmp_path), "--json"]
        env = [] if "--env" in words else ["--env", "Sums", "--env-kwargs", "difficulty=0"]
        assert main([*command, *env, *words]) == code
        printed = capsys.readouterr()
        return printed.err if code else json.loads(printed.out)[0]

    return evaluate


def asked(body: dict[str, Any]) -> tuple[int, str, int]:
    """Return the terms of a sum, and the operator between them."""
    found = re.search(r"Work out: (\d+) ([+-]) (\d+)", json.dumps(body["messages"]))
    assert found is not None
    return int(found[1]), found[2], int(found[3])


def right(body: dict[str, Any]) -> str:
    """Work a sum out."""
    first, operator, second = asked(body)
    return f"<answer>{first + second if operator == '+' else first - second}</answer>"


def pluses(body: dict[str, Any]) -> str:
    """Work sums out, and differences as if they were sums."""
    first, _, second = asked(body)
    return f"<answer>{first + second}</answer>"


def episodes_in(found: dict[str, Any]) -> list[Trajectory]:
    return [one for file in sorted(Path(found["path"]).glob("*.parquet")) for one in read_trajectories(file)]


# What is asked, and what it comes to.


def test_a_model_is_judged_by_its_environment_and_its_tokens_and_costs_are_the_servers(
    serving: Serving, evaluated: Callable[..., Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server = serving(pluses)
    prices = ("--price-read", "2", "--price-written", "8")
    found = evaluated(server, "-n", "30", "--samples", "2", *prices)
    episodes = episodes_in(found)
    sums = [one.messages[0].content.count(" + ") for one in episodes]
    assert found["success"]["mean"] == pytest.approx(sum(sums) / 60)
    assert found["judged"] == found["episodes"] == 60
    assert [one.succeeded for one in episodes] == [bool(one) for one in sums]
    assert (found["read_tokens"], found["written_tokens"]) == (server.read, server.written)
    assert found["cost"] == pytest.approx((2 * server.read + 8 * server.written) / 1e6)
    assert found["reply_tokens"] == server.written / 60
    assert not any(one.tokens or one.log_probs for one in episodes), "no token that nobody saw"
    assert all(one.written_tokens == one.replies[0].written == 1 for one in episodes)
    command = ["eval", "--endpoint", server.url, "--model", "gpt", "--env", "Sums", "--env-kwargs", "difficulty=0"]
    assert main([*command, *prices, "-n", "30", "--samples", "2", "--output-dir", str(tmp_path)]) == 0
    assert f"{found['cost']:.4g} │" in capsys.readouterr().out
    assert len(server.bodies) == 60, "episodes that are there are not asked for again"


def test_without_prices_no_cost_is_claimed_and_without_counts_no_tokens(
    serving: Serving, evaluated: Callable[..., Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server = serving(right)
    assert evaluated(server, "-n", "3")["cost"] is None
    server.usage = False
    found = evaluated(server, "-n", "4", "--price-read", "2", "--price-written", "8")
    assert found["success"]["mean"] == 1.0
    assert {found[name] for name in ("cost", "read_tokens", "written_tokens", "reply_tokens", "episode_tokens")} == {
        None
    }


def test_sampling_is_passed_on_and_every_reply_has_a_seed_of_its_own(
    serving: Serving, evaluated: Callable[..., Any]
) -> None:
    server = serving(right)
    words = ["--temperature", "0.3", "--top-p", "0.9", "--max-tokens", "77", "--stop", "END", "--top-k", "5"]
    evaluated(server, "-n", "4", "--samples", "2", *words)
    expected = {"model": "gpt", "temperature": 0.3, "top_p": 0.9, "max_tokens": 77, "stop": ["END"], "top_k": 5}
    assert all({name: body[name] for name in expected} == expected for body in server.bodies)
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds)) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)
    evaluated(server, "-n", "8", *words)
    assert sorted(body["seed"] for body in server.bodies[8:]) == sorted(seeds), "by the number of the episode"
    evaluated(server, "-n", "2", "--seed", "1")
    assert not {body["seed"] for body in server.bodies[16:]} & set(seeds)
    assert server.bodies[-1].keys() == {"model", "messages", "max_tokens", "temperature", "seed"}
    evaluated(server, "-n", "2", "--endpoint-kwargs", "seed=null", "reasoning_effort=low")
    assert "seed" not in server.bodies[-1]
    assert server.bodies[-1]["reasoning_effort"] == "low"
    evaluated(server, "-n", "2", "--endpoint-kwargs", "max_tokens=null", "max_completion_tokens=9")
    assert server.bodies[-1].keys() >= {"max_completion_tokens", "seed"}
    assert "max_tokens" not in server.bodies[-1]


def test_the_key_is_from_the_environment_and_nowhere_else(
    serving: Serving, evaluated: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def echo(body: dict[str, Any]) -> str:
        return f"{right(body)} {server.headers[-1]['authorization']}"

    server = serving(echo)
    monkeypatch.setenv("OPENAI_API_KEY", "k3y-of-openai")
    first = evaluated(server, "-n", "2")
    assert server.headers[-1]["authorization"] == "Bearer k3y-of-openai"
    monkeypatch.setenv("LLMGYM_ENDPOINT_KEY", "k3y-of-mine")
    again = evaluated(server, "-n", "2")
    assert again["path"] == first["path"], "the key decides no number"
    assert evaluated(server, "-n", "2", model="other")["path"] != first["path"]
    assert server.headers[-1]["authorization"] == "Bearer k3y-of-mine"
    other = serving(lambda body: (401, {"X-Fault": "wrong key k3y-of-mine"}))
    said = evaluated(other, "-n", "2", "--endpoint-retries", "0", code=2)
    assert "wrong key ***" in said
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(b"k3y" in one for one in [*written, said.encode(), json.dumps(first).encode()])
    assert all("***" in one.messages[-1].content for one in episodes_in(first))


@pytest.mark.parametrize("key", ["answer", "EMPTY", "1"])
def test_a_word_in_place_of_a_key_stays_in_replies(
    key: str, serving: Serving, evaluated: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    found = evaluated(serving(lambda body: f"EMPTY {right(body)}"), "-n", "6")
    assert found["success"]["mean"] == 1.0
    assert all("EMPTY" in one.messages[-1].content for one in episodes_in(found))


def test_no_more_requests_are_under_way_than_are_asked_for(serving: Serving, evaluated: Callable[..., Any]) -> None:
    server = serving(right, delay=0.02)
    evaluated(server, "-n", "40", "--concurrency", "5")
    assert 2 <= server.most_at_once <= 5


def test_several_models_of_an_endpoint_give_one_table(
    serving: Serving, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server = serving(lambda body: right(body) if body["model"] == "org/good" else pluses(body))
    command = ["eval", "--endpoint", server.url, "--env", "Sums", "--env-kwargs", "difficulty=0", "-n", "20"]
    assert main([*command, "--model", "org/good", "bad", "--output-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"│ org/good +│ 1\.000", out)
    assert re.search(r"│ bad +│ 0\.[1-9]", out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--endpoint", "ftp://x"], "endpoint: expected http"),
        (["--endpoint", "http://me:s3cret@host/v1"], "endpoint: expected an address without a password"),
        (["--price-read", "1"], "price_read: is about an endpoint"),
        (["--concurrency", "3"], "concurrency: is about an endpoint"),
        (["--endpoint", "http://127.0.0.1:1/v1"], "model: expected what the endpoint calls its model"),
        (["--endpoint", "http://127.0.0.1:1/v1", "--model", "x", "--engine", "sglang"], "engine: is about a model"),
        (["--endpoint", "http://127.0.0.1:1/v1", "--model", "x", "--history", "template"], "history: is about a model"),
        (["--endpoint", "http://127.0.0.1:1/v1", "--model", "x", "--dtype", "bfloat16"], "dtype: is about a model"),
        (["--endpoint", "http://127.0.0.1:1/v1", "--model", "x", "--endpoint-kwargs", "n=2"], "other fields than n"),
        (["--endpoint", "http://127.0.0.1:1/v1", "--model", "x"], "env: expected an environment"),
    ],
)
def test_an_option_is_effective_or_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *words]) == 2
    assert message in capsys.readouterr().err


# Troubles.


def test_what_can_pass_is_tried_again_and_changes_no_number(serving: Serving, evaluated: Callable[..., Any]) -> None:
    faults: list[Said] = [(429, {"Retry-After": "1"}), (500, {}), (503, {}), (408, {}), (409, {}), (0, {})]

    def shaky(body: dict[str, Any]) -> Said:
        if server.asked[json.dumps(body, sort_keys=True)] == 1 and faults:
            return faults.pop()
        return pluses(body)

    server = serving(shaky)
    begun = time.monotonic()
    found = evaluated(server, "-n", "24")
    assert time.monotonic() - begun >= 1.0, "the server said when to come again"
    assert not faults
    assert len(server.bodies) == 30
    assert found["judged"] == 24
    healthy = evaluated(serving(pluses), "-n", "24")
    for name in ("success", "reward", "parts", "read_tokens", "written_tokens", "no_reply"):
        assert found[name] == healthy[name]


def test_a_faulty_answer_costs_its_own_episode_and_says_why(
    serving: Serving, evaluated: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    faulty: dict[int, Said] = {
        1: b"<html>",
        3: b'{"choices": []}',
        5: b"null",
        7: {"content": None},
        9: {"content": None, "refusal": "I would rather not."},
        11: {"content": "half", "finish_reason": "content_filter"},
        13: (400, {"X-Fault": "this is not allowed"}),
        15: {"content": "", "tool_calls": [{"type": "function"}]},
    }
    order: dict[str, int] = {}
    lock = threading.Lock()

    def model(body: dict[str, Any]) -> Said:
        with lock:
            place = order.setdefault(json.dumps(body, sort_keys=True), len(order))
        return faulty.get(place) or right(body)

    found = evaluated(serving(model), "-n", "20", "--concurrency", "1")
    lost = [one for one in episodes_in(found) if one.score is None]
    assert len(lost) == len(faulty) == found["no_reply"] == found["unscored"]
    assert found["judged"] == 12
    assert found["success"]["mean"] == 1.0
    said = " ".join(one.score_error or "" for one in lost)
    for reason in ("what is no completion", "not allowed", "I would rather not", "content_filter", "no text, but None"):
        assert reason in said
    assert sum(found["reasons"].values()) >= 3
    assert all(one.ending == "no_reply" and one.verdict is None for one in lost)


def test_a_reply_that_was_cut_off_is_counted_and_a_context_that_is_full_is_no_success(
    serving: Serving, evaluated: Callable[..., Any]
) -> None:
    def model(body: dict[str, Any]) -> Said:
        if asked(body)[1] == "+":
            return {"content": "so first of", "finish_reason": "length"}
        return right(body)

    found = evaluated(serving(model), "-n", "20")
    pluses_of = [" + " in one.messages[0].content for one in episodes_in(found)]
    assert found["cut_off"] == sum(pluses_of) / 20 > 0
    assert [one.cut_off for one in episodes_in(found)] == pluses_of
    full: Said = (400, {"X-Fault": "This model's maximum context length is 9 tokens."})
    server = serving(lambda body: full if asked(body)[1] == "+" else right(body))
    found = evaluated(server, "-n", "20", "--max-overlong", "1")
    assert [one.ending == "context" for one in episodes_in(found)] == pluses_of
    assert found["success"]["mean"] == 1 - sum(pluses_of) / 20, "as of a model that runs here"
    assert found["no_reply"] == 0
    assert "max_overlong" in evaluated(serving(lambda body: full), "-n", "5", code=2)


def test_if_nobody_ever_answers_the_command_says_so_and_keeps_nothing(
    serving: Serving, evaluated: Callable[..., Any], tmp_path: Path
) -> None:
    well = False
    server = serving(lambda body: right(body) if well else (404, {"X-Fault": "no such model"}))
    for count in ("3", "40"):
        said = evaluated(server, "-n", count, code=2)
        assert said.splitlines()[-1].startswith("llmgym eval: ")
        assert "no such model" in said
    assert len(server.bodies) <= 3 + 3 * 16, "those who are under way, and nobody else"
    assert not list(tmp_path.rglob("*.parquet"))
    well = True
    assert evaluated(server, "-n", "3")["success"]["mean"] == 1.0


def test_a_server_that_goes_away_ends_the_command_which_goes_on_later(
    serving: Serving, evaluated: Callable[..., Any]
) -> None:
    well = 270

    def model(body: dict[str, Any]) -> Said:
        return pluses(body) if len(server.bodies) <= well else (403, {"X-Fault": "you have paid for no more"})

    server = serving(model)
    said = evaluated(server, "-n", "300", code=2)
    assert "tasks in a row are without a reply" in said
    assert "you have paid for no more" in said
    before, well = len(server.bodies), 10**9
    found = evaluated(server, "-n", "300")
    assert len(server.bodies) - before == 300 - 256, "the first 256 were kept"
    whole = evaluated(serving(pluses), "-n", "300")
    assert found["episodes"] == found["judged"] == 300
    for name in ("success", "reward", "parts", "read_tokens", "written_tokens"):
        assert found[name] == whole[name]


# Several turns, tools, seats.


@llmgym.register_env("Counting-v0")
class Counting(llmgym.TextEnv):
    """Three turns; the last has to say how many words were said before."""

    top_score = 1.0
    max_turns = 3

    def begin(self) -> list[llmgym.Message]:
        self.episode.system_prompt = "Count."
        shown = [llmgym.Message("user", "ready?"), llmgym.Message("assistant", "yes")]
        return [*shown, llmgym.Message("user", f"{self.np_random.integers(9)} go")]

    def respond(self, action: str) -> str | None:
        return "and on" if len(self.episode.turns) < 3 else None

    def score(self, episode: llmgym.Episode) -> float:
        return float(episode.actions == ["3", "5", "7"])


def test_the_whole_conversation_is_sent_at_every_turn(serving: Serving, evaluated: Callable[..., Any]) -> None:
    def model(body: dict[str, Any]) -> str:
        return str(sum(len(one["content"].split()) for one in body["messages"] if one["role"] == "user"))

    server = serving(model)
    found = evaluated(server, "-n", "5", "--env", "Counting-v0")
    assert found["success"]["mean"] == 1.0
    roles = ["system", "user", "assistant", "user", "assistant", "user", "assistant", "user"]
    longest = [body["messages"] for body in server.bodies if len(body["messages"]) == len(roles)]
    assert len(longest) == 5
    assert [[one["role"] for one in messages] for messages in longest] == [roles] * 5
    assert {one["content"] for messages in longest for one in messages[4:7:2]} == {"3", "5"}
    assert len({body["seed"] for body in server.bodies}) == 15
    bounded = evaluated(server, "-n", "5", "--env", "Counting-v0", "--max-episode-tokens", "2")
    assert {one.ending for one in episodes_in(bounded)} == {"max_tokens"}
    assert bounded["success"] is None, "no episode came to its end"
    assert bounded["written_tokens"] == 10
    server.usage = False
    words = ["-n", "1", "--env", "Counting-v0", "--max-episode-tokens", "9"]
    assert "max_episode_tokens: expected none" in evaluated(server, *words, code=2)


@pytest.mark.parametrize("how", ["calls", "text"])
def test_tools_are_sent_and_calls_come_back_as_actions(
    how: str, serving: Serving, evaluated: Callable[..., Any]
) -> None:
    def model(body: dict[str, Any]) -> Said:
        told = [one["content"] for one in body["messages"] if one["role"] == "tool"]
        if told and "error" not in told[-1]:
            return f"<answer>{told[-1]}</answer>"
        first, operator, second = asked(body)
        arguments = json.dumps({"expression": f"{first} {operator} {second}"})
        if how == "text":
            return f'<tool_call>\n{{"name": "calculator", "arguments": {arguments}}}\n</tool_call>'
        if len(body["messages"]) == 1:
            arguments = "{}" if operator == "+" else '{"expression": 2'  # both are told what is wrong, and try again
        call = {"id": "call_zX81-long-id-of-theirs", "type": "function"}
        return {"content": None, "tool_calls": [{**call, "function": {"name": "calculator", "arguments": arguments}}]}

    server = serving(model)
    found = evaluated(server, "-n", "12", "--env-kwargs", "difficulty=0", "calculator=true")
    assert found["no_reply"] == 0, found["reasons"]
    assert found["success"]["mean"] == 1.0
    assert all(body["tools"][0]["function"]["name"] == "calculator" for body in server.bodies)
    assert found["parts"]["tools/failures"]["mean"] == (1.0 if how == "calls" else 0.0)
    assert found["parts"]["tools/calls"]["mean"] == (2.0 if how == "calls" else 1.0)


def test_all_seats_of_a_game_are_played_by_the_endpoint(serving: Serving, evaluated: Callable[..., Any]) -> None:
    found = evaluated(serving(lambda body: "check"), "-n", "6", "--env", "KuhnPoker", "--env-kwargs", "opponent=self")
    assert {one.seat for one in episodes_in(found)} == {0, 1}


# What reads the episodes.


def test_what_an_endpoint_played_is_compared_exported_and_scored_again(
    serving: Serving, evaluated: Callable[..., Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good, bad = evaluated(serving(right), "-n", "40"), evaluated(serving(pluses), "-n", "40")
    assert main(["compare", bad["path"], good["path"], "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["difference"] == pytest.approx(1.0 - bad["success"]["mean"])
    assert compared["found"]
    assert {flip["divergence"]["token"] for flip in compared["flips"]} == {None}
    assert main(["compare", bad["path"], good["path"]]) == 0
    assert "They part at reply 1:" in capsys.readouterr().out

    (tmp_path / "rewards.py").write_text(
        "import llmgym\n\n\n@llmgym.register_scorer('terse')\ndef terse(episode):\n"
        "    return {'terse': 1.0 / len(episode.actions[-1])}\n"
    )
    assert main(["score", good["path"], "--scorer", f"{tmp_path}/rewards.py:terse", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    lengths = [len(one.messages[-1].content) for one in episodes_in(good)]
    assert scored["after"]["reward"] == pytest.approx(sum(1 / length for length in lengths) / 40)
    assert scored["changed"] == scored["unfinished"] == 0

    lines = tmp_path / "lines.jsonl"
    assert main(["export", bad["path"], "--format", "jsonl", "-o", str(lines), "--where", "tokens == 1"]) == 0
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) == 40
    assert {row["tokens"] for row in rows} == {1}
    for form in ("sft", "kto", "prompts"):
        assert main(["export", good["path"], "--format", form, "-o", str(tmp_path / f"{form}.parquet")]) == 0


@pytest.mark.slow
def test_an_endpoint_is_compared_with_a_model_that_runs_here(
    serving: Serving, evaluated: Callable[..., Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    there = evaluated(serving(right), "-n", "6")
    words = ["--env", "Sums", "--env-kwargs", "difficulty=0", "-n", "6", "--max-tokens", "20"]
    assert main(["eval", "--model", "tiny-tools", *words, "--output-dir", str(tmp_path), "--json"]) == 0
    here = json.loads(capsys.readouterr().out)[0]
    assert here["read_tokens"] is here["cost"] is None
    assert main(["compare", here["path"], there["path"], "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["tasks"] == 6
    assert compared["second"]["mean"] == 1.0
