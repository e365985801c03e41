"""The examples do what they say, at a size that a test can wait for."""

import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_reward_model_example_goes_from_preferences_to_a_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example: dict[str, Any] = runpy.run_path(str(EXAMPLES / "reward_model.py"))
    rewards = example["learn_rewards"](pairs=12, held_out=4, batch_size=4, steps=1)
    assert rewards.after.episodes == 4
    small = {"steps": 1, "prompts_per_step": 2, "group_size": 4, "eval_episodes": 4, "max_tokens": 48}
    result = example["learn_from_rewards"](rewards, **small)
    assert "acc_main" in result.after.parts
    assert result.metrics[0]["scores_missing"] == 0


def test_a_loss_learns_in_a_loop_of_ones_own_and_the_docs_show_that_loop(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "own_loop.py"))
    losses = [float(line.split()[3].rstrip(",")) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True)
    code = (EXAMPLES / "own_loop.py").read_text(encoding="utf-8").split("\n", 2)[2]
    assert code in (EXAMPLES.parent / "docs" / "algorithms" / "README.md").read_text(encoding="utf-8")
