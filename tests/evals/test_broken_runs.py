"""Whatever a run's files hold, a command that reads them does its work or says in a sentence why not."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from llmgym.agents import GRPO, grpo
from llmgym.cli import main

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
