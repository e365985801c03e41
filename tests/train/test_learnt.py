"""What the learner found for each token is stored with the episodes, as a plain computation finds it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmgym.agents import GRPO, PPO
from llmgym.config.presets import directory_of
from llmgym.data.trajectories import read_trajectories, write_trajectories
from llmgym.engines.base import Completion
from llmgym.learn.batch import collate
from llmgym.models.causal_lm import load_causal_lm
from llmgym.rollout.trajectory import LEARNT, Trajectory
from llmgym.train.trainer import Result

SMALL: dict[str, Any] = {
    "prompts_per_step": 4,
    "group_size": 4,
    "updates_per_step": 1,
    "max_tokens": 24,
    "eval_episodes": 0,
    "sample_every": 0,
}


def train(agent: type[Any], tmp_path: Path, **options: Any) -> tuple[Result, list[Trajectory]]:
    """Return a run of one step, and its episodes."""
    run = agent(output_dir=tmp_path, temperature=1.3, **{**SMALL, **options}).train(steps=1)
    return run, read_trajectories(run.path / "trajectories" / "step-00001.parquet")


@torch.no_grad()
def plain(episode: Trajectory) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return log-probabilities and entropies of all tokens but the first under the bundled model, by a forward pass."""
    model, _ = load_causal_lm(directory_of("tiny"), torch.float32)
    tokens = torch.tensor([episode.tokens])
    log_p = (model.double()(tokens).logits[0, :-1] / 1.3).log_softmax(-1)
    return log_p.gather(1, tokens[0, 1:, None])[:, 0].numpy(), -(log_p.exp() * log_p).sum(-1).numpy()


@pytest.mark.parametrize(
    ("agent", "options"),
    [(GRPO, {}), (GRPO, {"mismatch_correction": "truncate"}), (PPO, {}), (PPO, {"critic": "shared"})],
)
def test_log_probs_and_entropies_are_those_of_the_policy_before_it_learns(
    agent: type[Any], options: dict[str, Any], tmp_path: Path
) -> None:
    _, episodes = train(agent, tmp_path, **options)
    taught = 0
    for episode in episodes:
        sampled = np.array(episode.mask)
        for name, expected in zip(("learner_log_probs", "entropies"), plain(episode), strict=True):
            found = episode.learnt[name]
            assert not found[~sampled].any()
            if not np.isnan(found[sampled]).any():  # of a group whose scores differ
                taught += 1
                np.testing.assert_allclose(found[1:][sampled[1:]], expected[sampled[1:]], rtol=1e-3, atol=1e-3)
    assert taught > len(episodes) / 4


def test_log_probs_after_an_update_are_no_mismatch(tmp_path: Path) -> None:
    _, episodes = train(GRPO, tmp_path, updates_per_step=2)
    for name, several in (("learner_log_probs", False), ("entropies", True)):
        assert ({episode.group for episode in episodes if name in episode.learnt} == {0, 1, 2, 3}) == several


def test_advantages_are_those_of_the_group(tmp_path: Path) -> None:
    _, episodes = train(GRPO, tmp_path)
    assert any(episode.score for episode in episodes)
    for episode in episodes:
        scores = np.array([one.score for one in episodes if one.group == episode.group], float)
        expected = 0.0 if scores.std() == 0 else (episode.score - scores.mean()) / scores.std(ddof=1)
        found = episode.learnt["advantages"]
        np.testing.assert_allclose(found[np.array(episode.mask)], expected, rtol=1e-4, atol=1e-6)
        assert not found[~np.array(episode.mask)].any()


def test_an_episode_that_nothing_was_learnt_from_has_none(tmp_path: Path) -> None:
    _, episodes = train(GRPO, tmp_path, rollouts_only=True)
    assert [episode.learnt for episode in episodes] == [{}] * len(episodes)


def test_rows_of_an_episode_go_where_they_are_from(tmp_path: Path) -> None:
    episode = Trajectory(seed=1, group=0, score=0.5, ending="terminated", number=0)
    episode.observe([1, 2])
    episode.act(Completion(0, [3, 4], [-0.5, -0.25], "stop", 0))
    episode.start_row([1, 2, 7])
    episode.act(Completion(0, [5], [-0.125], "stop", 0))
    batch = collate([episode])
    assert batch["start"].tolist() == [0, 4]
    episode.note_learnt("entropies", 4, np.array([0.0, 0.0, 0.0, 9.0], np.float32))
    assert np.array_equal(episode.learnt["entropies"], [0, 0, math.nan, math.nan, 0, 0, 0, 9], equal_nan=True)
    write_trajectories(tmp_path / "one.parquet", [episode])
    (found,) = read_trajectories(tmp_path / "one.parquet")
    assert found.learnt.keys() == {"entropies"} < {*LEARNT}
    assert np.array_equal(found.learnt["entropies"], episode.learnt["entropies"], equal_nan=True)
