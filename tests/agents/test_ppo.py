"""PPO from end to end: what `complete` makes of rewards, values and turns, and short real runs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_model
from tensordict import TensorDict
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import llmgym
from llmgym.agents import PPO
from llmgym.agents.ppo import main
from llmgym.demo.tiny import CHATML
from llmgym.engines.base import Completion
from llmgym.errors import ConfigError
from llmgym.rollout.trajectory import Trajectory

SMALL: dict[str, Any] = {"prompts_per_step": 2, "group_size": 4, "eval_episodes": 0, "max_tokens": 48}


def episode(
    mask: list[int], rewards: dict[int, float], *, scored: bool = True, row_starts: tuple[int, ...] = (0,)
) -> Trajectory:
    """An episode with replies where the mask says so, earning `rewards` at the index of a reply's last token."""
    trajectory = Trajectory(seed=0, group=0)
    spans: list[list[int]] = []
    for index, sampled in enumerate(mask):
        if sampled and (not spans or spans[-1][1] != index):
            spans.append([index, index])
        if sampled:
            spans[-1][1] = index + 1
    for start, stop in spans:
        trajectory.observe([7] * (start - len(trajectory.tokens)))
        trajectory.act(Completion(0, [5] * (stop - start), [-1.0] * (stop - start), "stop", 0))
        trajectory.replies[-1].reward = rewards.get(stop - 1, 0.0)
    trajectory.observe([7] * (len(mask) - len(trajectory.tokens)))
    trajectory.score = sum(rewards.values()) if scored else None
    trajectory.row_starts = list(row_starts)
    return trajectory


class ValueTable(nn.Module):
    """A critic that reads its values from a table; rows are found by their order in the batch."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.table = values
        self.row = 0

    def values(self, batch: TensorDict) -> torch.Tensor:
        rows, width = batch["mask"].shape
        values = self.table[self.row : self.row + rows, :width]
        self.row += rows
        return values


def completed(trajectories: list[Trajectory], values: list[list[float]], **options: Any) -> TensorDict:
    """What PPO makes of episodes whose values are given."""
    agent = PPO(**{**SMALL, "micro_batch_tokens": 8, **options})
    batch = agent.prepare(trajectories)
    if agent.needs_reference:
        batch["ref_log_probs"] = batch["log_probs"] - 0.5 * batch["mask"]  # the policy finds each token likelier
    width = batch["mask"].shape[1]
    table = torch.tensor([[*row, *[9.0] * (width - len(row))] for row in values])
    agent.trainer.learner.loss.critic_network = ValueTable(table)
    agent.complete(batch, agent.trainer.learner)
    return batch


# The fixture: values at observation positions (9 and 7) have no part in anything.
MASK, VALUES = [0, 1, 1, 0, 1, 1, 0], [8.0, 0.5, 0.4, 9.0, 0.3, 0.2, 7.0]
ADVANTAGES = [0.40065, 0.527, 0.66, 0.8]
SAMPLED = torch.tensor(MASK, dtype=torch.bool)


def test_observations_between_turns_neither_decay_nor_bootstrap() -> None:
    batch = completed([episode(MASK, {5: 1.0})], [VALUES])
    returns = batch["value_target"][0]
    expected = torch.tensor(ADVANTAGES)
    torch.testing.assert_close(returns[SAMPLED] - torch.tensor(VALUES)[SAMPLED], expected, atol=1e-5, rtol=0)
    assert not returns[~SAMPLED].any()
    whitened = (expected - expected.mean()) / expected.std()
    torch.testing.assert_close(batch["advantage"][0, SAMPLED], whitened, atol=1e-4, rtol=0)
    assert not batch["advantage"][0, ~SAMPLED].any()


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.99, 0.0)])
def test_returns_of_ragged_turns_with_rewards_of_their_own_equal_the_recursion(gamma: float, lam: float) -> None:
    rng = torch.Generator().manual_seed(3)
    masks = [[0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0], [0, 1, 0, 1, 0, 1, 0]]
    rewards: list[dict[int, float]] = [{3: 0.5, 5: -0.25, 10: 1.0}, {3: 0.7}, {}, {1: 1.0, 3: 2.0, 5: -3.0}]
    values = [torch.randn(len(mask), generator=rng).tolist() for mask in masks]
    episodes = [episode(mask, earned) for mask, earned in zip(masks, rewards, strict=True)]
    batch = completed(episodes, values, gamma=gamma, lam=lam)
    for row, mask in enumerate(masks):
        advantage = value_behind = 0.0
        for t in reversed([t for t, sampled in enumerate(mask) if sampled]):
            delta = rewards[row].get(t, 0.0) + gamma * value_behind - values[row][t]
            advantage, value_behind = delta + gamma * lam * advantage, values[row][t]
            assert batch["value_target"][row, t].item() == pytest.approx(advantage + values[row][t], abs=1e-5)
    mask = batch["mask"]
    assert batch["advantage"][mask].mean().item() == pytest.approx(0.0, abs=1e-6)
    assert batch["advantage"][mask].std().item() == pytest.approx(1.0, abs=1e-5)


def test_removing_the_observations_changes_no_advantage_and_no_return() -> None:
    sampled = [value for value, kept in zip(VALUES, MASK, strict=True) if kept]
    long = completed([episode(MASK, {2: 0.25, 5: 1.0})], [VALUES])
    short = Trajectory(seed=0, group=0)
    short.observe([7])
    for length, reward in ((2, 0.25), (2, 1.0)):
        short.act(Completion(0, [5] * length, [-1.0] * length, "stop", 0))
        short.replies[-1].reward = reward
    short.score = 1.25
    bare = completed([short], [[8.0, *sampled]])
    for key in ("advantage", "value_target"):
        torch.testing.assert_close(bare[key][0, 1:], long[key][0, SAMPLED])


def test_the_rows_of_an_episode_are_one_sequence() -> None:
    whole = completed([episode(MASK, {2: 0.25, 5: 1.0})], [VALUES])
    parted = completed([episode(MASK, {2: 0.25, 5: 1.0}, row_starts=(0, 3))], [VALUES[:3], VALUES[3:]])
    for key in ("advantage", "value_target"):
        torch.testing.assert_close(parted[key][parted["mask"]], whole[key][whole["mask"]])


def test_an_episode_without_a_score_has_no_part_in_anything() -> None:
    scored = [episode(MASK, {5: 1.0}), episode(MASK, {2: -1.0})]
    missing = episode(MASK, {5: 1.0}, scored=False)
    expected = completed(scored, [VALUES, VALUES])
    batch = completed([scored[0], missing, scored[1]], [VALUES, VALUES, VALUES])
    for key in ("advantage", "value_target"):
        torch.testing.assert_close(batch[key][[0, 2]], expected[key])
        assert not batch[key][1].any()


def test_permuting_the_episodes_of_a_group_permutes_the_results() -> None:
    episodes = [episode(MASK, {5: 1.0}), episode([0, 1, 1, 1, 0, 0, 1], {6: -0.5}), episode([0, 1], {1: 0.3})]
    values = [VALUES, VALUES[::-1], VALUES]
    expected = completed(episodes, values)
    order = [2, 0, 1]
    batch = completed([episodes[i] for i in order], [values[i] for i in order])
    for key in ("advantage", "value_target"):
        torch.testing.assert_close(batch[key], expected[key][order])


def test_equal_rewards_that_were_foreseen_carry_no_signal() -> None:
    foreseen = [1.0] * len(MASK)
    batch = completed([episode(MASK, {5: 1.0}), episode(MASK, {5: 1.0})], [foreseen, foreseen])
    assert not batch["advantage"].any()
    torch.testing.assert_close(batch["value_target"], batch["mask"].float())


def test_a_divergence_from_the_reference_is_charged_per_token_in_the_reward() -> None:
    batch = completed([episode(MASK, {5: 1.0})], [[0.0] * len(MASK)], kl_coef=0.1, lam=1.0)
    # Each token costs 0.1 nats times 0.5, and is paid for by all tokens up to it.
    torch.testing.assert_close(batch["value_target"][0, SAMPLED], torch.tensor([0.8, 0.85, 0.9, 0.95]))


def test_a_divergence_charged_in_the_loss_leaves_the_rewards_alone() -> None:
    options = {"kl_coef": 0.1, "kl_in": "loss", "lam": 1.0}
    batch = completed([episode(MASK, {5: 1.0})], [[0.0] * len(MASK)], **options)
    assert batch["value_target"][0, SAMPLED].tolist() == [1.0] * 4


# Real runs of a few steps.


@pytest.mark.slow
def test_a_small_run_improves_its_reward(tmp_path: Path) -> None:
    small: dict[str, Any] = {"prompts_per_step": 8, "group_size": 8, "max_tokens": 64, "eval_episodes": 0}
    small |= {"learning_rate": 4e-4, "learning_rate_decay": "none"}
    result = PPO(output_dir=tmp_path, **small).train(steps=9)
    rewards = [metrics["reward"] for metrics in result.metrics]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    losses = [metrics["loss_critic"] for metrics in result.metrics]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


@pytest.mark.parametrize("critic", ["own", "shared"])
def test_the_first_update_starts_from_the_policy_that_sampled_and_from_values_of_zero(
    critic: str, tmp_path: Path
) -> None:
    def near_one(episode: llmgym.Episode) -> float:
        return 1.0 + len(episode.actions[0]) / 1000

    options = {**SMALL, "scorer": near_one, "temperature": 1.5, "updates_per_step": 1, "warmup_steps": 0}
    agent = PPO(output_dir=tmp_path, critic=critic, **options)
    first, second = agent.train(steps=2).metrics
    assert first["clip_fraction"] == first["value_clip_fraction"] == 0.0
    assert first["kl_approx"] == pytest.approx(0.0, abs=1e-5)
    assert first["mismatch/kl"] == pytest.approx(0.0, abs=1e-6)
    assert first["explained_variance"] == pytest.approx(0.0, abs=1e-6)
    assert first["grad_norm"] > 0
    assert first["grad_norm/critic_network"] > 0
    assert second["explained_variance"] != pytest.approx(0.0, abs=1e-6)
    assert second["loss_critic"] < first["loss_critic"]


def test_the_checkpoint_is_the_policys_and_opens_in_transformers(tmp_path: Path) -> None:
    agent = PPO(output_dir=tmp_path, **SMALL)
    result = agent.train(steps=1)
    saved = AutoModelForCausalLM.from_pretrained(result.path / "checkpoint")
    for one, other in zip(saved.parameters(), agent.trainer.student.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_group_of_one_learns_and_several_epochs_move_farther(tmp_path: Path) -> None:
    alone = {**SMALL, "prompts_per_step": 8, "group_size": 1, "output_dir": tmp_path, "warmup_steps": 0}
    (once,) = PPO(**alone).train(steps=1).metrics
    (thrice,) = PPO(**alone, epochs=3).train(steps=1).metrics
    assert once["grad_norm"] > 0
    assert thrice["reward"] == once["reward"]  # of the same episodes
    assert abs(thrice["kl_approx"]) > abs(once["kl_approx"])


@pytest.mark.parametrize("kl_in", ["reward", "loss"])
def test_an_adaptive_coefficient_falls_while_the_divergence_is_below_its_target(kl_in: str, tmp_path: Path) -> None:
    options = {"kl_coef": 0.5, "kl_target": 0.5, "kl_horizon": 16, "kl_in": kl_in, "kl_estimator": "k2"}
    agent = PPO(output_dir=tmp_path, **SMALL, **options)
    first, second = agent.train(steps=2).metrics
    assert first["kl_coef"] == 0.5
    assert second["kl_coef"] == pytest.approx(0.5 * (1 - 0.2 * 8 / 16))  # 8 episodes of a horizon of 16
    assert ("loss_kl_to_ref" in second) == (kl_in == "loss")
    if kl_in == "loss":
        assert second["loss_kl_to_ref"] == pytest.approx(second["kl_coef"] * second["kl_to_ref"], rel=0.2)


def test_a_step_without_a_single_score_changes_no_weight(tmp_path: Path) -> None:
    options = {**SMALL, "scorer": lambda episode: llmgym.Score(None, error="no judge"), "max_failure_rate": 1.0}
    agent = PPO(output_dir=tmp_path, **options)
    before = [parameter.clone() for parameter in agent.trainer.learner.loss.parameters()]
    (metrics,) = agent.train(steps=1).metrics
    assert metrics["scores_missing"] == 8
    for one, other in zip(agent.trainer.learner.loss.parameters(), before, strict=True):
        assert torch.equal(one, other)


def test_adapters_learn_beside_a_critic_with_adapters_of_its_own(tmp_path: Path) -> None:
    agent = PPO(output_dir=tmp_path, lora_rank=4, kl_coef=0.1, **SMALL)
    first, second = agent.train(steps=2).metrics
    assert first["grad_norm/critic_network"] > 0
    learnt = {name for name, p in agent.trainer.learner.loss.named_parameters() if p.requires_grad}
    assert all("lora" in name or name.startswith("critic_network.head") for name in learnt)
    assert second["mismatch/kl"] == pytest.approx(0.0, abs=1e-6)


FORGETFUL = CHATML.replace("message['content']", "(message['content'] if loop.last else message['content'][:9])")


def test_episodes_of_several_rows_are_learnt_from(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    random_model("llama").save_pretrained(tmp_path / "model")
    tokenizer.chat_template, plain = FORGETFUL, tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path / "model")
    tokenizer.chat_template = plain
    options = {**SMALL, "max_tokens": 24, "history": "template", "env": "AIOpsTriage", "model": str(tmp_path / "model")}
    agent = PPO(output_dir=tmp_path / "runs", scorer=lambda e: float(len(e.actions[0])), **options)
    (metrics,) = agent.train(steps=1).metrics
    assert metrics["grad_norm"] > 0
    assert metrics["mismatch/log_ratio_max"] == pytest.approx(0.0, abs=1e-3)


OUT_OF_RANGE = {
    "gamma": 0.0,
    "lam": 1.5,
    "clip_epsilon": (1.0, 0.2),
    "clip_value": 0.0,
    "critic": "none",
    "kl_in": "k1",
}


@pytest.mark.parametrize("option", OUT_OF_RANGE)
def test_options_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        PPO(**{option: OUT_OF_RANGE[option]})


def test_a_target_for_a_coefficient_of_zero_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kl-target", "0.1"]) == 2
    assert "kl_target: steers kl_coef, which is 0" in capsys.readouterr().err


def test_with_a_correction_the_penalty_is_the_training_policys_not_the_samplers() -> None:
    trajectories = [episode([0, 1, 1], {2: 1.0})]
    agent = PPO(kl_coef=0.5, gamma=1.0, lam=1.0, **SMALL)
    agent.trainer.learner.loss.critic_network = ValueTable(torch.zeros(1, 3))
    batch = agent.prepare(trajectories)
    batch["ref_log_probs"] = torch.tensor([[0.0, -2.0, -2.0]])
    batch["old_log_probs"] = torch.tensor([[0.0, -2.0, -2.0]])  # the sampler had -1: it left some tokens out
    agent.complete(batch, agent.trainer.learner)
    assert batch["value_target"][0, 1:].tolist() == [1.0, 1.0]


def test_equal_siblings_teach_a_critic_and_count_as_such() -> None:
    agent = PPO(**SMALL)
    assert agent.teaches([episode([0, 1], {1: 1.0}), episode([0, 1], {1: 1.0})])
    assert not agent.teaches([episode([0, 1], {}, scored=False)])
