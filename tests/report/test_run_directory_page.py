"""docs/run_directory.md says what a run's directory holds, no less and no more."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from llmgym.agents import GRPO
from llmgym.report.metrics import metric_of

PAGE = (Path(__file__).parents[2] / "docs" / "run_directory.md").read_text(encoding="utf-8")
OPTIONS: dict[str, Any] = {
    **{"prompts_per_step": 2, "group_size": 2, "max_tokens": 24, "eval_episodes": 4, "eval_every": 1},
    **{"save_every": 1, "keep": 3, "sample_every": 0, "updates_per_step": 1, "steps": 3},
}


class Poisoned(GRPO):
    """GRPO whose last update has no finite loss."""

    def complete(self, batch: Any, learner: Any) -> None:
        if learner.progress > 0.5:
            batch["advantage"] = batch["advantage"].where(~batch["mask"], float("nan"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that lost its last checkpoint, found the one before it torn, and went on from its first step."""
    output = tmp_path_factory.mktemp("runs")
    path = Poisoned(output_dir=output, **OPTIONS).train().path
    shutil.rmtree(path / "checkpoint")
    with (path / "checkpoints" / "step-00002" / "model.safetensors").open("ab") as file:
        file.write(b"torn")
    Poisoned(output_dir=output, resume=True, **OPTIONS).train()
    return path


def table(title: str) -> dict[str, list[str]]:
    """Return the rows of the first table of a section, by their first cell."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): [cell.strip(" |") for cell in row[1:]] for row in rows}


def test_every_file_of_a_run_is_on_the_page(run: Path) -> None:
    told = {name for name, (_, condition) in table("Files").items() if condition.endswith("is told")}
    known = [
        re.escape(name).replace("NNNNNN", r"\d{6,}").replace("NNNNN", r"\d{5,}")
        for name in table("Files")
        if name not in told
    ]
    known = [one.replace("TIME", r"\d{8}-\d{6}") + (".*" if one.endswith("/") else "") for one in known]
    files = [file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()]
    for file in files:
        assert any(re.fullmatch(one, file) for one in known), f"{file} is not on the page"
    for one in known:
        assert any(re.fullmatch(one, file) for file in files), f"the run has no {one}"


def test_configuration_and_environment_have_the_keys_of_the_page(run: Path) -> None:
    assert set(yaml.safe_load((run / "config.yaml").read_text())) == set(GRPO.config_class.options())
    facts = json.loads((run / "environment.json").read_text())
    assert list(facts) == list(table("environment.json"))
    assert_types(facts, table("environment.json"))


def test_evaluations_have_the_keys_of_the_page(run: Path) -> None:
    found = json.loads((run / "evaluations.json").read_text())
    assert list(found) == ["before training", "after step 1", "after step 2", "after training"]
    for one in found.values():
        assert list(one) == list(table("evaluations.json"))
        assert_types(one, table("evaluations.json"))


def test_lines_of_metrics_are_steps_in_order(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(metric_of(name) for row in rows for name in row)


def test_columns_of_trajectories_are_those_of_the_page_and_of_these_types(run: Path) -> None:
    title = "trajectories/step-NNNNN.parquet"
    schema = pq.read_schema(run / "trajectories" / "step-00001.parquet")
    found = {name: kind for field in schema for name, kind in columns(field.name, field.type)}
    assert {name: cells[0] for name, cells in table(title).items()} == found
    assert schema.metadata[b"llmgym"].decode() in PAGE


def test_a_checkpoint_has_the_files_and_keys_of_the_page(run: Path) -> None:
    checkpoint = run / "checkpoint"
    described = table("A checkpoint")
    assert all((checkpoint / name).is_file() for name in described)
    mark = json.loads((checkpoint / "complete.json").read_text())
    files = {file.relative_to(checkpoint).as_posix() for file in checkpoint.rglob("*") if file.is_file()}
    assert files == {*mark["files"], "complete.json"}
    for name in ("complete.json", "llmgym.json", "state/run.json"):
        keys = json.loads((checkpoint / name).read_text())
        assert set(keys) == set(re.findall(r"`(\w+)`", described[name][0])), name


def columns(name: str, kind: pa.DataType) -> Iterator[tuple[str, str]]:
    """Yield a column and those inside of it, each with its type as the page has it."""
    if pa.types.is_map(kind):
        yield name, f"map of {kind.key_type} to {kind.item_type}"
    elif pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        yield name, "list"
        yield from inner(name, kind.value_type)
    elif pa.types.is_list(kind):
        yield name, f"list of {kind.value_type}"
    elif pa.types.is_struct(kind):
        yield name, "struct"
        yield from inner(name, kind)
    else:
        yield name, str(kind)


def inner(name: str, kind: pa.DataType) -> Iterator[tuple[str, str]]:
    for field in kind:
        yield from columns(f"{name}.{field.name}", field.type)


def assert_types(values: Mapping[str, Any], described: Mapping[str, list[str]]) -> None:
    kinds = {"string": str, "integer": int, "number": (int, float), "object": dict, "list of strings": list}
    for key, value in values.items():
        assert value is None or isinstance(value, kinds[described[key][0]]), key
