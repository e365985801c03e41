"""verl's PPO: the clipped objective, the clipped value loss, and both from rewards of turns on."""

from typing import Any

import pytest
import torch
from ragged import ragged, same
from tensordict import TensorDict, TensorDictBase
from torch import nn

from llmgym.config.choices import Aggregation
from llmgym.learn.advantages import gae, whiten
from llmgym.learn.losses import PPOLoss

pytest.importorskip("verl", reason="see `make oracles`")
from test_verl import AGGREGATIONS, seeds, their_loss
from verl.trainer.ppo import core_algos


class GivenValues(nn.Module):
    """A critic whose values are a leaf of the graph."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)  # [B, T]

    def forward(self, batch: TensorDictBase) -> TensorDictBase:
        return batch.set("state_value", torch.where(batch["mask"], self.values, 0.0)[..., None])


def with_values(batch: TensorDict, seed: int) -> GivenValues:
    """Old values, returns and advantages of rewards per token; and a critic that has moved since."""
    rng = torch.Generator().manual_seed(100 + seed)
    mask = batch["mask"]
    values, rewards, moved = (torch.randn(mask.shape, generator=rng) for _ in range(3))
    advantages, returns = gae(values, rewards, mask, 0.99, 0.9)
    batch["token_reward"], batch["state_value"], batch["value_target"] = rewards, values * mask, returns
    batch["advantage"] = whiten(advantages, mask)
    return GivenValues(values + 0.4 * moved)


def their_value_loss(critic: GivenValues, batch: TensorDict, clip_value: float, aggregation: str) -> torch.Tensor:
    loss, _ = core_algos.compute_value_loss(
        critic.values,
        batch["value_target"],
        batch["state_value"],
        batch["mask"].float(),
        clip_value,
        aggregation,
        loss_scale_factor=17,
    )
    return loss


@seeds
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("clip_value", [0.05, 0.2, 0.5, 10.0])
def test_value_losses(clip_value: float, aggregation: Aggregation, seed: int) -> None:
    policy, batch = ragged(seed)
    critic = with_values(batch, seed)
    options: dict[str, Any] = {"clip_value": clip_value, "aggregation": aggregation, "loss_scale_factor": 17.0}
    ours = PPOLoss(policy, critic, **options)(batch)["loss_critic"]  # type: ignore[arg-type]
    theirs = their_value_loss(critic, batch, clip_value, aggregation)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(loss, critic.values)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)
    assert gradients[0].any()


@seeds
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("high", [0.2, 0.28])
def test_objectives(high: float, aggregation: Aggregation, seed: int) -> None:
    policy, batch = ragged(seed)
    critic = with_values(batch, seed)
    options: dict[str, Any] = {"clip_epsilon": (0.2, high), "aggregation": aggregation, "loss_scale_factor": 17.0}
    ours = PPOLoss(policy, critic, **options)(batch)["loss_objective"]  # type: ignore[arg-type]
    theirs = their_loss("vanilla", policy, batch, aggregation, clip_ratio_low=0.2, clip_ratio_high=high)
    same(ours, theirs, policy)


@seeds
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_divergences_in_the_loss(estimator: Any, seed: int) -> None:
    policy, batch = ragged(seed)
    critic = with_values(batch, seed)
    ours = PPOLoss(policy, critic, kl_coef=0.3, kl_estimator=estimator)(batch)["loss_kl_to_ref"]  # type: ignore[arg-type]
    penalty = core_algos.kl_penalty(policy.log_probs, batch["ref_log_probs"], estimator)
    same(ours, 0.3 * core_algos.agg_loss(penalty, batch["mask"].float(), "token-mean"), policy)
