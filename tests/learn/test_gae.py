"""GAE over the sampled tokens of several turns: the recurrence token by token, and what must not change it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import pad

from llmgym.learn.advantages import gae, whiten

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # values, rewards, mask


def ragged(seed: int, rows: int = 4, width: int = 150) -> Batch:
    """Turns of up to 40 tokens; the first row has nothing sampled, the last one nothing else."""
    rng = torch.Generator().manual_seed(seed)
    values, rewards = (torch.randn(rows, width, generator=rng) for _ in range(2))
    mask = torch.zeros(rows, width, dtype=torch.bool)
    for row in range(1, rows):
        at = 0
        while at < width:
            observed, sampled = torch.randint(1, 40, (2,), generator=rng).tolist()
            mask[row, at + observed : at + observed + sampled] = True
            at += observed + sampled
    mask[-1] = True
    return values, rewards, mask


def by_hand(batch: Batch, gamma: float, lam: float, episode: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    values, rewards, mask = batch
    advantages, returns = torch.zeros(mask.shape), torch.zeros(mask.shape)
    next_value, next_advantage, current = 0.0, 0.0, None
    for b, t in reversed(mask.nonzero().tolist()):
        if episode[b] != current:
            next_value, next_advantage, current = 0.0, 0.0, episode[b]
        value = float(values[b, t])
        next_advantage = float(rewards[b, t]) + gamma * next_value - value + gamma * lam * next_advantage
        next_value = value
        advantages[b, t], returns[b, t] = next_advantage, next_advantage + value
    return advantages, returns


def test_observation_tokens_neither_decay_nor_bootstrap() -> None:
    values = torch.tensor([[0.5, 0.4, 9.0, 0.3, 0.2, 7.0]])
    mask = torch.tensor([[1, 1, 0, 1, 1, 0]], dtype=torch.bool)
    rewards = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
    advantages, returns = gae(values, rewards, mask, gamma=1.0, lam=0.95)
    torch.testing.assert_close(advantages, torch.tensor([[0.40065, 0.527, 0.0, 0.66, 0.8, 0.0]]))
    torch.testing.assert_close(returns, (advantages + values) * mask)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("episode", [None, [0, 1, 1, 1], [5, 5, 6, 6]])
def test_values_equal_the_recurrence_token_by_token(gamma: float, lam: float, episode: list[int] | None) -> None:
    batch = ragged(1)
    rows = None if episode is None else torch.tensor(episode)
    found = gae(*batch, gamma, lam, episode=rows)
    for actual, expected in zip(found, by_hand(batch, gamma, lam, episode or [0, 1, 2, 3]), strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-5)  # sums of 150 rewards in float32


def test_at_lambda_one_and_without_discount_it_is_the_rewards_to_come_less_the_value() -> None:
    values, rewards, mask = ragged(2)
    advantages, returns = gae(values, rewards, mask, 1.0, 1.0)
    to_come = (rewards * mask).flip(1).cumsum(1).flip(1) * mask
    torch.testing.assert_close(returns, to_come, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(advantages, to_come - values * mask, atol=1e-4, rtol=1e-5)


@given(st.integers(0, 2**31), st.integers(0, 70))
def test_neither_padding_nor_what_is_at_masked_positions_changes_anything(seed: int, padding: int) -> None:
    values, rewards, mask = ragged(seed)
    expected = gae(values, rewards, mask, 0.99, 0.95)
    poisoned = values.masked_fill(~mask, math.nan), rewards.masked_fill(~mask, math.inf), mask
    wide = [pad(tensor, (0, padding)) for tensor in poisoned]
    for actual, narrow in zip(gae(*wide, 0.99, 0.95), expected, strict=True):
        torch.testing.assert_close(actual, pad(narrow, (0, padding)))
        assert not actual[~wide[2]].any()


@given(st.integers(0, 2**31))
def test_removing_the_observation_tokens_changes_nothing(seed: int) -> None:
    values, rewards, mask = ragged(seed)
    together = gae(values, rewards, mask, 0.99, 0.95)
    for row in range(len(mask)):
        kept = mask[row]
        alone = gae(values[row, kept][None], rewards[row, kept][None], kept[kept][None], 0.99, 0.95)
        for actual, expected in zip(alone, together, strict=True):
            torch.testing.assert_close(actual[0], expected[row, kept], atol=1e-5, rtol=1e-5)


def test_rows_can_be_permuted_and_split() -> None:
    batch = ragged(3, rows=6)
    expected = gae(*batch, 0.99, 0.95)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    for actual, straight in zip(gae(*(tensor[order] for tensor in batch), 0.99, 0.95), expected, strict=True):
        torch.testing.assert_close(actual, straight[order])
    parts = [gae(*(tensor[rows] for tensor in batch), 0.99, 0.95) for rows in (slice(0, 1), slice(1, 6))]
    for i, whole in enumerate(expected):
        torch.testing.assert_close(torch.cat([part[i] for part in parts]), whole, atol=1e-5, rtol=1e-5)


def test_no_gradient_flows_through_advantages_and_returns() -> None:
    values, rewards, mask = ragged(4)
    advantages, returns = gae(values.requires_grad_(), rewards, mask, 0.99, 0.95)
    assert not advantages.requires_grad
    assert not returns.requires_grad


@given(st.integers(0, 2**31), st.floats(-100, 100), st.floats(0.01, 100))
def test_whitened_values_have_mean_zero_and_deviation_one_over_valid_tokens(
    seed: int, shift: float, scale: float
) -> None:
    values, _, mask = ragged(seed)
    white = whiten(values * scale + shift, mask)
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-2)
    assert float(white[mask].std()) == pytest.approx(1, abs=1e-3)
    assert not white[~mask].any()
    hidden = whiten((values * scale + shift).masked_fill(~mask, math.inf), mask)
    torch.testing.assert_close(hidden, white)


@pytest.mark.parametrize("tokens", [0, 1, 5])
@pytest.mark.parametrize("value", [0.0, 0.1, 1000.1])
def test_whitening_equal_values_gives_zeros(tokens: int, value: float) -> None:
    mask = torch.arange(9)[None] < tokens
    assert not whiten(torch.full((1, 9), value), mask).any()
