"""A token is where a uniform number falls in the cumulative distribution of its row."""

from fractions import Fraction

import pytest
import torch

from llmgym.config.sections import Sampling
from llmgym.engines.local.sampling import sample

EVERYTHING = Sampling.of({})


def inverted(probabilities: list[float], u: float) -> int:
    """The same in exact arithmetic."""
    exact = [Fraction(value) for value in probabilities]
    target, total = Fraction(u) * sum(exact), Fraction(0)
    for token, mass in enumerate(exact):
        total += mass
        if total > target:
            return token
    raise AssertionError("unreachable: u is below 1")


@pytest.mark.parametrize("vocabulary", [3, 127, 128, 129, 1000])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_a_token_is_where_its_uniform_number_falls(vocabulary: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = scale * torch.randn(40, vocabulary, generator=generator)
    u = torch.rand(40, generator=generator, dtype=torch.float64)
    tokens, log_probs = sample(logits, [EVERYTHING] * 40, u)
    probabilities = logits.softmax(-1)
    assert tokens.tolist() == [inverted(row, x) for row, x in zip(probabilities.tolist(), u.tolist(), strict=True)]
    torch.testing.assert_close(log_probs, logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0])


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_sample_tokens_that_can_be_sampled(u: float) -> None:
    logits = torch.full((2, 1000), -torch.inf)
    logits[:, [200, 201, 700]] = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    tokens, _ = sample(logits, [EVERYTHING] * 2, torch.full((2,), u, dtype=torch.float64))
    assert tokens.tolist() == [200 if u == 0 else 700] * 2


@pytest.mark.parametrize("sampling", [EVERYTHING, *(Sampling.of(one) for one in ({"temperature": 0}, {"top_k": 9}))])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_numbers_have_no_log_probability_and_trouble_no_other_row(
    bad: float, sampling: Sampling
) -> None:
    logits = torch.randn(3, 130, generator=torch.Generator().manual_seed(0))
    u = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    tokens, log_probs = sample(logits, [sampling] * 3, u)
    logits[1, 7] = bad
    spoilt, found = sample(logits, [sampling] * 3, u)
    assert found.isnan().tolist() == [False, True, False]
    assert 0 <= int(spoilt[1]) < 130
    assert torch.equal(spoilt[::2], tokens[::2])
    assert torch.equal(found[::2], log_probs[::2])


def test_a_whole_row_of_uniform_numbers_gives_each_token_its_share() -> None:
    logits = torch.log(torch.tensor([0.5, 0.0, 0.125, 0.375])).repeat(1000, 1)
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    tokens, _ = sample(logits, [EVERYTHING] * 1000, u)
    assert tokens.bincount(minlength=4).tolist() == [500, 0, 125, 375]
