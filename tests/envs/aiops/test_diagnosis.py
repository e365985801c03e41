"""A smallest set of signals leaves one cause, and no smaller one does."""

import itertools
import math

import numpy as np
import pytest

from llmgym.envs.aiops.diagnosis import Claim, leaves_one, left, smallest_set
from llmgym.envs.aiops.incident import generate_incident
from llmgym.envs.aiops.world import DIFFICULTIES, Difficulty


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_as_few_signals_are_found_as_suffice(difficulty: Difficulty) -> None:
    rng = np.random.default_rng(1)
    for _ in range(25):
        claims = [signal.claim for signal in generate_incident(rng, difficulty, "train").signals]
        chosen = smallest_set(claims, difficulty)
        assert leaves_one([claims[i] for i in chosen], difficulty)
        if math.comb(len(claims), len(chosen) - 1) < 20_000:
            fewer = itertools.combinations(claims, len(chosen) - 1)
            assert not any(leaves_one(some, difficulty) for some in fewer)


def test_claims_that_leave_several_causes_are_refused_with_their_number() -> None:
    with pytest.raises(ValueError, match="The claims leave 16 causes, not one"):
        smallest_set([], DIFFICULTIES[0])


def test_a_slow_service_leaves_itself_and_what_it_calls_and_a_log_line_from_before_leaves_all() -> None:
    difficulty = DIFFICULTIES[0]  # gateway > checkout > payments > database, four types
    assert left([Claim("payments", "slow")], difficulty).bit_count() == 2 * 4
    assert left([Claim("payments", "fine")], difficulty).bit_count() == 2 * 4
    assert left([Claim("payments", "earlier")], difficulty).bit_count() == 16
    assert left([Claim("payments", "high", "cpu")], difficulty).bit_count() == 3 * 4 + 2
    assert left([Claim("payments", "normal", "cpu")], difficulty).bit_count() == 3 * 4 + 2
