"""Threads are no more than a container may keep busy."""

from pathlib import Path

import pytest
import torch

from llmgym.models import threads


@pytest.mark.parametrize(
    ("text", "processors"),
    [("max 100000", 2**16), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("odd", 2**16)],
)
def test_a_quota_is_rounded_up_to_whole_processors(text: str, processors: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert threads.quota(tmp_path / "cpu.max") == processors


def test_without_a_cgroup_there_is_no_bound(tmp_path: Path) -> None:
    assert threads.quota(tmp_path / "cpu.max") == 2**16


def test_a_quota_bounds_the_threads_unless_the_user_named_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000")
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "cpu.max")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert threads.use_available_processors() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert threads.use_available_processors() == 1
    finally:
        torch.set_num_threads(before)
