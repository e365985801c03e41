"""Policy-gradient losses: each is its equation, token by token, and nothing but sampled tokens reaches it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import random_model
from tensordict import TensorDict
from test_policy import gradient, ragged_batch
from torch import nn
from torchrl.objectives.llm import CISPOLoss as TorchRLCISPOLoss
from torchrl.objectives.llm import GRPOLoss

from llmgym.config.choices import Aggregation
from llmgym.learn.aggregation import token_weights
from llmgym.learn.batch import micro_batches
from llmgym.learn.losses import CISPOLoss, ClippedPolicyLoss
from llmgym.learn.losses.clipped_policy import clipped_surrogate
from llmgym.learn.losses.policy_gradient import PolicyGradientLoss
from llmgym.learn.policy import Policy
from llmgym.learn.sampled_tokens import SampledTokens
from llmgym.models.causal_lm import Head

AGGREGATIONS: tuple[Aggregation, ...] = (
    "token-mean",
    "seq-mean-token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-sum-norm",
)
VARIANTS: dict[str, tuple[type[PolicyGradientLoss], dict[str, Any]]] = {
    "clip": (ClippedPolicyLoss, {}),
    "clip-higher": (ClippedPolicyLoss, {"clip_epsilon": (0.2, 0.28)}),
    "wide": (ClippedPolicyLoss, {"clip_epsilon": (0.5, 3.0)}),
    "dual clip": (ClippedPolicyLoss, {"dual_clip": 1.4}),
    "GSPO": (ClippedPolicyLoss, {"ratio": "sequence", "clip_epsilon": (0.1, 0.15)}),
    "GSPO, dual clip": (ClippedPolicyLoss, {"ratio": "sequence", "dual_clip": 1.3}),
    "CISPO": (CISPOLoss, {}),
    "CISPO, upper bound": (CISPOLoss, {"clip_epsilon": (1.0, 0.5)}),
    "CISPO, sequence": (CISPOLoss, {"ratio": "sequence"}),
    "k1": (ClippedPolicyLoss, {"kl_coef": 0.3, "kl_estimator": "k1"}),
    "k2": (ClippedPolicyLoss, {"kl_coef": 0.3, "kl_estimator": "k2"}),
    "k3": (ClippedPolicyLoss, {"kl_coef": 0.3, "kl_estimator": "k3"}),
    "k3+": (CISPOLoss, {"kl_coef": 0.3, "kl_estimator": "k3+"}),
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


class Table(nn.Module):
    """A policy that reads its logits from a table: losses as functions of log-probs alone.

    A batch may name the table's rows in ``table_row``.
    """

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)  # [B, T, V]

    def get_dist(self, batch: TensorDict, **kwargs: object) -> SampledTokens:
        rows = self.logits[batch["table_row"]] if "table_row" in batch else self.logits
        logits = rows[batch["mask"]]
        return SampledTokens(logits, Head(torch.eye(logits.shape[-1], dtype=logits.dtype)), batch["mask"])


def table_batch(width: int = 9, vocabulary: int = 5, seed: int = 0) -> tuple[Table, TensorDict]:
    """Four episodes, one of them in two rows, one with nothing sampled."""
    rng = torch.Generator().manual_seed(seed)
    episode = torch.tensor([0, 1, 2, 2, 3])
    rows = len(episode)
    policy = Table(torch.randn(rows, width, vocabulary, generator=rng))
    mask = torch.rand(rows, width, generator=rng) < 0.6
    mask[:, 0] = False
    mask[1] = False
    tokens = torch.randint(vocabulary, (rows, width), generator=rng)
    with torch.no_grad():
        log_probs = policy.logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0]
    return policy, TensorDict(
        {
            "tokens": tokens,
            "mask": mask,
            "log_probs": (log_probs + 0.4 * torch.randn(rows, width, generator=rng)) * mask,
            "ref_log_probs": (log_probs + 0.5 * torch.randn(rows, width, generator=rng)) * mask,
            "advantage": torch.tensor([1.3, 0.7, -0.9, 0.6])[episode][:, None] * mask,
            "episode": episode,
            "table_row": torch.arange(rows),
        },
        batch_size=[rows],
    )


def make(variant: str, policy: Table, **options: Any) -> PolicyGradientLoss:
    loss_class, chosen = VARIANTS[variant]
    return loss_class(policy, **{**chosen, **options})  # type: ignore[arg-type]


def total_loss(output: TensorDict) -> torch.Tensor:
    return torch.stack([value for key, value in output.items() if key.startswith("loss_")]).sum()


def close(actual: torch.Tensor, expected: torch.Tensor, policy: Table) -> None:
    """Values and gradients are the same."""
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, policy.logits)[0] for loss in (actual, expected)))


# The equations, token by token, and episode by episode where it is these that have a ratio.


def kl_term(log_ratio: torch.Tensor, estimator: str) -> torch.Tensor:
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio**2 / 2
    if estimator == "k3":
        return (-log_ratio).exp() - 1 + log_ratio
    assert estimator == "k3+"
    slope = log_ratio**2 / 2
    return ((-log_ratio).exp() - 1 + log_ratio - slope).detach() + slope


def weight_by_hand(mask: torch.Tensor, episode: torch.Tensor, aggregation: str, b: int, factor: float) -> float:
    tokens = {e: int(mask[episode == e].sum()) for e in episode.tolist()}
    episodes = sum(count > 0 for count in tokens.values())
    return {
        "token-mean": 1 / sum(tokens.values()),
        "seq-mean-token-mean": 1 / episodes / max(1, tokens[int(episode[b])]),
        "seq-mean-token-sum": 1 / episodes,
        "seq-mean-token-sum-norm": 1 / episodes / factor,
    }[aggregation]


def by_hand(policy: Table, batch: TensorDict, variant: str, aggregation: str) -> torch.Tensor:
    loss_class, options = VARIANTS[variant]
    low, high = options.get("clip_epsilon", (0.2, 0.2))
    log_probs = policy.logits.log_softmax(-1)
    mask, episode = batch["mask"], batch["episode"]
    sampled = [(b, t) for b, t in mask.nonzero().tolist()]
    chosen = {(b, t): log_probs[b, t, batch["tokens"][b, t]] for b, t in sampled}
    total = torch.zeros(())
    for b, t in sampled:
        ratio = (chosen[b, t] - batch["log_probs"][b, t]).exp()
        if options.get("ratio") == "sequence":
            own = [place for place in sampled if episode[place[0]] == episode[b]]
            ratio = torch.stack([chosen[place] - batch["log_probs"][place] for place in own]).mean().exp()
        advantage = batch["advantage"][b, t]
        if loss_class is CISPOLoss:
            surrogate = ratio.clamp(1 - low, 1 + high).detach() * advantage * chosen[b, t]
        else:
            surrogate = torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
            if "dual_clip" in options and advantage < 0:
                surrogate = torch.max(surrogate, options["dual_clip"] * advantage)
        loss = -surrogate
        if "kl_coef" in options:
            log_ratio = chosen[b, t] - batch["ref_log_probs"][b, t]
            loss = loss + options["kl_coef"] * kl_term(log_ratio, options["kl_estimator"])
        total = total + weight_by_hand(mask, episode, aggregation, b, 7.0) * loss
    return total


@every_variant
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_the_equation(variant: str, aggregation: Aggregation, seed: int) -> None:
    policy, batch = table_batch(seed=seed)
    actual = total_loss(make(variant, policy, aggregation=aggregation, loss_scale_factor=7.0)(batch))
    close(actual, by_hand(policy, batch, variant, aggregation), policy)


def test_a_dual_clip_bounds_the_loss_of_what_is_worse_than_expected() -> None:
    ratio, advantage = torch.tensor([2.0, 2.0, 0.5]), torch.tensor([2.0, -2.0, 2.0])
    losses = clipped_surrogate(ratio.log(), advantage, (0.2, 0.2), dual_clip=1.5)
    torch.testing.assert_close(losses, torch.tensor([-2.4, 3.0, -1.0]))


def test_where_a_ratio_is_clipped_ppo_has_no_gradient_and_cispo_a_bounded_one() -> None:
    log_probs = torch.tensor([[-0.5, -0.5]], requires_grad=True)
    batch = TensorDict(
        {
            "tokens": torch.zeros(1, 2, dtype=torch.long),
            "mask": torch.ones(1, 2, dtype=torch.bool),
            "log_probs": torch.tensor([[-2.5, -0.5]]),  # the first token's ratio is e^2
            "advantage": torch.full((1, 2), 3.0),
            "episode": torch.zeros(1, dtype=torch.long),
        },
        batch_size=[1],
    )

    class Given(nn.Module):
        def get_dist(self, batch: TensorDict) -> Any:
            return self

        def log_prob(self, tokens: torch.Tensor) -> torch.Tensor:
            return log_probs

    slopes = [
        torch.autograd.grad(total_loss(loss(Given())(batch)), log_probs)[0][0].tolist()  # type: ignore[arg-type]
        for loss in (ClippedPolicyLoss, CISPOLoss)
    ]
    assert slopes[0] == pytest.approx([0.0, -3.0 / 2])
    assert slopes[1] == pytest.approx([-1.2 * 3.0 / 2, -3.0 / 2])


# Weights.


def test_weights_give_each_token_or_each_episode_the_same_say() -> None:
    mask = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    by_token, by_episode = (token_weights(mask, a) for a in ("token-mean", "seq-mean-token-mean"))
    torch.testing.assert_close(by_token, mask / 4)
    torch.testing.assert_close(by_episode.sum(1), torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(token_weights(mask, "seq-mean-token-sum"), mask / 2)
    torch.testing.assert_close(
        token_weights(mask, "seq-mean-token-sum-norm", loss_scale_factor=5.0), mask / torch.tensor(10.0)
    )


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_where_nothing_is_sampled_all_weights_are_zero(aggregation: Aggregation) -> None:
    assert not token_weights(torch.zeros(2, 3, dtype=torch.bool), aggregation, torch.tensor([0, 1])).any()


@every_variant
def test_a_batch_in_which_nothing_is_sampled_has_a_loss_of_zero(variant: str) -> None:
    policy, batch = table_batch()
    batch["mask"] = torch.zeros_like(batch["mask"])
    loss = total_loss(make(variant, policy)(batch))
    assert loss.item() == 0.0
    assert not torch.autograd.grad(loss, policy.logits)[0].any()


# Properties.


@every_variant
def test_what_is_at_masked_positions_reaches_neither_loss_nor_gradient(variant: str) -> None:
    policy, batch = table_batch()
    loss = make(variant, policy)
    expected = total_loss(loss(batch))
    hidden = ~batch["mask"]
    poisoned = batch.clone()
    poisoned["log_probs"][hidden] = math.nan
    poisoned["ref_log_probs"][hidden] = -math.inf
    poisoned["advantage"][hidden] = math.inf
    poisoned["tokens"][hidden] = 0
    with torch.no_grad():
        policy.logits[hidden] = 1e4
    actual = total_loss(loss(poisoned))
    torch.testing.assert_close(actual, expected)
    (grad,) = torch.autograd.grad(actual, policy.logits)
    assert not grad[hidden].any()
    assert grad[batch["mask"]].any()


@every_variant
@pytest.mark.parametrize("padding", [1, 40])
def test_padding_changes_no_loss_and_no_metric(variant: str, padding: int) -> None:
    policy, batch = table_batch()
    loss = make(variant, policy)
    expected = loss(batch)
    wide = batch.apply(lambda tensor: nn.functional.pad(tensor, (0, padding)) if tensor.ndim > 1 else tensor)
    policy.logits.data = nn.functional.pad(policy.logits.data, (0, 0, 0, padding))
    for key, value in loss(wide).items():
        torch.testing.assert_close(value, expected[key], msg=key)


@every_variant
def test_removing_the_observation_positions_changes_no_loss_and_no_metric(variant: str) -> None:
    policy, batch = table_batch()
    loss = make(variant, policy)
    expected = loss(batch)
    order = (~batch["mask"]).int().argsort(dim=1, stable=True)  # sampled tokens first, in their order
    narrow = batch.apply(lambda tensor: tensor.gather(1, order)[:, :8] if tensor.ndim > 1 else tensor)
    policy.logits.data = policy.logits.data.gather(1, order[..., None].expand_as(policy.logits))[:, :8]
    assert int(narrow["mask"].sum()) == int(batch["mask"].sum())
    for key, value in loss(narrow).items():
        torch.testing.assert_close(value, expected[key], msg=key)


@every_variant
@pytest.mark.parametrize("order", [[4, 1, 2, 3, 0], [2, 3, 0, 4, 1]])
def test_permuting_episodes_changes_nothing(variant: str, order: list[int]) -> None:
    policy, batch = table_batch()
    loss = make(variant, policy)
    expected = total_loss(loss(batch))
    close(total_loss(loss(batch[torch.tensor(order)])), expected, policy)


@every_variant
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_splitting_between_episodes_changes_no_loss_and_no_gradient(variant: str, aggregation: Aggregation) -> None:
    policy, batch = table_batch()
    loss = make(variant, policy, aggregation=aggregation)
    expected = total_loss(loss(batch))
    batch["weight"] = loss.weights(batch)
    parts = [batch[:1], batch[1:4], batch[4:]]
    close(torch.stack([total_loss(loss(part)) for part in parts]).sum(), expected, policy)


@every_variant
def test_without_advantages_there_is_no_gradient_but_that_of_the_divergence(variant: str) -> None:
    policy, batch = table_batch()
    batch["advantage"] = torch.zeros_like(batch["advantage"])
    output = make(variant, policy)(batch)
    assert not torch.autograd.grad(output["loss_objective"], policy.logits)[0].any()
    assert ("loss_kl_to_ref" in output) == ("kl_coef" in VARIANTS[variant][1])


def test_importance_weights_multiply_the_loss_of_their_tokens() -> None:
    policy, batch = table_batch()
    loss = make("k3", policy)
    importance = torch.rand(batch["mask"].shape, generator=torch.Generator().manual_seed(1))
    weighed = batch.clone().set("importance_weight", importance)
    by_hand = batch.clone().set("weight", loss.weights(batch) * importance)
    close(total_loss(loss(weighed)), total_loss(loss(by_hand)), policy)


def real_batch(policy: Policy) -> TensorDict:
    batch = ragged_batch()
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        batch["log_probs"] = policy.log_probs(batch)
    batch["advantage"] = torch.randn(len(batch), 1, generator=rng) * batch["mask"]
    batch["weight"] = token_weights(batch["mask"], "token-mean")
    return batch


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_the_ratio_is_one_on_the_first_update(ratio: str) -> None:
    policy = Policy(random_model("qwen2"))
    output = ClippedPolicyLoss(policy, ratio=ratio)(real_batch(policy))
    assert output["clip_fraction"] == 0.0
    assert output["kl_approx"] == pytest.approx(0.0, abs=1e-6)
    assert pytest.approx(1.0, abs=1e-4) == output["ESS"]


@pytest.mark.parametrize("max_tokens", [1, 60, 150])
@pytest.mark.parametrize("loss_class", [ClippedPolicyLoss, CISPOLoss])
def test_splitting_into_micro_batches_changes_no_loss_and_no_gradient(
    loss_class: Callable[[Policy], PolicyGradientLoss], max_tokens: int
) -> None:
    model = random_model("llama")
    policy = Policy(model)
    loss, batch = loss_class(policy), real_batch(policy)
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


def test_metrics_are_means_over_sampled_tokens() -> None:
    policy, batch = table_batch()
    output = make("k3", policy)(batch)
    mask = batch["mask"]
    log_probs = policy.logits.log_softmax(-1).gather(2, batch["tokens"][..., None])[..., 0]
    log_ratio = (log_probs - batch["log_probs"])[mask]
    ratio = log_ratio.exp()
    assert output["clip_fraction"] == pytest.approx(((ratio < 0.8) | (ratio > 1.2)).float().mean().item())
    assert output["kl_approx"] == pytest.approx(-log_ratio.mean().item(), rel=1e-5)
    assert output["ESS"] == pytest.approx((ratio.sum() ** 2 / (ratio**2).sum() / len(ratio)).item(), rel=1e-5)
    difference = (batch["ref_log_probs"] - log_probs)[mask]
    assert output["kl_to_ref"] == pytest.approx((difference.exp() - difference - 1).mean().item(), rel=1e-5)
    assert not any(value.requires_grad for key, value in output.items() if not key.startswith("loss_"))
    torch.testing.assert_close(batch["policy_log_probs"], (log_probs * mask).detach())


# TorchRL's own losses: the same where they are right; what they do wrong is pinned, so that a version that mends it
# is noticed.


def torchrl_output(loss_class: type[GRPOLoss], policy: Table, batch: TensorDict, **options: Any) -> Any:
    loss = loss_class(policy, entropy_bonus=False, **options)
    loss.set_keys(action="tokens", sample_log_prob="log_probs", ref_log_probs="ref_log_probs", advantage="advantage")
    return loss(batch.clone().set("advantage", batch["advantage"][..., None]))


@pytest.mark.parametrize("variant", ["clip", "clip-higher"])
def test_the_objective_is_that_of_torchrls_grpo_loss(variant: str) -> None:
    policy, batch = table_batch()
    options = VARIANTS[variant][1]
    expected = torchrl_output(GRPOLoss, policy, batch, **options).loss_objective.squeeze()
    close(make(variant, policy)(batch)["loss_objective"], expected, policy)


@pytest.mark.parametrize("metric", ["loss_kl_to_ref", "clip_fraction", "kl_approx"])
def test_torchrls_own_grpo_loss_still_averages_over_padding(metric: str) -> None:
    def value(padding: int) -> float:
        policy, batch = table_batch()
        wide = batch.apply(lambda tensor: nn.functional.pad(tensor, (0, padding)) if tensor.ndim > 1 else tensor)
        policy.logits.data = nn.functional.pad(policy.logits.data, (0, 0, 0, padding))
        return float(getattr(torchrl_output(GRPOLoss, policy, wide, kl_to_ref_coeff=1.0), metric).detach())

    assert value(0) != 0
    assert value(27) == pytest.approx(value(0) * 9 / 36, rel=1e-4)


def test_torchrls_own_cispo_loss_still_has_no_gradient_where_it_clips() -> None:
    policy, batch = table_batch()
    ratio = (policy.logits.log_softmax(-1).gather(2, batch["tokens"][..., None])[..., 0] - batch["log_probs"]).exp()
    clipped = batch["mask"] & ((ratio < 0.8) | (ratio > 1.2))
    assert clipped.any()
    theirs, ours = (
        torch.autograd.grad(loss, policy.logits)[0][clipped]
        for loss in (
            torchrl_output(TorchRLCISPOLoss, policy, batch).loss_objective.squeeze(),
            make("CISPO", policy)(batch)["loss_objective"],
        )
    )
    assert not theirs.any()
    assert (ours != 0).any(dim=-1).all()
