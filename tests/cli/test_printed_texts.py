"""What others write is shown, and does nothing else, whatever command prints it."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from odd_texts import SEQUENCES, TAKES_OVER, is_plain
from rich.table import Table

from llmgym.agents import grpo
from llmgym.cli import main
from llmgym.data import preferences
from llmgym.errors import ConfigError, LLMGymError
from llmgym.report.console import make_console, say
from llmgym.visible import visible

pytestmark = pytest.mark.hostile

MODULE = Path(__file__).parent / "hostile_texts.py"
ENV = f"{MODULE}:HostileTexts-v0"
SCORER = f"{MODULE}:hostile_scorer"
FEW = ["--prompts-per-step", "2", "--group-size", "2", "--max-tokens", "8", "--max-failure-rate", "1"]
SHOWN = visible(SEQUENCES["clears the screen"])  # tables cut the rest off
WHOLE = visible(TAKES_OVER.replace("\ud800", "?"))  # as a message has it
NAME = "odd \x1b[2J[b][:smile:]\u202e"  # of a directory


@pytest.mark.parametrize("text", SEQUENCES.values(), ids=SEQUENCES)
def test_a_text_is_shown_wherever_a_console_has_it(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    table.add_column(text, footer=text)
    console.print(text, table, style="bold")
    console.rule(text)
    say(text)
    say(text, stderr=True)
    printed = capsys.readouterr()
    assert is_plain(printed.out)
    assert is_plain(printed.err)
    assert printed.err == visible(text) + "\n"
    assert printed.out.count(visible(text)) >= 6


def test_a_text_is_shown_on_a_terminal_that_has_no_such_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    say("日 \x1b[2J")
    assert written.getvalue() == rb"\u65e5 \x1b[2J" + b"\n"


def test_an_error_says_what_others_wrote_in_plain_text() -> None:
    assert issubclass(ConfigError, LLMGymError)
    assert str(ConfigError(f"got {TAKES_OVER}")) == f"got {visible(TAKES_OVER)}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd") / NAME


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A run in the hostile environment, whose directory has a hostile name; what it prints is plain."""
    words = ["--env", ENV, "--output-dir", str(place), "--steps", "2", "--sample-every", "1", "--eval-episodes", "4"]
    sizes = ["--prompts-per-step", "4", "--group-size", "2", "--max-tokens", "8", "--max-failure-rate", "1"]
    said, stdout = io.StringIO(), sys.stdout
    sys.stdout = said
    try:
        code = grpo.main([*words, *sizes])
    finally:
        sys.stdout = stdout
    assert code == 0, said.getvalue()
    require_plain(said.getvalue())
    assert WHOLE in said.getvalue()
    (path,) = place.iterdir()
    return path


def require_plain(printed: str) -> None:
    found = sorted({ascii(one) for one in printed if not is_plain(one)})
    assert not found, f"{found} in {printed!r}"


def printed_by(capsys: pytest.CaptureFixture[str], *words: str, codes: tuple[int, ...] = (0,)) -> str:
    """Run a command, and return what it printed, which is plain."""
    capsys.readouterr()
    try:
        code = main(list(words))
    except SystemExit as error:
        code = int(error.code or 0)
    printed = capsys.readouterr()
    assert code in codes, printed
    require_plain(printed.out)
    require_plain(printed.err)
    return printed.out + printed.err


@pytest.mark.slow
def test_commands_show_what_an_environment_and_a_scorer_say(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step, out = f"{run}@2", str(tmp_path / NAME)
    assert WHOLE in printed_by(capsys, "play", ENV, "--expert")
    assert SHOWN in printed_by(capsys, "play", ENV, "--expert", "--seed", "1", codes=(0, 1))
    assert visible(NAME) in printed_by(capsys, "compare", f"{run}@1", step, "--metric", "reward", codes=(0, 2))
    assert SHOWN in printed_by(capsys, "compare", step, step, "--metric", f"part {TAKES_OVER}", codes=(0, 2))
    assert SHOWN in printed_by(capsys, "score", step, "--scorer", SCORER)
    assert visible(NAME) in printed_by(capsys, "export", step, "--format", "jsonl", "-o", f"{out}.jsonl")
    assert visible(NAME) in printed_by(
        capsys, "export", step, "--format", "sft", "-o", f"{out}.jsonl", "--where", NAME, codes=(2,)
    )
    assert visible(NAME) in printed_by(capsys, "report", str(run), "-o", f"{out}.html")
    printed_by(capsys, "doctor", str(run))
    evaluation = ["eval", "--env", ENV, "--model", "tiny", "-n", "4", "--max-tokens", "8", "--max-failure-rate", "1"]
    assert SHOWN in printed_by(capsys, *evaluation, "--output-dir", out)
    assert SHOWN in printed_by(capsys, "check", ENV, "--seeds", "1", "--env-kwargs", "fails=true", codes=(0, 1))
    printed_by(capsys, "audit", ENV, "--seeds", "2", codes=(0, 1))
    for command in ("envs", "scorers"):
        printed_by(capsys, command)


@contextmanager
def serving(*words: str) -> Iterator[list[str]]:
    """Give the first line that a command prints which then serves; all that it prints until Ctrl-C comes to be there.

    And all of it is plain.
    """
    command = [sys.executable, "-m", "llmgym.cli", *words]
    paths = os.pathsep.join(map(str, (MODULE.parents[1], *filter(None, sys.path))))  # where odd_texts is
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as process:
        try:
            assert process.stdout is not None
            said = [process.stdout.readline()]
            yield said
            process.send_signal(signal.SIGINT)
            said.append(process.communicate(timeout=60)[0])
        finally:
            process.kill()
    require_plain("".join(said))


@pytest.mark.slow
def test_commands_that_serve_show_what_they_serve_and_what_fails(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / NAME)
    with serving("view", str(tmp_path / NAME), "--no-browser") as said:
        assert visible(NAME) in said[0]
        address = re.search(r"http://\S+", said[0])
        assert address
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address[0]).read()
    connect = pytest.importorskip("websockets.sync.client").connect
    with serving("serve-env", ENV, "--env-kwargs", "fails=true", "--port", "0") as said:
        address = re.search(r"ws://\S+/ws", said[0])
        assert address
        with connect(address[0], proxy=None) as client:
            for message in (
                TAKES_OVER.replace("\ud800", ""),
                json.dumps({"type": TAKES_OVER}),
                json.dumps({"type": "reset", "data": {"seed": 1}}),
                json.dumps({"type": "step", "data": {"message": "hm"}}),
            ):
                client.send(message)
                client.recv(timeout=60)
    assert f"ValueError: {visible(TAKES_OVER)}" in said[1]


@pytest.mark.slow
def test_an_algorithm_of_ones_own_shows_what_an_environment_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--env", ENV, "--output-dir", str(tmp_path / NAME), "--steps", "1", "--sample-every", "1"]
    assert WHOLE in printed_by(capsys, "train", f"{MODULE}:Mine", *words, *FEW, "--eval-episodes", "2")


@pytest.mark.slow
def test_a_report_has_the_texts_of_a_run_spelt_out(run: Path, tmp_path: Path) -> None:
    assert main(["report", str(run), "-o", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert json.dumps(WHOLE)[1:-1].replace("<", "\\u003c") in data
    assert is_plain(str(json.loads(data)).replace("\\\\", ""))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["play", f"{NAME}:Nothing-v0"],
        ["check", NAME],
        ["compare", NAME, NAME],
        ["score", NAME, "--scorer", NAME],
        ["export", NAME, "--format", "sft", "-o", NAME],
        ["export", "x", "--format", NAME, "-o", "y"],
        ["report", NAME],
        ["view", NAME],
        ["doctor", NAME],
        ["init", NAME],
        ["eval", "--model", f"/models/m{NAME}[/b]", "--env", ENV],
        ["eval", "--env", NAME],
        ["grpo", "--model", f"/models/m{NAME}[/b]", "--env", ENV],
        ["grpo", "--env", NAME],
        ["grpo", "--env", ENV, "--env-kwargs", f"{NAME}=1"],
        ["grpo", "--config", NAME],
        ["grpo", f"--{NAME}", "1"],
        ["grpo", "--steps", NAME],
        ["grpo", "--engine", NAME],
        ["grpo", "--env-kwargs", f"a={{{NAME}"],
        ["eval", NAME],
        ["sft", "--data", NAME],
        ["train", f"{NAME}:Mine"],
        [NAME],
    ],
    ids=lambda words: ascii(" ".join(words))[:30],
)
def test_a_mistake_is_explained_in_plain_text(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    printed_by(capsys, *words, codes=(2,))


def test_preferences_are_told_of_in_plain_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preferences.main(["--env", NAME, "--out", str(tmp_path / f"{NAME}.parquet")]) == 2
    require_plain(capsys.readouterr().err)
    with pytest.raises(SystemExit):
        preferences.main([NAME])
    said = capsys.readouterr().err
    require_plain(said)
    assert visible(NAME) in said


@pytest.mark.slow
def test_a_run_is_shown_with_markup_in_the_path_of_its_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from llmgym.config.presets import directory_of

    model = tmp_path / f"m[b]{NAME}[" / "b]"
    shutil.copytree(directory_of("tiny"), model)
    words = ["--model", str(model), "--env", ENV, "--output-dir", str(tmp_path / "runs"), "--steps", "1"]
    assert visible(str(model)) in printed_by(capsys, "grpo", *words, *FEW, "--eval-episodes", "0")
