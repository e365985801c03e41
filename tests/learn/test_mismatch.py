"""The mismatch between sampling and learning: measured as the equations say, and corrected without bias."""

import copy
import itertools
import math
import random
from typing import Any, Literal

import numpy as np
import pytest
import torch
from conftest import random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from test_clipped_policy import Table, real_batch, total_loss
from torch import nn

from llmgym.config.choices import Correction, Level
from llmgym.learn.aggregation import token_weights
from llmgym.learn.batch import collate
from llmgym.learn.learner import Learner
from llmgym.learn.losses import ClippedPolicyLoss
from llmgym.learn.mismatch import importance_weights, measure
from llmgym.learn.policy import Policy
from llmgym.learn.reference import log_probs_of
from llmgym.rollout.trajectory import Reply, Trajectory

CORRECTIONS = list(itertools.product(("truncate", "mask"), ("token", "sequence")))
SEEDS = st.integers(0, 2**32 - 1)


def episode(rng: random.Random, group: int) -> Trajectory:
    """One to four replies in one to three rows; now and then without a score."""
    trajectory = Trajectory(seed=group, group=group, score=rng.choice([None, 0.0, 1.0, 1.0]))
    for turn in range(rng.randrange(1, 5)):
        observed = [rng.randrange(5) for _ in range(rng.randrange(1, 5))]
        (trajectory.start_row if turn and rng.random() < 0.3 else trajectory.observe)(observed)
        reply = [rng.randrange(5) for _ in range(rng.randrange(1, 6))]
        start = len(trajectory.tokens)
        trajectory.observe(reply)
        trajectory.mask[start:] = [True] * len(reply)
        trajectory.log_probs[start:] = [-3 * rng.random() for _ in reply]
        trajectory.replies.append(Reply(start, start + len(reply), "stop", 0))
    return trajectory


def some_episodes(seed: int) -> list[Trajectory]:
    rng = random.Random(seed)
    return [episode(rng, group) for group in range(3) for _ in range(rng.randrange(1, 4))]


def log_probs_like(batch: TensorDict, seed: int, scale: float = 0.4) -> torch.Tensor:
    """Log-probs of a policy near the one that sampled; nonsense where nothing was sampled."""
    noise = torch.randn(batch["mask"].shape, generator=torch.Generator().manual_seed(seed))
    return batch["log_probs"] + scale * noise


def log_ratios_by_episode(trajectories: list[Trajectory], batch: TensorDict, log_probs: torch.Tensor) -> list[Any]:
    """For each scored episode the log-ratios of its sampled tokens, read off its rows one by one."""
    found = []
    for index, trajectory in enumerate(trajectories):
        ratios = []
        for row in (batch["episode"] == index).nonzero()[:, 0].tolist():
            for t in range(int(batch["length"][row])):
                if batch["mask"][row, t]:
                    ratios.append(float(log_probs[row, t]) - float(batch["log_probs"][row, t]))
        if trajectory.score is not None:
            assert len(ratios) == trajectory.sampled_tokens
            found.append(np.array(ratios))
    return found


@settings(max_examples=40)
@given(seed=SEEDS)
def test_the_measures_are_those_of_the_equations(seed: int) -> None:
    trajectories = some_episodes(seed)
    batch = collate(trajectories)
    log_probs = log_probs_like(batch, seed)
    by_episode = log_ratios_by_episode(trajectories, batch, log_probs)
    measured = measure(log_probs, batch)
    if not by_episode:
        assert all(math.isnan(value) for value in measured.values())
        return
    every = np.concatenate(by_episode)
    rho, sequence = np.exp(every), np.exp([ratios.sum() for ratios in by_episode])
    assert measured == pytest.approx(
        {
            "mismatch/log_ratio_mean": every.mean(),
            "mismatch/log_ratio_abs": np.abs(every).mean(),
            "mismatch/log_ratio_max": np.abs(every).max(),
            "mismatch/kl": (rho - 1 - every).mean(),
            "mismatch/ess": rho.sum() ** 2 / (rho**2).sum() / len(rho),
            "mismatch/ess_sequence": sequence.sum() ** 2 / (sequence**2).sum() / len(sequence),
        },
        rel=1e-4,
        abs=1e-6,
    )


def test_where_top_p_cuts_tokens_off_the_divergence_is_minus_the_log_of_the_mass_that_is_kept() -> None:
    kept = 0.8  # of the policy's probability: whatever is drawn, its log-ratio is log 0.8, and so is the mean
    batch = collate(some_episodes(3))
    log_probs = batch["log_probs"] + math.log(kept) * batch["mask"]
    assert measure(log_probs, batch, full_support=False)["mismatch/kl"] == pytest.approx(-math.log(kept), rel=1e-5)
    assert measure(log_probs, batch)["mismatch/kl"] == pytest.approx(-math.log(kept) - (1 - kept), rel=1e-4)


@settings(max_examples=40)
@given(seed=SEEDS, threshold=st.floats(1.01, 4.0))
@pytest.mark.parametrize(("correction", "level"), CORRECTIONS)
def test_the_weights_are_those_of_the_equations(
    correction: Literal["truncate", "mask"], level: Level, seed: int, threshold: float
) -> None:
    trajectories = some_episodes(seed)
    batch = collate(trajectories)
    log_probs = log_probs_like(batch, seed)
    weights, beyond = importance_weights(log_probs, batch, correction, level, threshold)
    expected: list[float] = []
    count = 0
    for ratios in log_ratios_by_episode(trajectories, batch, log_probs):
        r = np.exp(ratios) if level == "token" else np.full(len(ratios), np.exp(ratios.sum()))
        inside = r <= threshold if correction == "truncate" else (r <= threshold) & (r >= 1 / threshold)
        expected += np.where(inside, r, threshold if correction == "truncate" else 0.0).tolist()
        count += int((~inside).sum())
    assert weights[batch["mask"]].tolist() == pytest.approx(expected, rel=1e-4)
    assert not weights[~batch["mask"]].any()
    assert beyond == pytest.approx(count / max(1, len(expected)))


@pytest.mark.parametrize(("correction", "level"), CORRECTIONS)
def test_the_same_policy_has_weights_of_one_and_no_mismatch(
    correction: Literal["truncate", "mask"], level: Level
) -> None:
    batch = collate(some_episodes(3))
    weights, beyond = importance_weights(batch["log_probs"], batch, correction, level, 2.0)
    assert torch.equal(weights, batch["mask"].float())
    assert beyond == 0.0
    assert measure(batch["log_probs"], batch) == {
        "mismatch/log_ratio_mean": 0.0,
        "mismatch/log_ratio_abs": 0.0,
        "mismatch/log_ratio_max": 0.0,
        "mismatch/kl": 0.0,
        "mismatch/ess": pytest.approx(1.0),
        "mismatch/ess_sequence": pytest.approx(1.0),
    }


@pytest.mark.parametrize(("correction", "level"), CORRECTIONS)
def test_padding_and_the_order_of_siblings_change_no_weight_and_no_measure(
    correction: Literal["truncate", "mask"], level: Level
) -> None:
    trajectories = some_episodes(5)
    batch = collate(trajectories)
    batch["seen"] = log_probs_like(batch, 5)
    expected, _ = importance_weights(batch["seen"], batch, correction, level, 1.5)
    wide = batch.apply(lambda tensor: nn.functional.pad(tensor, (0, 13), value=1) if tensor.ndim > 1 else tensor)
    wide["mask"][:, -13:] = False
    weights, _ = importance_weights(wide["seen"], wide, correction, level, 1.5)
    torch.testing.assert_close(weights[:, :-13], expected)
    assert measure(wide["seen"], wide) == pytest.approx(measure(batch["seen"], batch))

    order = [*range(len(trajectories))]
    random.Random(1).shuffle(order)
    rows = torch.cat([(batch["episode"] == index).nonzero()[:, 0] for index in order])
    shuffled = batch[rows]
    shuffled["episode"] = torch.tensor(order).argsort()[shuffled["episode"]]  # named anew, in order
    weights, _ = importance_weights(shuffled["seen"], shuffled, correction, level, 1.5)
    torch.testing.assert_close(weights, expected[rows])
    assert measure(shuffled["seen"], shuffled) == pytest.approx(measure(batch["seen"], batch))


# The loss.


@pytest.mark.parametrize(("correction", "level"), CORRECTIONS)
def test_the_corrected_loss_and_its_gradient_are_those_of_the_equation(
    correction: Literal["truncate", "mask"], level: Level
) -> None:
    batch = collate(some_episodes(8))
    rng = torch.Generator().manual_seed(8)
    policy = Table(torch.randn(*batch["mask"].shape, 5, generator=rng))
    batch["advantage"] = torch.randn(len(batch), 1, generator=rng) * batch["mask"]
    batch["old_log_probs"] = log_probs_like(batch, 8)
    importance, _ = importance_weights(batch["old_log_probs"], batch, correction, level, 1.5)
    batch["weight"] = token_weights(batch["mask"], "token-mean", batch["episode"]) * importance
    actual = total_loss(ClippedPolicyLoss(policy, old_log_probs="old_log_probs")(batch))  # type: ignore[arg-type]

    expected = torch.zeros(())
    current = policy.logits.log_softmax(-1)
    for b, t in batch["mask"].nonzero().tolist():
        ratio = (current[b, t, batch["tokens"][b, t]] - batch["old_log_probs"][b, t]).exp()
        advantage = batch["advantage"][b, t]
        surrogate = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        expected = expected - importance[b, t] * surrogate / batch["mask"].sum()
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, policy.logits)[0] for loss in (actual, expected)))


def all_conversations(choices: int) -> TensorDict:
    """Every conversation of two one-token replies: tokens 0 (a prompt), a, 0, b."""
    pairs = torch.tensor(list(itertools.product(range(choices), repeat=2)))
    tokens = torch.zeros(len(pairs), 4, dtype=torch.long)
    tokens[:, [1, 3]] = pairs
    return TensorDict(
        {
            "tokens": tokens,
            "mask": torch.tensor([[False, True, False, True]]).expand(len(pairs), -1),
            "episode": torch.arange(len(pairs)),
        },
        batch_size=[len(pairs)],
    )


class Bandit(nn.Module):
    """A policy over conversations of two replies: the second depends on the first."""

    def __init__(self, choices: int, seed: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(choices, generator=rng))
        self.second = nn.Parameter(torch.randn(choices, choices, generator=rng))

    def log_probs(self, batch: TensorDict) -> torch.Tensor:
        """[B, 4]"""
        a, b = batch["tokens"][:, 1], batch["tokens"][:, 3]
        spread = torch.zeros(len(a), 4)
        spread[:, 1] = self.first.log_softmax(-1)[a]
        spread[:, 3] = self.second.log_softmax(-1)[a, b]
        return spread

    def get_dist(self, batch: TensorDict, **kwargs: object) -> Any:
        log_probs = self.log_probs(batch)

        class Seen:
            mask = batch["mask"]

            @staticmethod
            def log_prob(tokens: torch.Tensor) -> torch.Tensor:
                return log_probs

        return Seen()


def expected_gradient(
    sampler: torch.Tensor, bandit: Bandit, batch: TensorDict, reward: torch.Tensor, level: Level, threshold: float
) -> list[torch.Tensor]:
    """Minus the gradient of the corrected loss, in expectation over `sampler` [B]: over every conversation, exactly."""
    batch = batch.copy()
    with torch.no_grad():
        batch["old_log_probs"] = bandit.log_probs(batch)
        importance, _ = importance_weights(batch["old_log_probs"], batch, "truncate", level, threshold)
    batch["advantage"] = reward[:, None] * batch["mask"]
    batch["weight"] = sampler[:, None] * importance
    loss = total_loss(ClippedPolicyLoss(bandit, old_log_probs="old_log_probs")(batch))  # type: ignore[arg-type]
    return [-gradient for gradient in torch.autograd.grad(loss, list(bandit.parameters()))]


@pytest.mark.parametrize("seed", range(5))
def test_per_sequence_and_never_truncated_the_gradient_is_that_of_the_target_policys_reward(seed: int) -> None:
    batch, target, sampler = all_conversations(4), Bandit(4, seed), Bandit(4, seed + 100)
    reward = torch.randn(len(batch), generator=torch.Generator().manual_seed(seed))
    value = (target.log_probs(batch).sum(1).exp() * reward).sum()  # the expected reward, of which this is the gradient
    expected = torch.autograd.grad(value, list(target.parameters()))
    with torch.no_grad():
        batch["log_probs"] = sampler.log_probs(batch)
    probability = batch["log_probs"].sum(1).exp()
    for found, right in zip(
        expected_gradient(probability, target, batch, reward, "sequence", math.inf), expected, strict=True
    ):
        torch.testing.assert_close(found, right, atol=1e-6, rtol=1e-4)
    for level, threshold in (("sequence", 1.1), ("token", math.inf)):  # biased, as the module says
        biased = expected_gradient(probability, target, batch, reward, level, threshold)  # type: ignore[arg-type]
        assert not torch.allclose(biased[0], expected[0], atol=1e-3)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_with_top_k_the_gradient_is_that_of_the_policy_restricted_to_what_can_be_sampled(level: Level) -> None:
    batch, target = all_conversations(4), Bandit(4, 0)
    batch["mask"] = torch.tensor([[False, True, False, False]]).expand(len(batch), -1)  # one reply is enough here
    reward = torch.randn(len(batch), generator=torch.Generator().manual_seed(0))[batch["tokens"][:, 1]]
    with torch.no_grad():
        probabilities = target.first.softmax(-1)
        kept = probabilities >= probabilities.sort().values[-2]  # top_k = 2
        sampled = (probabilities * kept / probabilities[kept].sum())[batch["tokens"][:, 1]]
    batch["log_probs"] = sampled.log()[:, None] * batch["mask"]
    once = batch["tokens"][:, 3] == 0  # each first token once
    on_support = (target.first.softmax(-1) * kept * reward[once]).sum()
    (expected,) = torch.autograd.grad(on_support, [target.first])
    possible = (once & (sampled > 0)).nonzero()[:, 0]
    found = expected_gradient(sampled[possible], target, batch[possible], reward[possible], level, math.inf)
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=1e-4)


# The learner.


def one_learner(model: nn.Module, micro_batch_tokens: int, **options: Any) -> Learner:
    policy = Policy(model)  # type: ignore[arg-type]
    return Learner(
        ClippedPolicyLoss(policy, **options),
        learning_rate=1e-2,
        max_grad_norm=1e9,
        micro_batch_tokens=micro_batch_tokens,
    )


@pytest.mark.parametrize("micro_batch_tokens", [1, 80, 10**6])
def test_an_update_leaves_the_log_probs_from_before_it_in_the_batch(micro_batch_tokens: int) -> None:
    model = random_model("qwen2")
    policy = Policy(model)
    batch = real_batch(policy)
    expected = log_probs_of(policy, batch, 70)
    one_learner(model, micro_batch_tokens).update(batch)
    torch.testing.assert_close(batch["policy_log_probs"], expected, atol=1e-5, rtol=0)
    assert not batch["policy_log_probs"].requires_grad
    assert (policy.log_probs(batch) - expected).abs().max() > 1e-3


@pytest.mark.parametrize(("correction", "level"), CORRECTIONS)
def test_a_weight_scales_the_advantage_however_the_batch_is_cut(
    correction: Literal["truncate", "mask"], level: Level
) -> None:
    model = random_model("llama")
    batch = real_batch(Policy(model))
    batch["old_log_probs"] = batch["log_probs"].clone()
    batch["log_probs"] = log_probs_like(batch, 1, scale=0.2)
    weights, beyond = importance_weights(batch["old_log_probs"], batch, correction, level, 1.3)
    assert beyond > 0

    def gradient(batch: TensorDict, micro_batch_tokens: int) -> torch.Tensor:
        own = copy.deepcopy(model)
        metrics = one_learner(own, micro_batch_tokens, old_log_probs="old_log_probs").update(batch)
        assert metrics["clip_fraction"] == 0.0
        return torch.cat([p.grad.flatten() for p in own.parameters() if p.grad is not None])

    by_hand = batch.clone().set("advantage", batch["advantage"] * weights)
    expected = gradient(by_hand, 10**6)
    assert (gradient(batch.clone(), 10**6) - expected).norm() > 0.01 * expected.norm()
    batch["importance_weight"] = weights
    for micro_batch_tokens in (10**6, 80, 1):
        torch.testing.assert_close(gradient(batch.clone(), micro_batch_tokens), expected, atol=1e-5, rtol=1e-3)


def test_what_a_mask_leaves_out_neither_has_a_gradient_nor_makes_the_rest_count_more() -> None:
    batch = collate(some_episodes(8))
    policy = Table(torch.randn(*batch["mask"].shape, 5, generator=torch.Generator().manual_seed(0)))
    batch["advantage"] = batch["mask"].float()
    batch["old_log_probs"] = batch["log_probs"].clone()
    out = batch["mask"].nonzero()[4]
    batch["old_log_probs"][out[0], out[1]] += 5.0
    gradients = []
    for correction in ("truncate", "mask"):
        importance, _ = importance_weights(batch["old_log_probs"], batch, correction, "token", 2.0)  # type: ignore[arg-type]
        batch["weight"] = token_weights(batch["mask"], "token-mean") * importance
        loss = total_loss(ClippedPolicyLoss(policy, old_log_probs="old_log_probs")(batch))  # type: ignore[arg-type]
        gradients.append(torch.autograd.grad(loss, policy.logits)[0])
    truncated, masked = gradients
    assert truncated[out[0], out[1]].any()
    assert not masked[out[0], out[1]].any()
    masked[out[0], out[1]] = truncated[out[0], out[1]]
    torch.testing.assert_close(masked, truncated)


def test_every_correction_has_a_name_in_the_configuration() -> None:
    assert {"none", *(correction for correction, _ in CORRECTIONS)} == set(Correction.__args__)  # type: ignore[attr-defined]
