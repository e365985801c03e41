"""verl's advantages, losses, aggregations and divergences: the same values and gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from ragged import Given, ragged, same
from tensordict import TensorDict

from llmgym.config.choices import Aggregation, Estimator, KLEstimator
from llmgym.learn.advantages import ESTIMATORS, gae, whiten
from llmgym.learn.aggregation import token_weights
from llmgym.learn.kl import AdaptiveKL, kl_estimate
from llmgym.learn.losses import CISPOLoss, ClippedPolicyLoss

pytest.importorskip("verl", reason="see `make oracles`")
from verl.trainer.config.algorithm import AlgoConfig
from verl.trainer.ppo import core_algos
from verl.workers.config import ActorConfig

seeds = pytest.mark.parametrize("seed", range(5))
AGGREGATIONS: list[Aggregation] = [
    "token-mean",
    "seq-mean-token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-sum-norm",
]
THEIR_NAMES: dict[Estimator, tuple[str, dict[str, Any]]] = {
    "group_std": ("grpo", {"norm_adv_by_std_in_grpo": True, "epsilon": 0.0}),
    "dr_grpo": ("grpo", {"norm_adv_by_std_in_grpo": False}),
    "rloo": ("rloo", {}),
    "optimal_baseline": ("opo", {}),
    "reinforce_plus_plus": ("reinforce_plus_plus", {}),
    "reinforce_plus_plus_baseline": ("reinforce_plus_plus_baseline", {}),
}


def rewards_by_token(batch: TensorDict) -> torch.Tensor:
    """Each episode's reward on its last sampled token."""
    rewards = torch.zeros(batch["mask"].shape)
    last = batch["mask"].int().cumsum(1).argmax(1)
    rewards[torch.arange(len(batch)), last] = batch["reward"]
    return rewards


@seeds
@pytest.mark.parametrize("name", THEIR_NAMES)
def test_advantages_of_episodes(name: Estimator, seed: int) -> None:
    _, batch = ragged(seed)
    mask = batch["mask"]
    theirs, options = THEIR_NAMES[name]
    estimate = core_algos.get_adv_estimator_fn(theirs)
    by_group = {} if name == "reinforce_plus_plus" else {"index": batch["group"].numpy().astype(np.int64)}
    config = AlgoConfig(gamma=1.0)
    expected, _ = estimate(
        token_level_rewards=rewards_by_token(batch), response_mask=mask.float(), config=config, **by_group, **options
    )
    scored = torch.ones(len(batch), dtype=torch.bool)
    found = ESTIMATORS[name](batch["reward"], batch["group"], scored, mask.sum(1))
    torch.testing.assert_close(found[:, None] * mask, expected * mask, atol=1e-5, rtol=1e-5)


@seeds
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.99, 0.9), (1.0, 1.0), (0.9, 0.0)])
def test_gae_and_whitening(gamma: float, lam: float, seed: int) -> None:
    _, batch = ragged(seed)
    mask = batch["mask"]
    rng = torch.Generator().manual_seed(seed)
    values, rewards = (torch.randn(mask.shape, generator=rng) for _ in range(2))
    expected, their_returns = core_algos.compute_gae_advantage_return(rewards, values, mask.float(), gamma, lam)
    advantages, returns = gae(values, rewards, mask, gamma, lam)
    torch.testing.assert_close(whiten(advantages, mask), expected * mask, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(returns, their_returns * mask, atol=1e-5, rtol=1e-5)


@seeds
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("nothing_sampled", [False, True])
def test_aggregations(aggregation: Aggregation, nothing_sampled: bool, seed: int) -> None:
    policy, batch = ragged(seed)
    if nothing_sampled:
        batch["mask"][2] = False
    theirs = core_algos.agg_loss(policy.log_probs, batch["mask"].float(), aggregation, loss_scale_factor=17)
    weights = token_weights(batch["mask"], aggregation, batch["episode"], loss_scale_factor=17.0)
    same((weights * policy.log_probs).sum(), theirs, policy)


@seeds
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "k1+", "k3+"])
def test_divergences(estimator: KLEstimator, seed: int) -> None:
    policy, batch = ragged(seed)
    theirs = core_algos.kl_penalty(policy.log_probs, batch["ref_log_probs"], estimator)
    ours = kl_estimate(policy.log_probs - batch["ref_log_probs"], estimator)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    same(ours.sum() / ours.numel(), theirs.sum() / theirs.numel(), policy)


def their_loss(name: str, policy: Given, batch: TensorDict, aggregation: str, **options: Any) -> torch.Tensor:
    defaults = {"strategy": "fsdp", "rollout_n": 1, "ppo_micro_batch_size_per_gpu": 1, "clip_ratio_c": 1e9}
    config = ActorConfig(**{**defaults, **options})
    config.global_batch_info["loss_scale_factor"] = 17
    loss, _ = core_algos.get_policy_loss_fn(name)(
        old_log_prob=batch["log_probs"],
        log_prob=policy.log_probs,
        advantages=batch["advantage"],
        response_mask=batch["mask"].float(),
        loss_agg_mode=aggregation,
        config=config,
        rollout_is_weights=batch.get("importance_weight", None),
    )
    return loss


@seeds
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize(
    ("name", "loss_class", "options", "their_options"),
    [
        ("vanilla", ClippedPolicyLoss, {}, {}),
        (
            "vanilla",
            ClippedPolicyLoss,
            {"clip_epsilon": (0.2, 0.28)},
            {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28},
        ),
        ("vanilla", ClippedPolicyLoss, {"dual_clip": 1.3}, {"clip_ratio_c": 1.3}),
        (
            "gspo",
            ClippedPolicyLoss,
            {"ratio": "sequence", "clip_epsilon": (0.05, 0.08)},
            {"clip_ratio_low": 0.05, "clip_ratio_high": 0.08},
        ),
        ("cispo", CISPOLoss, {"clip_epsilon": (0.3, 0.5)}, {"clip_ratio_low": 0.3, "clip_ratio_high": 0.5}),
    ],
    ids=["clip", "clip-higher", "dual clip", "GSPO", "CISPO"],
)
def test_policy_losses(
    name: str,
    loss_class: Any,
    options: dict[str, Any],
    their_options: dict[str, Any],
    weighed: bool,
    aggregation: Aggregation,
    seed: int,
) -> None:
    policy, batch = ragged(seed)
    if weighed:
        batch["importance_weight"] = torch.rand(batch["mask"].shape, generator=torch.Generator().manual_seed(seed))
    loss = loss_class(policy, aggregation=aggregation, loss_scale_factor=17.0, **options)
    same(loss(batch)["loss_objective"], their_loss(name, policy, batch, aggregation, **their_options), policy)


@seeds
def test_the_divergence_in_the_loss(seed: int) -> None:
    policy, batch = ragged(seed)
    ours = ClippedPolicyLoss(policy, kl_coef=0.3, kl_estimator="k2")(batch)["loss_kl_to_ref"]
    penalty = core_algos.kl_penalty(policy.log_probs, batch["ref_log_probs"], "k2")
    same(ours, 0.3 * core_algos.agg_loss(penalty, batch["mask"].float(), "token-mean"), policy)


def test_the_adaptive_coefficient() -> None:
    ours, theirs = AdaptiveKL(0.2, target=0.1, horizon=1000), core_algos.AdaptiveKLController(0.2, 0.1, 1000)
    for kl in (0.05, 0.11, 3.0, 0.0, 0.1):
        ours.update(kl, 64)
        theirs.update(kl, 64)
        assert ours.coefficient == pytest.approx(theirs.value, rel=1e-6)
