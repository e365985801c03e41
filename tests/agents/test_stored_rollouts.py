"""A run by halves: episodes are played and stored, and learnt from later, to the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmgym.agents import GRPO
from llmgym.config.presets import directory_of
from llmgym.data.trajectories import read_trajectories
from llmgym.errors import ConfigError, DataError, LLMGymError
from llmgym.train import Result, local_rollouts

SMALL: dict[str, Any] = {"prompts_per_step": 2, "group_size": 4, "max_tokens": 48, "sample_every": 0}
ALONE = {**SMALL, "eval_episodes": 0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return GRPO(output_dir=tmp_path_factory.mktemp("whole"), **ALONE).train(1)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(run / "checkpoint" / "model.safetensors"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_only_plays_stores_the_same_episodes_and_changes_no_weight(
    whole: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = GRPO(output_dir=tmp_path, rollouts_only=True, **ALONE).train(1)
    learnt, played = (read_trajectories(one / "trajectories" / "step-00001.parquet") for one in (whole.path, run.path))
    assert learnt == played
    assert [sorted(one.learnt) for one in played] == [[]] * len(played)
    assert same(weights(run.path), dict(load_file(Path(directory_of("tiny")) / "model.safetensors")))
    assert run.metrics[0]["untrained"] == 1.0
    printed = capsys.readouterr().out
    assert "The episodes of 1 step are stored; --rollouts-from RUN learns from them." in printed
    assert "Nothing was learnt" not in printed
    assert " kl " not in printed


def test_what_is_stored_teaches_what_it_taught_and_no_engine_is_made(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_rollouts, "make_engine", None)
    run = GRPO(output_dir=tmp_path, rollouts_from=whole.path, steps=1, **SMALL).train()
    assert run.before is None
    assert same(weights(run.path), weights(whole.path))
    assert not same(weights(run.path), dict(load_file(Path(directory_of("tiny")) / "model.safetensors")))
    for name in ("reward", "kl", "grad_norm", "entropy"):
        assert run.metrics[0][name] == whole.metrics[0][name]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 2}, ConfigError, "has the episodes of 1 steps; expected at most as many steps, got 2"),
        (
            {"steps": 1, "group_size": 8},
            DataError,
            "expected 16 episodes, as .* say, got 8",
        ),
        ({"steps": 1, "scorer": "exact"}, ConfigError, "scorer: nothing is played or scored"),
        ({"steps": 1, "eval_episodes": 5}, ConfigError, "eval_episodes: nothing is played"),
        ({"steps": 1, "rollouts_only": True}, ConfigError, "rollouts_only: nothing is played"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    whole: Result, tmp_path: Path, options: dict[str, Any], error: type[LLMGymError], message: str
) -> None:
    with pytest.raises(error, match=message):
        GRPO(output_dir=tmp_path, rollouts_from=whole.path, **{**SMALL, **options}).train()


def test_a_directory_without_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LLMGymError, match="has no episodes; expected a run that played some"):
        GRPO(output_dir=tmp_path, rollouts_from=tmp_path, steps=1, **SMALL).train()
