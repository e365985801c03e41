"""A data file is data: whatever is in it, it is read as it was written, or refused in a sentence that names it."""

import itertools
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmgym.config import read_yaml
from llmgym.config.sections import Environment, Sampling
from llmgym.data.demonstrations import read_conversations
from llmgym.data.feedback import read_feedback
from llmgym.data.preferences import generate_preferences, read_preferences, write_preferences
from llmgym.data.strict_json import json_object
from llmgym.data.tasks import TaskTable
from llmgym.data.trajectories import SCHEMA, read_trajectories, write_trajectories
from llmgym.errors import ConfigError, DataError, LLMGymError
from llmgym.rollout.trajectory import Reply, Trajectory
from llmgym.types import Message
from llmgym.view.metrics import MetricsFile

pytestmark = pytest.mark.hostile

BROKEN_COPIES = 200  # of each file
SEED = 7


def episodes(count: int = 6) -> list[Trajectory]:
    return [
        Trajectory(
            seed=seed,
            group=seed // 2,
            tokens=[1, 40 + seed, 41, 50, 2],
            mask=[False, False, False, True, True],
            log_probs=[0.0, 0.0, 0.0, -0.5, -0.25],
            replies=[Reply(3, 5, "stop", 4, 0.5)],
            messages=[Message("user", "日志\n" * seed), Message("assistant", "é")],
            parts={"json_ok": 1.0},
            score=0.5,
            ending="terminated",
        )
        for seed in range(count)
    ]


def tasks_in(path: Path) -> Any:
    table = TaskTable(path, skip_bad_rows=True)
    return [(table.prompt(row), table.task(row)) for row in table.rows]


def pairs(path: Path) -> None:
    write_preferences(path, generate_preferences("AIOpsTriage", 4))


def tasks(path: Path) -> None:
    rows = [{"prompt": f"{n} + 1?", "answer": str(n + 1), "notes": {"sizes": [n, None], "x": n / 3}} for n in range(20)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)


def config(path: Path) -> None:
    kwargs = {"difficulty": 2, "weights": {"evidence": 0.25, "words": ["日", "", "a: b"]}, "zero": None}
    path.write_text(Environment(env="AIOpsTriage", env_kwargs=kwargs).to_yaml(), encoding="utf-8")


def settings_of_an_evaluation(path: Path) -> None:
    path.write_text(json.dumps({"env_id": "x", "samples": 4, "data": [["a", 1.5]], "scorer": None}), encoding="utf-8")


def metrics(path: Path) -> None:
    path.write_text("".join(json.dumps({"step": n, "reward": n / 7, "kl": None}) + "\n" for n in range(9)))


def measured(path: Path) -> Any:
    file = MetricsFile(path)
    file.refresh()
    return file.steps


FILES: dict[str, tuple[Callable[[Path], object], Callable[[Path], Any]]] = {
    "step-00001.parquet": (lambda path: write_trajectories(path, episodes()), read_trajectories),
    "pairs.parquet": (pairs, read_preferences),
    "tasks.parquet": (tasks, tasks_in),
    "tasks.jsonl": (tasks, tasks_in),
    "config.yaml": (config, Environment.from_yaml),
    "settings.json": (settings_of_an_evaluation, json_object),
    "metrics.jsonl": (metrics, measured),
}


def read_or_fault(read: Callable[[Path], Any], path: Path) -> Any:
    """Return what is read of a file, or the fault that is found with it, which names the file or an option."""
    try:
        return read(path)
    except LLMGymError as error:
        found = error
    assert str(path) in str(found) or path.suffix == ".yaml"
    return found


def broken(content: bytes) -> Iterator[bytes]:
    """Yield copies of which a few bits are flipped, or a piece is gone, twice there, or something else."""
    chance = random.Random(SEED)
    for number in range(BROKEN_COPIES):
        copy = bytearray(content)
        start = chance.randrange(len(copy))
        stop = min(len(copy), start + chance.randrange(1, 30))
        match number % 6:
            case 0:
                del copy[start:]
            case 1:
                del copy[start:stop]
            case 2:
                copy[start:start] = copy[start:stop]
            case 3:
                copy[start:stop] = chance.randbytes(stop - start)
            case _:
                for _ in range(chance.randrange(1, 6)):
                    # Half of them at the end, where Parquet says what it holds.
                    near = chance.randrange(len(copy)) if chance.random() < 0.5 else -chance.randrange(1, 400)
                    copy[max(near, -len(copy))] ^= 1 << chance.randrange(8)
        yield bytes(copy)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, name: str) -> None:
    write, read = FILES[name]
    path = tmp_path / name
    write(path)
    whole = read(path)
    refused = alike = 0
    for copy in broken(path.read_bytes()):
        path.write_bytes(copy)
        found = read_or_fault(read, path)
        refused += isinstance(found, LLMGymError)
        alike += found == whole
    if path.suffix == ".parquet" and name != "tasks.parquet":  # which have checksums
        assert alike + refused == BROKEN_COPIES
        assert refused > BROKEN_COPIES / 2
    assert alike + refused > 0


# What is whole, and of another kind.


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
LABELS = st.one_of(
    st.binary(max_size=20),
    st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner))
    .map(json.dumps)
    .map(str.encode),
    st.fixed_dictionaries({}, optional={"kind": PLAIN | st.just("trajectories"), "version": PLAIN})
    .map(json.dumps)
    .map(str.encode),
    st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'{"version": ' + b"9" * 5000 + b"}", b"NaN"]),
)


@pytest.mark.slow
@settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(label=LABELS)
@pytest.mark.parametrize(
    ("make", "read"), [(FILES["step-00001.parquet"][0], read_trajectories), (pairs, read_preferences)]
)
def test_metadata_of_another_making_is_refused(
    tmp_path_factory: pytest.TempPathFactory, make: Any, read: Any, label: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "labelled.parquet"
    source = path.with_name(f"{read.__name__}.parquet")
    if not source.exists():
        make(source)
    pq.write_table(pq.read_table(source).replace_schema_metadata({"llmgym": label}), path)
    found = read_or_fault(read, path)
    assert isinstance(found, DataError) or found == read(source)


@pytest.mark.parametrize("read", [read_trajectories, read_preferences, read_conversations, read_feedback, TaskTable])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 40, b"{}\n", b"\x00" * 5000, None])
def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path, read: Any, content: bytes | None) -> None:
    path = tmp_path / "file.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"file\.parquet"):
        read(path)


@pytest.mark.parametrize("read", [read_trajectories, read_preferences, TaskTable, json_object])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "file.parquet"
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"file\.parquet"):
        read(path)
    os.mkfifo(tmp_path / "metrics.jsonl")
    assert measured(tmp_path / "metrics.jsonl") == []


KINDS: list[pa.Array] = [
    pa.array([None], pa.null()),
    pa.array(["text"]),
    pa.array([b"\xff"], pa.binary()),
    pa.array([b"\xff"], pa.binary()).view(pa.string()),
    pa.array([-1], pa.int64()),
    pa.array([2**64 - 1], pa.uint64()),
    pa.array([float("nan")]),
    pa.array([[None]], pa.list_(pa.int32())),
    pa.array([[[1]]]),
    pa.array([[{"role": "nobody", "content": "x"}]]),
    pa.array([[{"role": "user", "content": "x", "tool_calls": [{"id": "a"}]}]]),
    pa.array([[{"start": 0, "stop": 9}]]),
    pa.array([[("a", None)]], pa.map_(pa.string(), pa.float64())),
    pa.array([True]),
    pa.array([np.float16("nan")], pa.float16()),
    pa.array([Decimal("1.5")], pa.decimal128(9, 2)),
    pa.array(["text"]).dictionary_encode(),
    pa.array(["text"], pa.string_view()),
    pa.array([b"\xff" * 16], pa.uuid()),
    pa.array([{"role": "user"}]),
]


@pytest.mark.parametrize("column", [*SCHEMA.names, "another"])
@pytest.mark.parametrize("values", [*KINDS, "none", "twice"], ids=lambda one: str(getattr(one, "type", one))[:30])
def test_another_column_of_trajectories_is_read_or_refused_by_name(
    tmp_path: Path, column: str, values: pa.Array | str
) -> None:
    path = tmp_path / "step.parquet"
    write_trajectories(path, episodes(1))
    table = pq.read_table(path)
    whole = table.drop_columns([column] if column in table.column_names else [])
    if isinstance(values, pa.Array):
        table = whole.append_column(column, values)
    elif values == "none":
        table = whole
    else:
        table = table.append_column(column, pa.array([1])).append_column("another", pa.array([1]))
    pq.write_table(table.replace_schema_metadata(SCHEMA.metadata), path)
    found = read_or_fault(read_trajectories, path)
    assert column in str(found) if isinstance(found, DataError) else isinstance(found[0], Trajectory)


@pytest.mark.parametrize(
    ("read", "column"),
    [
        *((read_preferences, name) for name in ("prompt", "chosen", "rejected", "score_chosen", "margin", "tools")),
        *((read_conversations, name) for name in ("messages", "tools")),
        *((read_feedback, name) for name in ("prompt", "completion", "label", "tools")),
        *((TaskTable, name) for name in ("prompt", "answer", "another")),
    ],
)
@pytest.mark.parametrize("values", KINDS, ids=lambda one: str(one.type)[:30])
def test_another_column_of_a_data_set_is_read_or_its_row_refused(
    tmp_path: Path, read: Any, column: str, values: pa.Array
) -> None:
    path = tmp_path / "rows.parquet"
    columns: dict[str, Any] = {name: ["text"] for name in ("prompt", "answer")}
    if read is read_preferences:
        columns = {name: ["text"] for name in ("prompt", "chosen", "rejected")}
    elif read is read_conversations:
        columns = {"messages": [[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]]}
    elif read is read_feedback:
        columns = {"prompt": ["text"], "completion": ["text"], "label": [True]}
    pq.write_table(pa.table({**columns, column: values}), path)
    found = read_or_fault(read, path)
    assert re.search(rf"\b{column}\b.*\brow 0\b", str(found)) if isinstance(found, LLMGymError) else len(found) == 1


@pytest.mark.parametrize("kept", [0, 1])
def test_a_file_of_any_number_of_episodes_is_one_of_trajectories(tmp_path: Path, kept: int) -> None:
    write_trajectories(tmp_path / "few.parquet", episodes(kept))
    assert read_trajectories(tmp_path / "few.parquet") == episodes(kept)


# YAML.


@pytest.mark.parametrize(
    "text",
    [
        "env: " + "[" * 100_000,
        "env: " + "{a: " * 500 + "1" + "}" * 500,
        "steps: " + "9" * 5000,
        "env_seed: 0x" + "f" * 9000,
        "env_kwargs: {a: 1" + ":59" * 500_000 + "}",
        "seed: 2024-99-99",
        "env: !!bool maybe",
        "env: !!int ''",
        "env: !!timestamp soon",
        "env: !!python/object/apply:os.system [true]",
        "env_kwargs: &a [*a]",
        "env_kwargs: &a {b: *a}",
        "? [1]\n: 2",
        "env: a\nenv: b",
        "env_kwargs: {a: 1, a: 2}",
        "env_kwargs: {a: 2024-01-01}",
        "env_kwargs: {a: .nan}",
        "env_kwargs: {a: !!set {b}}",
        "env_kwargs: {1: 2}",
        "env: \x00",
        "- env",
        "3",
        "\t",
        "a: &a [1,2,3,4,5,6,7,8,9]\n"
        + "".join(f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in itertools.pairwise("abcdefg")),
    ],
    ids=lambda text: text[:24],
)
def test_yaml_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        Environment.from_yaml(path)


def test_yaml_that_is_no_utf_8_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"env: caf\xe9")
    with pytest.raises(ConfigError, match=r"config\.yaml.*utf-8"):
        read_yaml(tmp_path / "config.yaml")


# Arguments of environments from Python.


TEXTS = st.text(st.characters(), max_size=6) | st.text("\x85\u2028\u2029\ufeff\n\t :#'\"&*!-", max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.dates() | st.binary(max_size=3) | st.just({1}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=150, derandomize=True, suppress_health_check=list(HealthCheck))
@given(kwargs=st.dictionaries(TEXTS, VALUES, max_size=3))
def test_arguments_of_an_environment_are_read_back_as_they_are_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kwargs: dict[str, Any]
) -> None:
    try:
        given = Environment.of({"env_kwargs": kwargs})
    except ConfigError:
        return
    path = tmp_path_factory.getbasetemp() / "arguments.yaml"
    path.write_text(given.to_yaml(), encoding="utf-8")
    assert Environment.from_yaml(path).env_kwargs == given.env_kwargs == kwargs
    assert json.loads(json.dumps(given.plain())) == given.plain()


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("nothing to see")


def endless() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "value",
    [object(), Unspeakable(), b"x", float("nan"), float("inf"), {1, 2}, {1: 2}, 10**5000, "\ud800", endless(), print],
    ids=lambda value: type(value).__name__,
)
def test_arguments_that_no_file_gives_back_are_refused_where_they_are_given(value: Any) -> None:
    for nested in (value, [value], {"b": (1, value)}):
        with pytest.raises(ConfigError, match="env_kwargs: Input should "):
            Environment.of({"env_kwargs": {"a": nested}})


def test_tuples_and_paths_are_given_as_files_give_them_back() -> None:
    given = Environment.of({"env_kwargs": {"sizes": (3, [4]), "rows": Path("rows.jsonl")}})
    assert given.env_kwargs == {"sizes": [3, [4]], "rows": "rows.jsonl"}


def test_an_option_that_cannot_be_shown_is_refused_all_the_same() -> None:
    with pytest.raises(ConfigError, match=r"temperature: .*, got a Unspeakable"):
        Sampling.of({"temperature": Unspeakable()})
