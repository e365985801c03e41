"""Trackers show every step of a run once, whatever happens to the run, and nothing that they do happens to the run.

With real libraries: `make test-trackers`. Those that are not installed are left out.
"""

import importlib.util
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

os.environ.setdefault("TRACKIO_DIR", tempfile.mkdtemp())  # trackio reads it when it is imported

from llmgym import register_env
from llmgym.agents import GRPO
from llmgym.config.choices import MetricNames, TrackerKind
from llmgym.envs.aiops import AIOpsTriage
from llmgym.errors import ConfigError
from llmgym.evaluate import Evaluation
from llmgym.report.metric_names import renamed
from llmgym.report.trackers.base import Opener, Tracked
from llmgym.train import tracking
from llmgym.train.journal import Journal
from llmgym.train.tracking import Tracking

KINDS = ("tensorboard", "trackio", "wandb", "mlflow")
INSTALLED = tuple(kind for kind in KINDS if importlib.util.find_spec(kind) is not None)
SECRET = "hunter2-and-more"
OPTIONS: dict[str, Any] = {
    **{"prompts_per_step": 2, "group_size": 2, "max_tokens": 24, "eval_episodes": 4, "eval_every": 10},
    **{"save_every": 2, "keep": 2, "sample_every": 0, "steps": 30, "env": "Guarded-v0"},
}
Points = dict[str, list[tuple[int, float]]]


@register_env("Guarded-v0")
class Guarded(AIOpsTriage):
    """Triage that takes a key."""

    def __init__(self, api_key: str, **options: Any) -> None:
        super().__init__(**options)


def begin(output: str) -> None:
    """Train with every tracker that is installed; called in a process that is killed."""
    GRPO(**OPTIONS, output_dir=output, tracker=INSTALLED, env_kwargs={"api_key": SECRET}).train()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A run that was killed after its newest checkpoint and went on, and the ids that trackers gave it first."""
    if not INSTALLED:
        pytest.skip("no tracker is installed")
    output = tmp_path_factory.mktemp("runs")
    program = "import sys, test_tracking; test_tracking.begin(sys.argv[1])"
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", program, str(output), f"api_key={SECRET}"]
    killed = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": search}, stdout=subprocess.DEVNULL)
    until, taken, ids = time.monotonic() + 120, 0, dict[str, str]()
    while not (taken > 2 and taken % 2 and ids.keys() == {*INSTALLED}):  # a step after a checkpoint
        assert killed.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
        taken = sum(file.read_bytes().count(b"\n") for file in output.glob("*/metrics.jsonl"))
        ids = {
            key: one for file in output.glob("*/trackers/ids.json") for key, one in json.loads(file.read_text()).items()
        }
    killed.kill()
    killed.wait()
    (path,) = (one.parent for one in output.glob("*/metrics.jsonl"))
    options = {**OPTIONS, "env_kwargs": {"api_key": SECRET}, "tracker": INSTALLED}
    GRPO(**options, output_dir=output, resume=True).train()
    return path, ids


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_goes_on_is_one_curve_with_every_step_once(kind: str, run: tuple[Path, dict[str, str]]) -> None:
    pytest.importorskip(kind, exc_type=ImportError)
    path, ids = run
    assert json.loads((path / "trackers" / "ids.json").read_text()) == ids
    assert len(list((path / "superseded").glob("*/metrics.jsonl"))) == 1
    found = {"tensorboard": of_tensorboard, "trackio": of_trackio, "wandb": of_wandb, "mlflow": of_mlflow}[kind](path)
    expected: Points = defaultdict(list)
    for line in (path / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if value is not None:
                expected[name].append((row["step"], value))
    for one in json.loads((path / "evaluations.json").read_text()).values():
        expected["eval/success"].append((one["step"], one["success"]))
        expected["eval/reward"].append((one["step"], one["reward"]))
    assert [step for step, _ in expected["seconds"]] == [*range(1, 31)]
    assert [step for step, _ in expected["eval/success"]] == [0, 10, 20, 30]
    if kind == "trackio":  # which has a step of its own
        del expected["step"]
    for name, points in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6), name
    assert {name for name in found if not name.startswith("eval/")} <= expected.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_no_tracker_is_given_a_secret(kind: str, run: tuple[Path, dict[str, str]]) -> None:
    pytest.importorskip(kind, exc_type=ImportError)
    path, _ = run
    places = {"trackio": Path(os.environ["TRACKIO_DIR"]), "mlflow": path.parent / "mlflow.db"}
    place = places.get(kind, path / "trackers" / kind)
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    contents = [file.read_bytes() for file in files]
    assert any(b"prompts_per_step" in content for content in contents)  # options are there
    assert not any(SECRET.encode() in content for content in contents)


def of_tensorboard(path: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path / "trackers" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def of_trackio(path: Path) -> Points:
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage

    (one,) = [one for one in Api().runs("llmgym") if one.name == path.name]
    found: Points = defaultdict(list)
    for row in SQLiteStorage.get_logs("llmgym", one.name, run_id=one.id):
        for name in row.keys() - {"step", "timestamp"}:
            found[name].append((row["step"], row[name]))
    return found


def of_mlflow(path: Path) -> Points:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{path.parent / 'mlflow.db'}")
    (one,) = client.search_runs([client.get_experiment_by_name("llmgym").experiment_id])
    assert one.info.status == "FINISHED"
    names = one.data.metrics
    return {
        name: [(each.step, each.value) for each in client.get_metric_history(one.info.run_id, name)] for name in names
    }


def of_wandb(path: Path) -> Points:
    from wandb.proto import wandb_internal_pb2

    (file,) = (path / "trackers" / "wandb").glob("offline-run-*/run-*.wandb")
    found: Points = defaultdict(list)
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            for name in values.keys() - {"_step", "_runtime", "_timestamp"}:
                found[name].append((record.history.step.num or values.get("_step", 0), values[name]))
    return found


def records(log: bytes) -> Iterator[bytes]:
    """Yield what a file of W&B holds: a log of LevelDB, in blocks of 32 KiB, after a header of seven bytes."""
    at, parts = 7, b""
    while at + 7 <= len(log):
        left = -at % 32768
        if left < 7 and left:
            at += left
            continue
        length, kind = struct.unpack("<HB", log[at + 4 : at + 7])
        parts += log[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


class Kept:
    """A tracker that keeps what it is told."""

    first = 0

    def __init__(self, run: Tracked, earlier: str | None) -> None:
        self.id, self.points = earlier or "new", list[tuple[int, Mapping[str, float]]]()
        self.closed = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.points.append((step, values))

    def close(self) -> None:
        self.closed = True


def sink(opened: Opener, directory: Path, names: MetricNames = "llmgym") -> Tracking:
    return Tracking({"wandb": opened}, Tracked(directory, "mine", "one", {}), names, "Mine-v0")


def kept(directory: Path, cls: type[Kept], names: MetricNames = "llmgym") -> tuple[Tracking, list[Kept]]:
    """Return a sink with a tracker, and where that is found once it is open."""
    made: list[Kept] = []

    def opened(run: Tracked, earlier: str | None) -> Kept:
        made.append(cls(run, earlier))
        return made[0]

    return sink(opened, directory, names), made


def evaluation(step: int) -> Evaluation:
    return Evaluation(10, 0.5, 0.4, 0.6, 0.7, {"success": 0.5, "form": 0.9}, 1, step=step)


def test_what_is_measured_is_told_in_the_order_of_steps(tmp_path: Path) -> None:
    told, made = kept(tmp_path, Kept)
    journal = Journal([told])
    journal.load_state_dict(
        {
            "metrics": [{"step": 1, "reward": 0.1}, {"step": 2, "reward": float("nan")}],
            "evaluations": {"before training": vars(evaluation(0)), "after step 2": vars(evaluation(2))},
        }
    )
    journal.note_step([], {"step": 3, "reward": 0.3})
    journal.note_evaluation("after training", evaluation(3))
    journal.close()
    judged = {"eval/success": 0.5, "eval/reward": 0.7, "eval/part/form": 0.9, "eval/missing": 1.0}
    assert made[0].points == [
        (0, judged),
        (1, {"step": 1, "reward": 0.1}),
        (2, {"step": 2}),
        (2, judged),
        (3, {"step": 3, "reward": 0.3}),
        (3, judged),
    ]
    assert made[0].closed
    assert json.loads((tmp_path / "trackers" / "ids.json").read_text()) == {"wandb": "new"}


def test_a_tracker_that_runs_elsewhere_is_told_only_what_it_has_not(tmp_path: Path) -> None:
    class Elsewhere(Kept):
        first = 2

    told, made = kept(tmp_path, Elsewhere)
    told.catch_up([{"step": step} for step in (1, 2)], {})
    told.close([], {})
    assert [step for step, _ in made[0].points] == [2]


@pytest.mark.parametrize("names", ["trl", "verl"])
def test_trackers_have_the_names_that_are_asked_for(names: MetricNames, tmp_path: Path) -> None:
    told, made = kept(tmp_path, Kept, names)
    row = {"step": 1, "reward": 0.5, "turns": 2.0, "entropy": 0.1, "mine": 3.0}
    told.note_step(1, [], row)
    told.close([], {})
    assert made[0].points == [(1, renamed(row, names, "Mine-v0"))]
    assert "reward" not in made[0].points[0][1]
    assert made[0].points[0][1]["mine"] == 3.0


def test_a_tracker_that_fails_is_told_of_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(Kept):
        def log(self, step: int, values: Mapping[str, float]) -> None:
            raise SystemExit("quota \x1b[2J exceeded")

    for module in ("agent", "tracking"):
        monkeypatch.setattr(f"llmgym.train.{module}.opener", lambda kind: Failing)
    options = {**OPTIONS, "env_kwargs": {"api_key": SECRET}, "tracker": ("wandb",), "output_dir": tmp_path}
    result = GRPO(**options).train(steps=2)
    assert len(result.metrics) == 2
    assert (result.path / "checkpoint" / "complete.json").exists()
    said = capsys.readouterr().out
    assert said.count("The tracker wandb failed and is told nothing more: SystemExit: quota \\x1b[2J exceeded") == 1


def test_a_tracker_that_cannot_be_opened_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(run: Tracked, earlier: str | None) -> Kept:
        raise OSError("no place")

    told = sink(refuse, tmp_path)
    for step in range(3):
        told.note_step(1, [], {"step": step})
    told.close([], {})
    assert capsys.readouterr().out.count("no place") == 1


def test_a_tracker_that_hangs_is_left_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    never = threading.Event()

    class Hanging(Kept):
        def close(self) -> None:
            never.wait()

    monkeypatch.setattr(tracking, "PATIENCE", 0.2)
    told = sink(Hanging, tmp_path)
    told.note_step(1, [], {"step": 1})
    told.close([], {})
    assert "The tracker wandb has not written everything after 0.2 s and is left to itself." in capsys.readouterr().out
    never.set()


def test_a_library_that_is_missing_is_named_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(GRPO, "_make_trainer", None)  # no model is loaded
    options = {**OPTIONS, "env_kwargs": {"api_key": SECRET}, "output_dir": tmp_path}
    with pytest.raises(ConfigError, match=r"wandb cannot be imported .* pip install 'llmgym-rl\[wandb\]'"):
        GRPO(**options, tracker=("wandb",)).train()
    assert not list(tmp_path.iterdir())


def test_every_tracker_has_an_extra_and_is_on_the_page() -> None:
    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (root / "docs" / "trackers.md").read_text()
    assert get_args(TrackerKind) == KINDS
    for kind in KINDS:
        assert kind in extras
        assert f"\n| `{kind}` | `llmgym-rl[{kind}]`, " in page


@pytest.mark.parametrize("option", [{"metric_names": "trl"}, {"tracker_project": "mine"}, {"tracker_name": "one"}])
def test_options_of_trackers_without_a_tracker_are_refused(option: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="expected tracker too"):
        GRPO(env="AIOpsTriage", **option)
