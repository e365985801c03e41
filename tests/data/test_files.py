"""Files of rows are read as they are: every value, and every fault with its row."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgym.data.demonstrations import read_conversations
from llmgym.data.feedback import read_feedback
from llmgym.data.preferences import read_preferences
from llmgym.data.tasks import TaskTable
from llmgym.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers() | st.floats(allow_nan=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def tasks(path: Path, **options: Any) -> list[dict[str, Any]]:
    table = TaskTable(path, **options)
    return [table.task(row) for row in table.rows]


# JSON lines.


@given(rows=st.lists(st.dictionaries(TEXT, VALUES, max_size=4), min_size=1, max_size=5))
def test_a_row_of_json_lines_is_what_json_says(folder: Path, rows: list[dict[str, Any]]) -> None:
    path = jsonl(folder / "rows.jsonl", [{**row, "prompt": "?"} for row in rows])
    lines = list(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
    columns = dict.fromkeys(name for line in lines for name in line)
    expected = [{**columns, **line, "answer": line["prompt"]} for line in lines]
    assert repr(tasks(path, answer_column="prompt")) == repr(expected)  # where 5, 5.0 and True are apart


def test_a_null_in_a_list_leaves_other_rows_as_they_are(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "answer": [None, n] if n == 0 else [n]} for n in range(1000)]
    assert tasks(jsonl(tmp_path / "rows.jsonl", rows)) == rows


@pytest.mark.parametrize(
    "value", [[None, "a"], [None, {"c": None}], [[None, 1], None], {"b": [None, {"c": [None, 2]}]}]
)
def test_a_null_before_another_element_stays_where_it_is(tmp_path: Path, value: Any) -> None:
    rows = [{"prompt": "q", "answer": value}, {"prompt": "r", "answer": 5}, {"prompt": "s", "answer": 5.5}]
    assert repr(tasks(jsonl(tmp_path / "rows.jsonl", rows))) == repr(rows)


def test_a_column_that_a_line_lacks_is_null(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": 1}, {"prompt": "b", "hint": "c"}])
    assert tasks(path) == [{"prompt": "a", "answer": 1, "hint": None}, {"prompt": "b", "hint": "c", "answer": None}]


def test_nulls_in_messages_of_one_row_change_no_other(tmp_path: Path) -> None:
    first = {"prompt": "p", "chosen": "c", "rejected": "r", "notes": [None, 1]}
    chats = [{"prompt": [{"role": "user", "content": str(n)}], "chosen": "c", "rejected": "r"} for n in range(300)]
    pairs = read_preferences(jsonl(tmp_path / "pairs.jsonl", [first, *chats]))
    assert [pair.prompt[0].content for pair in pairs] == ["p", *map(str, range(300))]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"prompt": "b", "ans', 'expected one object, got \'{"prompt": "b", "ans\' (Unterminated string starting at'),
        (b'{"prompt": "b"} {"prompt": "c"}', "(Extra data at character 17)"),
        (b"[1, 2]", "expected one object, got list"),
        (b"7", "expected one object, got int"),
        (b'{"prompt": "caf\xe9"}', r"expected text in UTF-8, got b'\xe9'"),
        (b'{"prompt": "\xed\xa0\x80"}', "expected text in UTF-8, got"),
        (b'{"prompt": "b", "x": {"y": 1, "y": 2}}', "('y' is there twice)"),
        (
            b'{"prompt": "b", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "(more than 100 values within one another)",
        ),
        (
            b'{"prompt": "b", "x": ' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}",
            "(more than 100 values within one another)",
        ),
        (b'{"prompt": "b", "x": ' + b"9" * 5000 + b"}", "expected one object, got"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:40],
)
def test_a_line_that_is_no_object_is_named_or_left_out(tmp_path: Path, line: bytes, expected: str) -> None:
    path = raw(tmp_path / "rows.jsonl", b'{"prompt": "a"}\n\n' + line + b'\n{"prompt": "z"}\n')
    with pytest.raises(DataError) as error:
        TaskTable(path)
    assert f"{str(path)!r}: Row 1 (line 3) cannot be read as JSON lines: " in str(error.value)
    assert expected in str(error.value)
    table = TaskTable(path, skip_bad_rows=True)
    assert (table.rows.tolist(), table.skipped) == ([0, 2], [str(error.value)])


def test_values_may_be_nested_to_a_depth_of_a_hundred(tmp_path: Path) -> None:
    value: Any = 1
    for _ in range(99):
        value = [value]
    assert tasks(jsonl(tmp_path / "rows.jsonl", [{"prompt": "[" * 500, "x": value}]))[0]["x"] == value


def test_a_byte_order_mark_white_space_and_numbers_that_are_none_are_read(tmp_path: Path) -> None:
    path = raw(tmp_path / "rows.jsonl", b'\xef\xbb\xbf {"prompt": "a", "x": NaN}\r\n \t\r\n{"prompt": "b", "x": 2}')
    first, second = tasks(path)
    assert (first["prompt"], np.isnan(first["x"]), second) == ("a", True, {"prompt": "b", "x": 2})


def test_a_lone_surrogate_is_asked_as_a_question_mark(tmp_path: Path) -> None:
    table = TaskTable(jsonl(tmp_path / "rows.jsonl", [{"prompt": "a\ud800"}]))
    assert (table.prompt(0)[0].content, table.task(0)["prompt"]) == ("a?", "a\ud800")


# Parquet.


@given(
    kept=st.sampled_from([("ns", 62), ("us", 55), ("ms", 45)]).flatmap(  # a thousand years around 1970, or what fits
        lambda unit: st.tuples(st.just(unit[0]), st.integers(-(2 ** unit[1]), 2 ** unit[1]))
    ),
    zone=st.sampled_from([None, "UTC", "Europe/Berlin", "Mars/Phobos"]),
)
def test_a_time_in_parquet_is_text_with_all_its_digits(folder: Path, kept: tuple[Any, int], zone: str | None) -> None:
    unit, count = kept
    path = parquet(folder / "times.parquet", prompt=["?"], answer=pa.array([count], pa.timestamp(unit, zone)))
    moment = str(np.datetime64(count, unit)).replace("T", " ")
    assert tasks(path) == [{"prompt": "?", "answer": moment + "Z" if zone else moment}]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.date32(), "1970-01-04"),
        (pa.time64("ns"), "00:00:00.000000003"),
        (pa.duration("ns"), 3),
        (pa.list_(pa.timestamp("ns")), ["1970-01-01 00:00:00.000000003"]),
        (pa.struct([("at", pa.time64("ns")), ("n", pa.int64())]), {"at": "00:00:00.000000003", "n": 3}),
        (pa.map_(pa.string(), pa.timestamp("ms", "No/Where")), [("at", "1970-01-01 00:00:00.003Z")]),
    ],
    ids=str,
)
def test_times_are_text_wherever_they_are_and_durations_numbers(tmp_path: Path, kind: Any, expected: Any) -> None:
    value = [3] if pa.types.is_list(kind) else {"at": 3, "n": 3} if pa.types.is_struct(kind) else 3
    column = pa.array([[("at", 3)] if pa.types.is_map(kind) else value, None], kind)
    path = parquet(tmp_path / "rows.parquet", prompt=["a", "b"], when=column)
    assert [row["when"] for row in tasks(path)] == [expected, None]


def test_a_date_that_no_calendar_has_stops_no_file(tmp_path: Path) -> None:
    path = parquet(tmp_path / "rows.parquet", prompt=["a", "b"], when=pa.array([2**30, 0], pa.date32()))
    assert [row["when"] for row in tasks(path)] == [f"<value out of range: {2**30}>", "1970-01-01"]


def test_a_value_that_python_has_not_is_named_by_row_and_column(tmp_path: Path) -> None:
    fields = [pa.field("a", pa.int64()), pa.field("a", pa.string())]
    strange = pa.StructArray.from_arrays([pa.array([1, 2]), pa.array(["x", "y"])], fields=fields)
    with pytest.raises(DataError, match=r"rows.parquet': Column 'odd', row 0: expected a value, got none \(ValueError"):
        TaskTable(parquet(tmp_path / "rows.parquet", prompt=["a", "b"], odd=strange))


@pytest.mark.parametrize("order", [("prompt", "completion"), ("completion", "prompt")])
def test_the_order_of_columns_does_not_matter(tmp_path: Path, order: tuple[str, str]) -> None:
    columns = {"prompt": ["asked"], "completion": ["replied"]}
    (one,) = read_conversations(parquet(tmp_path / "rows.parquet", **{name: columns[name] for name in order}))
    assert (one.prompt[0].content, one.completion[0].content) == ("asked", "replied")


def test_columns_that_are_not_read_stop_no_file(tmp_path: Path) -> None:
    bad = pa.array([b"\xff"], pa.binary()).view(pa.string())
    columns = [pa.array([text]) for text in "abc"] + [bad, pa.array([1]), pa.array([2])]
    table = pa.Table.from_arrays(columns, names=["prompt", "chosen", "rejected", "notes", "x", "x"])
    pq.write_table(table, tmp_path / "pairs.parquet")
    assert len(read_preferences(tmp_path / "pairs.parquet")) == 1
    assert len(read_feedback(tmp_path / "pairs.parquet")) == 2


# Columns with one name.


def twice_in_parquet(path: Path, *names: str) -> Path:
    pq.write_table(pa.Table.from_arrays([pa.array([name]) for name in names], names=list(names)), path)
    return path


def twice_in_csv(path: Path, *names: str) -> Path:
    return raw(path, ",".join(names).encode() + b"\n" + b"x," * (len(names) - 1) + b"x\n")


@pytest.mark.parametrize("written", [twice_in_parquet, twice_in_csv])
@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["prompt", "answer", "answer"], "'answer'"),
        (["prompt", "prompt"], "'prompt'"),
        (["prompt", "x", "", "x", ""], "'x', ''"),
    ],
)
def test_columns_of_one_name_are_refused_by_name(
    tmp_path: Path, written: Callable[..., Path], names: list[str], named: str
) -> None:
    path = written(tmp_path / ("rows.csv" if written is twice_in_csv else "rows.parquet"), *names)
    with pytest.raises(DataError, match=f"expected columns of different names, got {named} more than once"):
        TaskTable(path, skip_bad_rows=True)


# CSV.


@given(
    names=st.lists(TEXT.filter(bool), min_size=1, max_size=3, unique=True),
    cells=st.lists(st.lists(TEXT, min_size=4, max_size=4), min_size=1, max_size=4),
    empty=st.integers(0, 3),
)
def test_a_row_of_csv_is_what_was_written(folder: Path, names: list[str], cells: list[list[str]], empty: int) -> None:
    names = ["prompt", *(name for name in names if name != "prompt")]
    rows = [dict(zip(names, ["?", *some], strict=False)) for some in cells]
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, *[""] * empty])
        writer.writerows([*row.values(), *[""] * empty] for row in rows)
    assert tasks(folder / "rows.csv", answer_column="prompt") == [{**row, "answer": "?"} for row in rows]


def test_commas_at_the_ends_of_lines_make_no_column_unless_something_follows(tmp_path: Path) -> None:
    path = raw(tmp_path / "rows.csv", b"prompt,answer,,\na,1,,\nb,2,,\n")
    assert tasks(path) == [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": "2"}]
    assert tasks(raw(path, b",prompt\n0,a\n1,b\n")) == [{"": "0", "prompt": "a"}, {"": "1", "prompt": "b"}]


@pytest.mark.parametrize(("line", "count"), [(b"b,2,3", 3), (b"b", 1)])
def test_a_line_of_csv_that_has_other_cells_than_the_header_is_named_or_left_out(
    tmp_path: Path, line: bytes, count: int
) -> None:
    path = raw(tmp_path / "rows.csv", b"prompt,answer\na,1\n" + line + b'\n"c\nd",4\n')
    with pytest.raises(DataError, match=rf"Row 1 \(line 3\): expected 2 cells, as the header has, got {count}"):
        TaskTable(path)
    table = TaskTable(path, skip_bad_rows=True)
    assert (table.rows.tolist(), len(table.skipped)) == ([0, 2], 1)
    assert table.prompt(2)[0].content == "c\nd"


def test_a_quotation_mark_that_is_not_closed_is_not_taken_for_the_rest_of_the_file(tmp_path: Path) -> None:
    path = raw(tmp_path / "rows.csv", b'prompt,answer\na,1\n"b,2\nc,3\n')
    with pytest.raises(DataError, match=r"rows.csv' cannot be read as CSV: unexpected end of data"):
        TaskTable(path, skip_bad_rows=True)


def test_names_of_columns_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"names of columns: expected text in UTF-8, got b'\\xe9'"):
        TaskTable(raw(tmp_path / "rows.csv", b"prompt,caf\xe9\na,b\n"))


# Text that is not UTF-8.


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_text_that_is_not_utf_8_is_the_fault_of_its_row(tmp_path: Path, suffix: str) -> None:
    texts = [b"caf\xe9" if row == 1500 else b"coffee %d" % row for row in range(2500)]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        parquet(path, prompt=list(map(str, range(2500))), drink=pa.array(texts, pa.binary()).view(pa.string()))
    elif suffix == "csv":
        raw(path, b"prompt,drink\n" + b"".join(b"%d,%s\n" % item for item in enumerate(texts)))
    else:
        raw(path, b"".join(b'{"prompt": "%d", "drink": "%s"}\n' % item for item in enumerate(texts)))
    with pytest.raises(DataError, match=r"[Rr]ow 1500\b.*: expected text in UTF-8, got b'\\xe9'") as error:
        TaskTable(path)
    assert "Column 'drink'" in str(error.value) or suffix == "jsonl"
    table = TaskTable(path, skip_bad_rows=True)
    assert table.skipped == [str(error.value)]
    assert table.rows.tolist() == [row for row in range(2500) if row != 1500]
    assert table.task(1501) == {"prompt": "1501", "drink": "coffee 1501"}


# Calls of tools in prompts.


def called(arguments: Any) -> dict[str, Any]:
    call = {"function": {"name": "disk", "arguments": arguments}}
    return {
        "prompt": [
            {"role": "user", "content": "Full?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "40 %"},
        ]
    }


def test_a_prompt_may_have_calls_and_ends_with_their_answer(tmp_path: Path) -> None:
    rows = [called({"host": "a", "part": [1, {"x": 2}]}), called('{"part": [1, {"x": 2}], "host": "a"}'), called({})]
    for source in rows, jsonl(tmp_path / "rows.jsonl", rows):
        table = TaskTable(source)
        assert [message.role for message in table.prompt(1)] == ["user", "assistant", "tool"]
        assert table.prompt(0)[1].calls[0].arguments == {"host": "a", "part": [1, {"x": 2}]}
        assert table.without_prompts_of(table.only([0])).rows.tolist() == [2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("[" * 100_000, "expected tool_calls as a list of"),
        ('{"a": ' * 100_000, "expected tool_calls as a list of"),
        ('{"a": ' + "[" * 99 + "]" * 99 + "}", "expected at most 64 values within one another"),
        ('{"a": NaN}', "arguments that are no JSON: got float: nan"),
    ],
    ids=lambda value: value[:30],
)
def test_arguments_that_cannot_be_read_are_refused_or_left_out(tmp_path: Path, arguments: str, expected: str) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [called({}), called(arguments)])
    with pytest.raises(DataError, match=f"column 'prompt', row 1: .*{expected}"):
        TaskTable(path)
    assert TaskTable(path, skip_bad_rows=True).rows.tolist() == [0]


def test_tools_that_are_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "c", "rejected": "r", "tools": "[" * 100_000}
    with pytest.raises(DataError, match="Column 'tools', row 0: expected a list of"):
        read_preferences(jsonl(tmp_path / "pairs.jsonl", [row]))
