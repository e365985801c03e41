"""The clipped policy loss: TorchRL's, without its traps, over sampled tokens only."""

import pytest
import torch
from conftest import random_model
from tensordict import TensorDict
from test_policy import gradient, ragged_batch
from torch import nn
from torchrl.objectives.llm import GRPOLoss

from llmgym.learn.aggregation import token_weights
from llmgym.learn.batch import micro_batches
from llmgym.learn.losses import ClippedPolicyLoss
from llmgym.learn.policy import Policy, SampledTokens


class Table(nn.Module):
    """A policy that reads its logits from a table: losses as functions of log-probs alone."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)  # [B, T, V]

    def get_dist(self, batch: TensorDict, **kwargs: object) -> SampledTokens:
        logits = self.logits[batch["mask"]]
        return SampledTokens(logits, lambda states: states, batch["mask"], rows_at_once=max(1, len(logits)))


def table_batch(rows: int = 4, width: int = 9, vocabulary: int = 5, seed: int = 0) -> tuple[Table, TensorDict]:
    rng = torch.Generator().manual_seed(seed)
    policy = Table(torch.randn(rows, width, vocabulary, generator=rng))
    mask = torch.rand(rows, width, generator=rng) < 0.6
    mask[:, 0] = False
    mask[1] = False  # a row with nothing sampled
    tokens = torch.randint(vocabulary, (rows, width), generator=rng)
    batch = TensorDict(
        {
            "tokens": tokens,
            "mask": mask,
            "log_probs": (0.7 * torch.randn(rows, width, generator=rng) - 1.5) * mask,
            "ref_log_probs": (0.5 * torch.randn(rows, width, generator=rng) - 1.5) * mask,
            "advantage": torch.randn(rows, 1, generator=rng) * mask,
            "weight": token_weights(mask, "token-mean"),
        },
        batch_size=[rows],
    )
    return policy, batch


def by_hand(policy: Table, batch: TensorDict, low: float, high: float, kl_coef: float) -> torch.Tensor:
    """The equation, token by token."""
    total = torch.zeros(())
    log_probs = policy.logits.log_softmax(-1)
    for b, t in batch["mask"].nonzero().tolist():
        log_prob = log_probs[b, t, batch["tokens"][b, t]]
        ratio = (log_prob - batch["log_probs"][b, t]).exp()
        advantage = batch["advantage"][b, t]
        surrogate = torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
        difference = batch["ref_log_probs"][b, t] - log_prob
        total = total + batch["weight"][b, t] * (kl_coef * (difference.exp() - difference - 1) - surrogate)
    return total


def total_loss(output: object) -> torch.Tensor:
    values = [value for key, value in output.items() if key.startswith("loss_") and value is not None]  # type: ignore[attr-defined]
    return torch.stack(values).sum()


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
@pytest.mark.parametrize("clip", [(0.2, 0.2), (0.2, 0.28), (0.5, 3.0)])
@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
def test_value_and_gradient_equal_the_equation(clip: tuple[float, float], kl_coef: float, aggregation: str) -> None:
    policy, batch = table_batch()
    batch["weight"] = token_weights(batch["mask"], aggregation)  # type: ignore[arg-type]
    actual = total_loss(ClippedPolicyLoss(policy, clip_epsilon=clip, kl_coef=kl_coef)(batch))  # type: ignore[arg-type]
    expected = by_hand(policy, batch, *clip, kl_coef)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, policy.logits)[0] for loss in (actual, expected)))


def test_weights_give_each_token_or_each_episode_the_same_say() -> None:
    mask = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    by_token, by_episode = (token_weights(mask, a) for a in ("token-mean", "seq-mean-token-mean"))
    torch.testing.assert_close(by_token, mask / 4)
    torch.testing.assert_close(by_episode.sum(1), torch.tensor([0.5, 0.5, 0.0]))
    assert not token_weights(torch.zeros(2, 3, dtype=torch.bool), "token-mean").any()


def test_what_stands_at_masked_positions_reaches_neither_loss_nor_gradient() -> None:
    policy, batch = table_batch()
    loss = ClippedPolicyLoss(policy, kl_coef=0.3)  # type: ignore[arg-type]
    expected = total_loss(loss(batch))
    hidden = ~batch["mask"]
    poisoned = batch.clone()
    poisoned["log_probs"][hidden] = 77.0
    poisoned["ref_log_probs"][hidden] = -99.0
    poisoned["advantage"][hidden] = 1e6
    poisoned["tokens"][hidden] = 0
    with torch.no_grad():
        policy.logits[hidden] = 1e4
    actual = total_loss(loss(poisoned))
    torch.testing.assert_close(actual, expected)
    (grad,) = torch.autograd.grad(actual, policy.logits)
    assert not grad[hidden].any()
    assert grad[batch["mask"]].any()


@pytest.mark.parametrize("padding", [1, 40])
def test_padding_changes_no_loss_and_no_metric(padding: int) -> None:
    policy, batch = table_batch()
    loss = ClippedPolicyLoss(policy, kl_coef=0.3)  # type: ignore[arg-type]
    expected = loss(batch)
    wide = batch.apply(lambda tensor: nn.functional.pad(tensor, (0, padding)))
    policy.logits.data = nn.functional.pad(policy.logits.data, (0, 0, 0, padding))
    actual = loss(wide)
    for key, value in expected.items():
        if value is not None:
            torch.testing.assert_close(getattr(actual, key), value, msg=key)


def test_permuting_a_group_changes_nothing() -> None:
    policy, batch = table_batch()
    loss = ClippedPolicyLoss(policy)  # type: ignore[arg-type]
    expected = total_loss(loss(batch))
    order = torch.tensor([2, 0, 3, 1])
    policy.logits.data = policy.logits.data[order]
    torch.testing.assert_close(total_loss(loss(batch[order])), expected)


def real_batch(policy: Policy) -> TensorDict:
    batch = ragged_batch()
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        batch["log_probs"] = policy.log_probs(batch)
    batch["advantage"] = torch.randn(len(batch), 1, generator=rng) * batch["mask"]
    batch["weight"] = token_weights(batch["mask"], "token-mean")
    return batch


def test_the_ratio_is_one_on_the_first_update() -> None:
    policy = Policy(random_model("qwen2"))
    output = ClippedPolicyLoss(policy)(real_batch(policy))
    assert output.clip_fraction == 0.0
    assert output.kl_approx == pytest.approx(0.0, abs=1e-6)
    assert pytest.approx(1.0, abs=1e-4) == output.ESS


@pytest.mark.parametrize("max_tokens", [1, 60, 150])
def test_splitting_into_micro_batches_changes_no_loss_and_no_gradient(max_tokens: int) -> None:
    model = random_model("llama")
    policy = Policy(model)
    loss, batch = ClippedPolicyLoss(policy), real_batch(policy)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.02)
    whole = total_loss(loss(batch))
    expected = gradient(model, whole)
    parts = [micro for micro in micro_batches(batch, max_tokens) if micro["mask"].any()]
    assert len(parts) > 1
    split = torch.stack([total_loss(loss(micro)) for micro in parts]).sum()
    torch.testing.assert_close(split, whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient(model, split), expected, atol=1e-4, rtol=1e-3)


# What TorchRL 0.14.1 does wrong, so that a version that mends it is noticed.


def padded_table(padding: int) -> tuple[Table, TensorDict]:
    policy, batch = table_batch()
    policy.logits.data = nn.functional.pad(policy.logits.data, (0, 0, 0, padding))
    wide = batch.apply(lambda tensor: nn.functional.pad(tensor, (0, padding)))
    return policy, wide.set("advantage", wide["advantage"][..., None])


@pytest.mark.parametrize("metric", ["loss_kl_to_ref", "clip_fraction", "kl_approx"])
def test_torchrls_own_grpo_loss_still_averages_over_padding(metric: str) -> None:
    def value(padding: int) -> float:
        policy, batch = padded_table(padding)
        loss = GRPOLoss(policy, kl_to_ref_coeff=1.0, entropy_bonus=False)
        loss.set_keys(
            action="tokens", sample_log_prob="log_probs", ref_log_probs="ref_log_probs", advantage="advantage"
        )
        return float(getattr(loss(batch), metric).detach())

    assert value(0) != 0
    assert value(27) == pytest.approx(value(0) * 9 / 36, rel=1e-4)


def test_metrics_are_means_over_sampled_tokens() -> None:
    policy, batch = table_batch()
    output = ClippedPolicyLoss(policy, kl_coef=0.3)(batch)  # type: ignore[arg-type]
    mask = batch["mask"]
    log_probs = policy.logits.log_softmax(-1).gather(2, batch["tokens"][..., None])[..., 0]
    log_ratio = (log_probs - batch["log_probs"])[mask]
    clipped = (log_ratio.exp() < 0.8) | (log_ratio.exp() > 1.2)
    assert output.clip_fraction == pytest.approx(clipped.float().mean().item())
    assert output.kl_approx == pytest.approx(-log_ratio.mean().item(), rel=1e-5)
    difference = (batch["ref_log_probs"] - log_probs)[mask]
    assert output.kl_to_ref == pytest.approx((difference.exp() - difference - 1).mean().item(), rel=1e-5)
