"""The server tells what it is asked, to whom it may, and of nothing but its runs."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmgym.cli import main
from llmgym.view import open_runs, serve
from llmgym.view.server import Server

Answer = tuple[int, dict[str, str], str]


@contextmanager
def serving(paths: list[Path], host: str = "127.0.0.1") -> Iterator[Server]:
    runs = open_runs(paths)
    for run in runs:
        run.refresh()
    with serve(runs, host, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(server: Server, path: str, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    found = response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode()
    connection.close()
    return found


@pytest.fixture(scope="module")
def server(real_runs: list[Path]) -> Iterator[Server]:
    with serving(real_runs) as one:
        yield one


def test_pages_and_answers_are_served(server: Server) -> None:
    status, headers, page = get(server, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<title>llmgym view</title>" in page
    assert get(server, "/view.js")[1]["content-type"].startswith("text/javascript")
    assert get(server, "/style.css")[1]["content-type"].startswith("text/css")
    status, headers, text = get(server, "/api/episodes?run=slow&outcome=failure&step=2")
    assert (status, headers["content-type"]) == (200, "application/json; charset=utf-8")
    assert {row["run"] for row in json.loads(text)["rows"]} == {"slow"}


def test_pages_ask_nothing_of_a_network_and_run_no_script_but_their_own(server: Server) -> None:
    texts = {name: get(server, name)[2] for name in ("/", "/view.js", "/style.css")}
    for text in texts.values():
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")
        assert "@import" not in text
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert forbidden not in texts["/view.js"]
    for _, headers, _ in (get(server, "/"), get(server, "/api/runs"), get(server, "/nothing")):
        rules = headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"} <= {*rules}
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[", "localhost.evil"]
)
def test_a_site_that_points_here_is_refused(server: Server, host: str) -> None:
    status, _, text = get(server, "/api/runs", Host=host)
    assert status == 403
    assert "fast" not in text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9999", "[::1]:80", "LOCALHOST:1"])
def test_names_of_this_machine_are_taken_through_any_port(server: Server, host: str) -> None:
    assert get(server, "/api/runs", Host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_changed(server: Server, method: str) -> None:
    assert get(server, "/api/runs", method)[0] == 501


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/../server.py",
        "//etc/passwd",
        "/api/../../config.yaml",
        "/api/episode?run=../fast&step=1&index=0",
        "/script/dom.js",
    ],
)
def test_no_path_leads_to_other_files(server: Server, path: str) -> None:
    status, _, text = get(server, path)
    assert status == 404
    assert "error" in json.loads(text)


def test_a_wrong_question_is_answered_by_a_sentence(server: Server) -> None:
    status, _, text = get(server, "/api/episodes?step=x")
    assert (status, json.loads(text)["error"]) == (400, "step: expected a number, got 'x'.")
    assert get(server, f"/api/episodes?text={'x' * 100_000}")[0] == 414


def test_beyond_this_machine_a_token_is_needed(real_runs: list[Path]) -> None:
    with serving(real_runs, "0.0.0.0") as server:
        assert len(server.token) >= 32
        for path in ("/", "/api/runs", "/view.js", "/?token=wrong", f"/api/runs?token={server.token}", "/?token=%ff"):
            status, _, text = get(server, path)
            assert status == 401
            assert "fast" not in text
        assert server.address.endswith(f"/?token={server.token}")
        status, headers, _ = get(server, f"/?token={server.token}")
        assert (status, headers["location"]) == (303, "/")
        assert "HttpOnly" in headers["set-cookie"]
        assert "SameSite=Lax" in headers["set-cookie"]
        cookie = headers["set-cookie"].partition(";")[0]
        assert get(server, "/api/runs", Cookie=cookie)[0] == 200
        assert get(server, "/api/runs", Cookie=cookie[:-1])[0] == 401
        assert get(server, "/api/runs", Authorization=f"Bearer {server.token}")[0] == 200
        assert get(server, "/api/runs", Authorization=f"Bearer {server.token}", Host="evil.example")[0] == 403
        own = f"{socket.gethostname()}:{server.server_port}"
        assert get(server, "/api/runs", Authorization=f"Bearer {server.token}", Host=own)[0] == 200


def test_every_server_has_a_token_of_its_own(real_runs: list[Path]) -> None:
    with serving(real_runs, "0.0.0.0") as one, serving(real_runs, "0.0.0.0") as other:
        assert one.token != other.token


def test_the_command_serves_without_torch_until_it_is_interrupted(real_runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not needed to view a run')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "llmgym", "view", str(real_runs[0]), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
    assert process.stdout is not None
    try:
        address = next(word for word in process.stdout.readline().split() if word.startswith("http"))
        port = int(address.rstrip("/").rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/api/episode?step=1&index=0", headers={"Host": "localhost"})
        while (response := connection.getresponse()).status == 400:  # until the files are read
            response.read()
            connection.request("GET", "/api/episode?step=1&index=0", headers={"Host": "localhost"})
        assert json.loads(response.read())["step"] == 1
    finally:
        process.send_signal(2)
        assert process.wait(20) == 0
        process.stdout.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "expected the directory of a run, or of an evaluation"),
        (["RUNS"], "it has none of metrics.jsonl, config.yaml, settings.json, trajectories; there are '"),
        (["RUN@1"], "there is no such directory; the pages of 'RUN' show every step."),
        (["RUN", "RUN"], "got one twice"),
        (["RUN", "--host", "192.0.2.1", "--no-browser"], "expected an address to listen on"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    real_runs: list[Path], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    run = str(real_runs[0])
    given = [word.replace("RUNS", str(real_runs[0].parent)).replace("RUN", run) for word in words]
    assert main(["view", *given]) == 2
    assert message.replace("RUN", run) in capsys.readouterr().err


def test_a_port_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["view", "run", "--port", "70000"])
    assert "expected a port from 0 to 65535" in capsys.readouterr().err


def test_answers_are_valid_json_whatever_numbers_say(server: Server) -> None:
    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    for path in ("runs", "metrics", "episodes", "tasks?run=fast&other=slow", "group?step=1&index=0"):
        json.loads(get(server, f"/api/{path}")[2], parse_constant=refuse)
