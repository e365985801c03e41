"""The PPO loss: the equation token by token, and nothing but sampled tokens."""

from typing import Any

import pytest
import torch
from conftest import random_model
from tensordict import TensorDict
from test_clipped_policy import Table, table_batch
from test_critic import critic_of
from test_policy import gradient, ragged_batch
from torch import nn
from torch.distributions import Categorical
from torchrl.objectives import ClipPPOLoss

from llmgym.config.choices import TrunkChoice
from llmgym.learn.aggregation import token_weights
from llmgym.learn.batch import micro_batches
from llmgym.learn.critic import Critic
from llmgym.learn.learner import Learner
from llmgym.learn.losses import ClippedPolicyLoss, PPOLoss
from llmgym.learn.policy import Policy


class ValueTable(nn.Module):
    """A critic that reads its values from a table."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)  # [B, T]

    def forward(self, batch: TensorDict) -> TensorDict:
        return batch.set("state_value", torch.where(batch["mask"], self.values, 0.0)[..., None])


def tables(seed: int = 0) -> tuple[Table, ValueTable, TensorDict]:
    policy, batch = table_batch(seed=seed)
    rng = torch.Generator().manual_seed(100 + seed)
    mask = batch["mask"]
    batch["advantage"] = torch.randn(mask.shape, generator=rng) * mask  # another for each token
    batch["value_target"] = torch.randn(mask.shape, generator=rng) * mask
    batch["state_value"] = torch.randn(mask.shape, generator=rng) * mask
    batch["prompt_length"] = torch.ones(len(mask), dtype=torch.long)
    batch["episode"] = torch.arange(len(mask))
    batch["weight"] = token_weights(mask, "token-mean")
    return policy, ValueTable(batch["state_value"] + 0.4 * torch.randn(mask.shape, generator=rng)), batch


def by_hand(
    policy: Table,
    critic: ValueTable,
    batch: TensorDict,
    *,
    clip_epsilon: tuple[float, float] = (0.2, 0.2),
    clip_value: float | None = 0.2,
    value_coef: float = 1.0,
    entropy_coef: float = 0.0,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
) -> torch.Tensor:
    """The equation, token by token."""
    total = torch.zeros(())
    log_probs = policy.logits.log_softmax(-1)
    low, high = clip_epsilon
    for b, t in batch["mask"].nonzero().tolist():
        log_prob = log_probs[b, t, batch["tokens"][b, t]]
        ratio, advantage = (log_prob - batch["log_probs"][b, t]).exp(), batch["advantage"][b, t]
        term = -torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
        value, old, target = critic.values[b, t], batch["state_value"][b, t], batch["value_target"][b, t]
        error = (value - target) ** 2
        if clip_value is not None:
            near = old + (value - old).clamp(-clip_value, clip_value)
            error = torch.max(error, (near - target) ** 2)
        term = term + value_coef * error / 2
        log_ratio = log_prob - batch["ref_log_probs"][b, t]
        divergence = {"k1": log_ratio, "k2": log_ratio**2 / 2, "k3": (-log_ratio).exp() + log_ratio - 1}[kl_estimator]
        entropy = -(log_probs[b, t].exp() * log_probs[b, t]).sum()
        term = term + kl_coef * divergence - entropy_coef * entropy
        total = total + batch["weight"][b, t] * term
    return total


def total_loss(output: TensorDict) -> torch.Tensor:
    return torch.stack([value for key, value in output.items() if key.startswith("loss_")]).sum()


VARIANTS: list[dict[str, Any]] = [
    {},
    {"clip_epsilon": (0.2, 0.28), "clip_value": None},
    {"clip_epsilon": (0.5, 3.0), "clip_value": 0.5, "value_coef": 0.1},
    {"kl_coef": 0.3, "kl_estimator": "k1"},
    {"kl_coef": 0.3, "kl_estimator": "k2", "entropy_coef": 0.01},
    {"kl_coef": 0.3, "kl_estimator": "k3", "clip_value": 0.05},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
def test_value_and_gradients_equal_the_equation(options: dict[str, Any], aggregation: str) -> None:
    policy, critic, batch = tables()
    batch["weight"] = token_weights(batch["mask"], aggregation)  # type: ignore[arg-type]
    actual = total_loss(PPOLoss(policy, critic, **options)(batch))  # type: ignore[arg-type]
    expected = by_hand(policy, critic, batch, **options)
    torch.testing.assert_close(actual, expected)
    learnt = (policy.logits, critic.values)
    of_actual, of_expected = (torch.autograd.grad(loss, learnt) for loss in (actual, expected))
    torch.testing.assert_close(of_actual, of_expected)
    assert all(grad.any() for grad in of_actual)


def test_alone_it_weighs_the_batch_it_is_given() -> None:
    policy, critic, batch = tables()
    loss = PPOLoss(policy, critic, aggregation="seq-mean-token-mean")  # type: ignore[arg-type]
    batch["importance_weight"] = torch.rand(batch["mask"].shape, generator=torch.Generator().manual_seed(3))
    actual = total_loss(loss(batch.exclude("weight")))
    batch["weight"] = token_weights(batch["mask"], "seq-mean-token-mean") * batch["importance_weight"]
    torch.testing.assert_close(actual, by_hand(policy, critic, batch))


def test_what_is_at_masked_positions_reaches_neither_loss_nor_metric_nor_gradient() -> None:
    policy, critic, batch = tables()
    loss = PPOLoss(policy, critic, kl_coef=0.3, entropy_coef=0.1)  # type: ignore[arg-type]
    expected = loss(batch)
    hidden = ~batch["mask"]
    for poison in (77.0, torch.nan):
        poisoned = batch.clone()
        for key in ("log_probs", "ref_log_probs", "advantage", "value_target", "state_value"):
            poisoned[key][hidden] = poison
        with torch.no_grad():
            policy.logits[hidden] = 1e4
            critic.values[hidden] = 1e4
        actual = loss(poisoned)
        torch.testing.assert_close(actual.to_dict(), expected.to_dict())
        for grad in torch.autograd.grad(total_loss(actual), (policy.logits, critic.values)):
            assert grad.isfinite().all()
            assert not grad[hidden].any()
            assert grad[batch["mask"]].any()


@pytest.mark.parametrize("padding", [1, 40])
def test_padding_changes_no_loss_and_no_metric(padding: int) -> None:
    policy, critic, batch = tables()
    loss = PPOLoss(policy, critic, kl_coef=0.3, entropy_coef=0.1)  # type: ignore[arg-type]
    expected = loss(batch)
    wide = batch.apply(lambda tensor: nn.functional.pad(tensor, (0, padding)) if tensor.ndim > 1 else tensor)
    policy.logits.data = nn.functional.pad(policy.logits.data, (0, 0, 0, padding))
    critic.values.data = nn.functional.pad(critic.values.data, (0, padding))
    torch.testing.assert_close(loss(wide).to_dict(), expected.to_dict())


def test_removing_the_observations_changes_no_loss() -> None:
    policy, critic, batch = tables()
    loss = PPOLoss(policy, critic, kl_coef=0.3)  # type: ignore[arg-type]
    expected = loss(batch)
    order = (~batch["mask"]).long().argsort(dim=1, stable=True)  # sampled tokens first
    width = int(batch["mask"].sum(1).max())
    short = batch.apply(lambda x: x.gather(1, order)[:, :width] if x.ndim > 1 else x)
    policy.logits.data = policy.logits.data.gather(1, order[..., None].expand_as(policy.logits))[:, :width]
    critic.values.data = critic.values.data.gather(1, order)[:, :width]
    torch.testing.assert_close(loss(short).to_dict(), expected.to_dict())


def test_metrics_are_means_over_sampled_tokens() -> None:
    policy, critic, batch = tables()
    out = PPOLoss(policy, critic, kl_coef=0.3, kl_estimator="k2")(batch)  # type: ignore[arg-type]
    mask = batch["mask"]
    log_probs = policy.logits.log_softmax(-1).gather(2, batch["tokens"][..., None])[..., 0]
    log_ratio = (log_probs - batch["log_probs"])[mask]
    clipped = (log_ratio.exp() < 0.8) | (log_ratio.exp() > 1.2)
    moved = (critic.values - batch["state_value"])[mask].abs() > 0.2
    assert 0 < clipped.float().mean() < 1
    assert 0 < moved.float().mean() < 1
    assert out["clip_fraction"].item() == pytest.approx(clipped.float().mean().item())
    assert out["value_clip_fraction"].item() == pytest.approx(moved.float().mean().item())
    assert out["kl_approx"].item() == pytest.approx(-log_ratio.mean().item(), rel=1e-5)
    difference = (batch["ref_log_probs"] - log_probs)[mask]
    assert out["kl_to_ref"].item() == pytest.approx((difference**2 / 2).mean().item(), rel=1e-5)
    torch.testing.assert_close(batch["policy_log_probs"], log_probs.detach() * mask)
    assert not any(value.requires_grad for key, value in out.items() if not key.startswith("loss_"))


# With a real model.


def real_batch(policy: Policy, critic: Critic) -> TensorDict:
    batch = ragged_batch()
    rng = torch.Generator().manual_seed(2)
    mask = batch["mask"]
    with torch.no_grad():
        batch["log_probs"] = policy.log_probs(batch) + 0.1 * torch.randn(mask.shape, generator=rng) * mask
        batch["state_value"] = critic.values(batch) + 0.2 * torch.randn(mask.shape, generator=rng) * mask
    for key in ("advantage", "value_target", "ref_log_probs"):
        batch[key] = torch.randn(mask.shape, generator=rng) * mask
    batch["weight"] = token_weights(mask, "token-mean")
    return batch


def gradients(loss: PPOLoss, value: torch.Tensor) -> torch.Tensor:
    loss.zero_grad()
    value.backward()
    return torch.cat([p.grad.flatten() for p in loss.parameters() if p.grad is not None])


@pytest.mark.parametrize("trunk", ["own", "shared"])
@pytest.mark.parametrize("max_tokens", [1, 60, 150])
def test_splitting_into_micro_batches_changes_no_loss_no_metric_and_no_gradient(
    trunk: TrunkChoice, max_tokens: int
) -> None:
    policy = Policy(random_model("llama"))
    critic = critic_of(policy, trunk)
    loss, batch = PPOLoss(policy, critic, kl_coef=0.1), real_batch(policy, critic)
    whole = loss(batch)
    expected = gradients(loss, total_loss(whole))
    parts = [micro for micro in micro_batches(batch, max_tokens) if micro["mask"].any()]
    assert len(parts) > 1
    outputs = [loss(micro) for micro in parts]
    shares = [loss.count(micro) / loss.count(batch) for micro in parts]
    for key, value in whole.items():
        factors = [1.0] * len(parts) if key.startswith("loss_") else shares
        split = sum(factor * out[key] for factor, out in zip(factors, outputs, strict=True))
        torch.testing.assert_close(split, value, atol=1e-5, rtol=1e-4, msg=key)
    actual = gradients(loss, torch.stack([total_loss(out) for out in outputs]).sum())
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-3)


def test_one_forward_pass_serves_policy_and_critic_on_a_shared_trunk() -> None:
    model = random_model("qwen2")
    policy = Policy(model)
    passes: list[int] = []
    model.base_model.layers[0].register_forward_pre_hook(lambda *_: passes.append(1))
    results = {}
    for name, critic in {"shared": Critic.of(policy, "shared"), "own": Critic.of(policy, "own")}.items():
        nn.init.constant_(critic.head.weight, 0.1)
        batch = real_batch(policy, critic)
        passes.clear()
        out = PPOLoss(policy, critic)(batch)
        assert len(passes) == {"shared": 1, "own": 2}[name], name
        results[name] = (out, gradient(model, total_loss(out)))
    torch.testing.assert_close(results["shared"][0].to_dict(), results["own"][0].to_dict(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("trunk", ["own", "shared"])
def test_a_batch_without_a_sampled_token_has_no_loss_and_no_gradient(trunk: TrunkChoice) -> None:
    policy = Policy(random_model("llama"))
    critic = critic_of(policy, trunk)
    loss, batch = PPOLoss(policy, critic, kl_coef=0.1), real_batch(policy, critic)
    batch["mask"][:] = False
    total = total_loss(loss(batch.exclude("weight")))
    assert total == 0.0
    assert not gradients(loss, total).any()


def test_a_critic_on_its_own_trunk_learns_at_its_own_rate_and_leaves_the_policys_step_alone() -> None:
    steps = []
    for value_coef, rate in ((1.0, 1e-2), (1000.0, 1e-2), (1.0, 1e-3)):
        policy = Policy(random_model("qwen2"))
        critic = critic_of(policy)
        loss = PPOLoss(policy, critic, value_coef=value_coef)
        before = [parameter.clone() for parameter in (*policy.parameters(), critic.head.weight)]
        learner = Learner(loss, learning_rate=1e-3, learning_rates={"critic_network": rate}, max_grad_norm=0.1)
        metrics = learner.update(real_batch(policy, critic))
        assert metrics["grad_norm"] > 0.1
        assert metrics["grad_norm/critic_network"] > 0.1
        after = (*policy.parameters(), critic.head.weight)
        steps.append([new.detach() - old for new, old in zip(after, before, strict=True)])
    for one, other in zip(*steps[:2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    for one, slow in zip(steps[0][:-1], steps[2][:-1], strict=True):
        assert torch.equal(one, slow)
    torch.testing.assert_close(steps[2][-1], 0.1 * steps[0][-1], atol=1e-7, rtol=1e-2)


class TorchsOwn(Table):
    """A policy whose distributions are torch's own."""

    def get_dist(self, batch: TensorDict, **kwargs: object) -> Categorical:  # type: ignore[override]
        return Categorical(logits=self.logits)


def test_distributions_that_are_torchs_own_teach_the_same_and_leave_no_entropies() -> None:
    policy, critic, batch = tables()
    ours, theirs = batch.exclude("weight"), batch.exclude("weight")
    for make in (lambda actor: PPOLoss(actor, critic), ClippedPolicyLoss):
        expected, actual = make(policy)(ours), make(TorchsOwn(policy.logits))(theirs)
        torch.testing.assert_close(actual["loss_objective"], expected["loss_objective"])
        assert not ours["policy_entropies"][batch["mask"]].isnan().any()
        assert theirs["policy_entropies"][batch["mask"]].isnan().all()


def torchrls_own(policy: Table, critic: ValueTable, batch: TensorDict) -> TensorDict:
    policy.in_keys = critic.in_keys = []  # type: ignore[assignment]
    options = {"clip_epsilon": 0.2, "clip_value": 0.2, "critic_coeff": 0.5, "loss_critic_type": "l2"}
    own = ClipPPOLoss(policy, critic, entropy_bonus=False, functional=False, **options)
    own.set_keys(action="tokens", sample_log_prob="log_probs")
    columns = {key: batch[key][..., None] for key in ("advantage", "value_target", "state_value")}
    return own(batch.copy().update(columns))


def test_torchrls_own_loss_agrees_where_every_position_is_sampled() -> None:
    policy, critic, batch = tables()
    batch["mask"][:] = True
    expected = torchrls_own(policy, critic, batch)
    actual = PPOLoss(policy, critic)(batch.exclude("weight"))  # type: ignore[arg-type]
    for key in ("loss_objective", "loss_critic", "clip_fraction", "kl_approx", "value_clip_fraction"):
        torch.testing.assert_close(actual[key], expected[key], msg=key)


@pytest.mark.parametrize("metric", ["clip_fraction", "kl_approx", "value_clip_fraction"])
def test_torchrls_own_loss_still_averages_its_metrics_over_padding(metric: str) -> None:
    def value(padding: int) -> float:
        policy, critic, batch = tables()
        wide = batch.apply(lambda tensor: nn.functional.pad(tensor, (0, padding)) if tensor.ndim > 1 else tensor)
        policy.logits.data = nn.functional.pad(policy.logits.data, (0, 0, 0, padding))
        critic.values.data = nn.functional.pad(critic.values.data, (0, padding))
        return float(torchrls_own(policy, critic, wide)[metric])

    assert value(0) != 0
    assert value(27) == pytest.approx(value(0) * 9 / 36, rel=1e-4)
