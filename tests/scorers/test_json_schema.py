"""Replies that have to be JSON of a given shape: strict JSON, the schema, and nothing fetched from anywhere."""

import importlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import hostile
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgym.envs.waiting import settled
from llmgym.errors import ConfigError, DataError
from llmgym.scorers import ask, isolated, resolve_scorer
from llmgym.scorers.json_schema import JsonSchema, strict
from llmgym.types import Episode, Turn

TRIAGE = {
    "type": "object",
    "properties": {"service": {"type": "string"}, "minutes": {"$ref": "#/$defs/count"}},
    "required": ["service"],
    "additionalProperties": False,
    "$defs": {"count": {"type": "integer", "minimum": 0}},
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("ab\n\"'漢"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["service", "minutes", "x"]), inner),
    max_leaves=8,
)


def told(schema: Any, *replies: str) -> float:
    (score,) = JsonSchema(schema).score([Episode(turns=[Turn("?", reply) for reply in replies])])
    assert score.value is not None
    return score.value


@given(VALUES)
def test_any_value_is_read_as_it_was_written_and_judged_as_the_package_does(value: Any) -> None:
    text = json.dumps(value)
    assert strict(text) == value
    assert told(TRIAGE, text) == float(jsonschema.Draft202012Validator(TRIAGE).is_valid(value))
    assert told(True, f" \n```json\n{json.dumps(value, indent=1)}\n```\n") == 1.0


@settings(max_examples=100)
@given(hostile.texts())
def test_any_text_is_1_or_0_and_1_only_if_python_reads_it_too(reply: str) -> None:
    found = told(True, reply)
    assert found in (0.0, 1.0)
    if found:
        json.loads(reply.strip().removeprefix("```json").removesuffix("```"))


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e999",
        "[-1e999]",
        "1" * 301,
        "-" + "9" * 5000,
        '{"a": 1, "a": 1}',
        '[{"b": {"a": 1, "a": 2}}]',
        '"\\ud800"',
        '{"\\udc00": 1}',
        '"\ud800"',
        "[" * 51 + "]" * 51,
        "[" * 100_000,
        "[" * 40_000 + "]" * 40_000,
        '{"a":' * 9_000 + "1" + "}" * 9_000,
        '"' + "a" * 100_000 + '"',
        "1 2",
        "01",
        "1.",
        "+1",
        "'a'",
        "[1,]",
        "// one\n1",
        "\ufeff1",
        "\u00a01",
        '"a\nb"',
        '"\0"',
        "So: 1",
        "```\n1\n```",
        "```json\n1",
        "So:\n```json\n1\n```",
        "```json\n1\n```\nDone.",
        "```json\n1\n```\n```json\n1\n```",
        "```json 1```",
    ],
)
def test_what_is_no_strict_json_or_not_alone_is_0(reply: str) -> None:
    assert told(True, reply) == 0.0


@pytest.mark.parametrize(
    "reply", ["1", " \t\r\n1\n", "1e308", "9" * 300, "[" * 50 + "]" * 50, '"\\ud83d\\ude00"', "-0"]
)
def test_what_is_strict_json_is_1(reply: str) -> None:
    assert told(True, "no", reply) == 1.0
    assert told(False, reply) == 0.0


def test_numbers_that_no_float_can_divide_are_no_error() -> None:
    for schema in ({"multipleOf": 0.01}, {"multipleOf": 1e-300}, {"multipleOf": 3}, {"maximum": 1e308}):
        for reply in ("9" * 300, "1e308", "-1e308", "5e-324", "0"):
            assert told(schema, reply) in (0.0, 1.0)


def test_ten_megabytes_take_no_time() -> None:
    start = time.perf_counter()
    for reply in ("[" * 10_000_000, "1" * 10_000_000, "```json\n" * 1_250_000):
        assert told(True, reply) == 0.0
    assert time.perf_counter() - start < 2.0


def test_a_schema_is_read_from_a_file_by_name(tmp_path: Path) -> None:
    file = tmp_path / "triage.json"
    file.write_text(json.dumps(TRIAGE), encoding="utf-8")
    scorer = resolve_scorer(f"json_schema:{file}")
    good, bad = (Episode(turns=[Turn("?", reply)]) for reply in ('{"service": "a", "minutes": 3}', '{"minutes": 3}'))
    for one in (scorer, isolated(scorer, workers=1, timeout=20.0)):
        assert [score.value for score in settled(ask(one, [good, bad], [0, 0]))] == [1.0, 0.0]


def test_a_file_that_holds_no_schema_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*absent\.json"):
        resolve_scorer(f"json_schema:{tmp_path}/absent.json")
    for content in (b"", b"{", b"3", b'{"type": 3}', b'{"a": 1, "a": 2}', b"\xff", b'{"minimum": 1e999}'):
        file = tmp_path / "bad.json"
        file.write_bytes(content)
        with pytest.raises((ConfigError, DataError), match=r"bad\.json"):
            resolve_scorer(f"json_schema:{file}")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "text"}, "not valid under any of the given schemas"),
        ({"pattern": "("}, "is not a 'regex'"),
        ({"$schema": "https://example.org/mine"}, r"its \$schema is unknown"),
        ({"$schema": 3}, r"its \$schema is unknown"),
        ({"$ref": "#/$defs/absent"}, "leads to nothing"),
        ({"items": {"anyOf": [{"$ref": "#absent"}]}}, "leads to nothing"),
        ({"$ref": "#"}, "refers to itself without an end"),
        ({"$ref": "http://["}, "leads to nothing"),
        ({"minimum": float("nan")}, "no strict JSON"),
        ({"minimum": 10**400}, "no strict JSON"),
        ({"const": {1, 2}}, "no strict JSON"),
    ],
)
def test_what_is_no_schema_is_refused_when_the_scorer_is_made(schema: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JsonSchema(schema)


@pytest.mark.parametrize(
    "address", ["http://localhost:{}/a.json", "https://localhost:{}/a.json", "file:///etc/hostname"]
)
@pytest.mark.parametrize(
    "draft", ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"]
)
def test_nothing_is_fetched(address: str, draft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("it connects")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    reference = {"$ref": address.format(1)}
    for schema in (reference, {"properties": {"a": reference}}, {"$id": address.format(1), "$ref": "b.json"}):
        with pytest.raises(ConfigError, match="nothing is fetched"):
            JsonSchema({"$schema": draft, **schema})


def test_the_drafts_themselves_can_be_referred_to() -> None:
    schema = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert (told(schema, '{"type": "string"}'), told(schema, '{"type": "text"}')) == (1.0, 0.0)


def test_the_extra_is_named_where_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ConfigError, match=r"No module named 'jsonschema'.*pip install 'llmgym-rl\[json-schema\]'"):
        JsonSchema({})


def test_a_catastrophic_pattern_of_a_schema_costs_one_score_in_a_worker() -> None:
    scorer = isolated(JsonSchema({"pattern": "^(a|aa)+$"}), workers=1, timeout=3.0)
    episodes = [Episode(turns=[Turn("?", json.dumps(text))]) for text in ("aa", "a" * 100 + "b", "b")]
    assert [score.value for score in settled(ask(scorer, episodes, [0] * 3))] == [1.0, None, 0.0]
