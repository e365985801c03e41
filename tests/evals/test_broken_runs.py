"""Whatever a run's files hold, a command that reads them does its work or says in a sentence why not."""

import hashlib
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmgym.agents import GRPO, grpo
from llmgym.cli import main
from llmgym.data.trajectories import read_trajectories, write_trajectories
from llmgym.view import open_runs

SMALL = {"prompts_per_step": 2, "group_size": 2, "max_tokens": 48, "sample_every": 0, "eval_episodes": 2, "steps": 1}

TEXTS = [
    b"",
    b"\xff\xfe\x00\n",
    b"[" * 100_000 + b"\n",
    b"9" * 5000 + b"\n",
    b"[1, 2]\n",
    b'{"step": [], "seconds": "x", "env_kwargs": 3, "model": {}, "scorer": [1], "options": {}, "files": {"a": 1}}\n',
    b'{"step": 1, "seconds": -1, "env": 5, "date": [], "history": {}, "epochs": "two", "schema": 1, "files": {}}\n',
    b'{"step": 1, "epochs": [], "success": {}, "advantage": 3, "env_id": [], "schema": 1, "files": {"\\u0000": 1}}\n',
    b'{"\\ud800": "\\ud800", "step": 1' + b"0" * 400 + b', "model": "a\\u0000b", "files": {}, "schema": 1}\n',
]
READ_BY = {
    "metrics.jsonl": ["report", "doctor"],
    "config.yaml": ["report", "doctor", "export", "compare", "score"],
    "environment.json": ["report"],
    "evaluations.json": ["report"],
    "trajectories/step-00001.parquet": ["report", "export", "compare", "score"],
    "checkpoint/complete.json": ["score"],
}
GONE_ON_FROM = [
    *("config.yaml", "checkpoint/complete.json", "checkpoint/llmgym.json"),
    *("checkpoint/state/run.json", "checkpoint/state/state.json"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run, and an evaluation of the bundled model."""
    place = tmp_path_factory.mktemp("whole")
    GRPO(output_dir=place, **SMALL).train().path.rename(place / "run")
    words = ["--model", "tiny", "-n", "2", "--max-tokens", "32", "--output-dir", str(place / "evals")]
    assert main(["eval", *words]) == 0
    next((place / "evals").iterdir()).rename(place / "eval")
    return place


def outcome(*words: str) -> int:
    """Return the exit code of a command, which raises nothing."""
    try:
        return main(list(words))
    except SystemExit as error:
        return int(error.code or 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", READ_BY)
def test_commands_say_what_is_wrong_with_a_file_of_a_run(whole: Path, tmp_path: Path, name: str) -> None:
    run = Path(shutil.copytree(whole / "run", tmp_path / "run"))
    commands = {
        "report": ["report", str(run), "-o", str(tmp_path / "report.html")],
        "doctor": ["doctor", str(run)],
        "export": ["export", f"{run}@1", "--format", "jsonl", "-o", str(tmp_path / "out.jsonl")],
        "compare": ["compare", f"{run}@1", f"{whole / 'run'}@1"],
        "score": ["score", f"{run}@1", "--scorer", "exact_match"],
    }
    for content in TEXTS:
        (run / name).write_bytes(content)
        for command in READ_BY[name]:
            assert outcome(*commands[command]) in (0, 2), (command, content[:40])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["settings.json", "episodes-0000000.parquet"])
def test_commands_say_what_is_wrong_with_a_file_of_an_evaluation(whole: Path, tmp_path: Path, name: str) -> None:
    kept = Path(shutil.copytree(whole / "eval", tmp_path / "eval"))
    for content in TEXTS:
        (kept / name).write_bytes(content)
        compare, score = ["compare", str(kept), str(whole / "eval")], ["score", str(kept), "--scorer", "exact_match"]
        for words in (compare, score, ["report", str(kept), "-o", str(tmp_path / "report.html")]):
            assert outcome(*words) in (0, 2), words


def test_a_score_that_is_no_number_is_refused_with_its_row(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Path(shutil.copytree(whole / "eval", tmp_path / "eval"))
    file = kept / "episodes-0000000.parquet"
    first, second = read_trajectories(file)
    for name, wrong in {
        "score": replace(second, score=math.nan),
        "parts": replace(second, parts={**second.parts, "service": math.inf}),
        "replies": replace(second, replies=[replace(one, reward=-math.inf) for one in second.replies]),
    }.items():
        write_trajectories(file, [first, wrong])
        for words in (["compare", str(kept), str(whole / "eval")], ["score", str(kept), "--scorer", "env", "--json"]):
            assert main(words) == 2
            assert f"Column {name!r}, row 1: expected finite numbers, got" in capsys.readouterr().err


def test_a_copy_beside_the_files_of_an_evaluation_does_not_count(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Path(shutil.copytree(whole / "eval", tmp_path / "eval"))
    shutil.copy(kept / "episodes-0000000.parquet", kept / "episodes-0000000 copy.parquet")
    assert main(["export", str(kept), "--format", "jsonl", "-o", str(tmp_path / "out.jsonl")]) == 0
    assert capsys.readouterr().out.endswith("2 rows from 2 episodes.\n")


def program(place: Path, before: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, after a command of the shell."""
    command = f"{before}; exec {shlex.join([sys.executable, '-m', 'llmgym', *words])}"
    return subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, text=True, check=False)


EVAL = ("eval", "--model", "tiny", "-n", "24", "--max-tokens", "24")


@pytest.mark.slow
def test_an_evaluation_without_room_says_so_and_goes_on_when_there_is_some(tmp_path: Path) -> None:
    full = program(tmp_path, "ulimit -f 4", *EVAL)  # KiB
    assert full.returncode == 2
    assert "expected room for the episodes (File too large)" in full.stderr
    assert program(tmp_path, "true", *EVAL).returncode == 0


@pytest.mark.slow
def test_an_evaluation_of_a_file_whose_environment_prints_is_json_alone_and_scored_by_another_process(
    tmp_path: Path,
) -> None:
    (tmp_path / "greet.py").write_text(
        "import llmgym\n\n\n@llmgym.register_env('Greet-v0')\nclass Greet(llmgym.TextEnv):\n"
        "    def begin(self):\n        print('It begins.')\n        return 'Hello.'\n\n"
        "    def score(self, episode):\n        return float('Hello' in episode.actions[-1])\n"
    )
    evaluated = program(tmp_path, "true", *EVAL, "--env", "greet.py:Greet", "--json")
    assert json.loads(evaluated.stdout)[0]["episodes"] == 24
    (kept,) = (tmp_path / "evals").iterdir()
    scored = program(tmp_path, "true", "score", str(kept), "--scorer", "repetition", "--json")
    assert json.loads(scored.stdout)["episodes"] == 24


def test_a_part_of_what_was_kept_does_not_pass_for_the_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--model", "tiny", "-n", "3", "--max-tokens", "24", "--output-dir", str(tmp_path)]
    assert main(words) == 0
    (file,) = tmp_path.glob("*/episodes-*.parquet")
    write_trajectories(file, read_trajectories(file)[:2])
    assert main(words) == 2
    assert "expected 3 episodes of each seat, got 2" in capsys.readouterr().err
    file.unlink()
    assert main(words) == 0


def test_files_without_episodes_are_told_of(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = Path(shutil.copytree(whole / "eval", tmp_path / "eval"))
    write_trajectories(kept / "episodes-0000000.parquet", [])
    assert main(["compare", str(kept), str(whole / "eval")]) == 2
    assert "expected episodes, got files with none" in capsys.readouterr().err


def test_a_run_whose_options_are_a_pipe_is_refused_and_not_waited_for(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole / "run", tmp_path / "run"))
    (run / "config.yaml").unlink()
    os.mkfifo(run / "config.yaml")
    assert main(["doctor", str(run)]) == 2


def test_a_link_to_nothing_among_the_episodes_is_named(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(whole / "run", tmp_path / "run"))
    (run / "trajectories" / "step-00002.parquet").symlink_to(tmp_path / "gone.parquet")
    assert main(["report", str(run), "-o", str(tmp_path / "report.html"), "--json"]) == 0
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert "step-00002.parquet': expected a file, got a link to none" in fault


def test_a_link_to_nothing_is_forgotten_when_it_has_gone(whole: Path, tmp_path: Path) -> None:
    link = Path(shutil.copytree(whole / "run", tmp_path / "run")) / "trajectories" / "step-00002.parquet"
    link.symlink_to(tmp_path / "gone.parquet")
    (run,) = open_runs([tmp_path / "run"])
    run.refresh()
    assert len(run.faults) == 1
    link.unlink()
    run.refresh()
    assert run.faults == []


@pytest.mark.slow
@pytest.mark.parametrize("name", GONE_ON_FROM)
def test_a_run_goes_on_from_what_is_whole_or_says_why_not(whole: Path, tmp_path: Path, name: str) -> None:
    words = [f"--{key.replace('_', '-')}={value}" for key, value in {**SMALL, "output_dir": tmp_path}.items()]
    for number, content in enumerate(TEXTS[2:8:4]):
        run = Path(shutil.copytree(whole / "run", tmp_path / f"run-{number}"))
        (run / name).write_bytes(content)
        assert grpo.main([*words, "--resume"]) in (0, 2)
        assert outcome("eval", "--model", str(run), "-n", "1", "--output-dir", str(tmp_path / "evals")) in (0, 2)
        for one in tmp_path.iterdir():
            shutil.rmtree(one)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["learner", "steps", "random", "step", "journal", "watches"])
def test_a_state_that_is_signed_and_does_not_fit_is_refused(whole: Path, tmp_path: Path, place: str) -> None:
    run = Path(shutil.copytree(whole / "run", tmp_path / "run"))
    state, mark = run / "checkpoint/state/state.json", run / "checkpoint/complete.json"
    values, signed = json.loads(state.read_text()), json.loads(mark.read_text())
    state.write_text(json.dumps({**values, place: {"learner": 3}}))
    signed["files"]["state/state.json"] = hashlib.sha256(state.read_bytes()).hexdigest()
    mark.write_text(json.dumps(signed))
    words = [f"--{key.replace('_', '-')}={value}" for key, value in {**SMALL, "output_dir": tmp_path / "new"}.items()]
    assert grpo.main([*words, "--resume-from", str(run)]) == 2
