"""Thinning: which episodes of a run stay when not all of them may."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgym.report.thinning import bytes_in, step_of, thin


def write(directory: Path, sizes: list[int]) -> None:
    for step, size in enumerate(sizes, start=1):
        (directory / f"step-{step:05d}.parquet").write_bytes(b"x" * size)


def steps(directory: Path) -> list[int]:
    return sorted(map(step_of, directory.iterdir()))


@pytest.mark.parametrize(
    ("limit", "every", "kept"),
    [
        (100, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (99, 2, [1, 3, 5, 7, 9, 10]),
        (45, 4, [1, 5, 9, 10]),
        (30, 8, [1, 9, 10]),
        (20, 16, [1, 10]),
        (10, 0, [10]),
        (9, 0, []),
        (0, 0, []),
    ],
)
def test_steps_stay_at_the_smallest_power_of_two_that_fits(
    limit: int, every: int, kept: list[int], tmp_path: Path
) -> None:
    write(tmp_path, [10] * 10)
    assert thin(tmp_path, limit) == every
    assert steps(tmp_path) == kept


def test_other_files_stay(tmp_path: Path) -> None:
    write(tmp_path, [10] * 3)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "step-x.parquet").write_text("mine")
    thin(tmp_path, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "step-x.parquet"]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(0, 400))
def test_while_a_run_goes_on_it_keeps_to_the_limit_and_to_its_newest_step_where_that_fits(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int
) -> None:
    directory = tmp_path_factory.mktemp("shards")
    for step, size in enumerate(sizes, start=1):
        (directory / f"step-{step:05d}.parquet").write_bytes(b"x" * size)
        thin(directory, limit)
        assert bytes_in(directory) <= limit
        assert (step in steps(directory)) == (size <= limit)
