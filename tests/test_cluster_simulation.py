"""The simulation of a cluster agrees with formulas by hand, with another simulation, and with what has to hold."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cluster_simulation import ENGINES, MODES, draw, draw_idle, mode_table, scale_table
from benchmarks.simulated_run import Outcome, Plan, Work, simulate

PLAN = Plan(engines=2, slots=8, base=0.01, each=0.001, learn=0.5, hand_over=0.3)
STEPS, SHAPE = 5, (4, 3, 2)

plans = st.builds(
    Plan,
    engines=st.integers(1, 6),
    slots=st.integers(1, 16),
    base=st.floats(0.001, 0.1),
    each=st.floats(0, 0.01),
    learn=st.floats(0, 5),
    hand_over=st.floats(0, 2),
)
works = st.builds(
    draw,
    st.just(STEPS + 2),
    st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3)),
    tokens=st.floats(2, 50),
    sigma=st.floats(0, 1.5),
    wait=st.sampled_from([0.0, 0.1, 3.0]),
    seed=st.integers(0, 99),
)
some = settings(max_examples=60)


def by_decode_steps(plan: Plan, work: Work, steps: int) -> list[float]:
    """Return when each step of a synchronous run ends if nobody waits for environments, one decode step at a time."""
    now, ends = 0.0, []
    groups = work.lengths.shape[1]
    size = math.ceil(groups / plan.engines)
    for step in range(steps):
        longest = 0.0
        for first in range(0, groups, size):
            waiting = [int(one) for one in work.lengths[step, first : first + size].sum(axis=2).ravel()]
            running: list[int] = []
            seconds = 0.0
            while waiting or running:
                while waiting and len(running) < plan.slots:
                    running.append(waiting.pop(0))
                seconds += plan.base + plan.each * len(running)
                running = [left - 1 for left in running if left > 1]
            longest = max(longest, seconds)
        now += longest + plan.learn * work.lengths[step].sum() / 1000 + plan.hand_over
        ends.append(now)
    return ends


def test_one_episode_at_a_time_takes_what_a_formula_says() -> None:
    work = draw(STEPS, SHAPE, tokens=20, sigma=0, wait=0)
    plan = replace(PLAN, engines=1, slots=1)
    tokens = math.prod(SHAPE) * 20
    step = tokens * (plan.base + plan.each) + plan.learn * tokens / 1000 + plan.hand_over
    outcome = simulate(plan, work, STEPS)
    assert outcome.ends == pytest.approx([step * (1 + number) for number in range(STEPS)])
    assert outcome.engines_idle == pytest.approx(1 - tokens * (plan.base + plan.each) / step)
    assert outcome.learner_idle == pytest.approx(tokens * (plan.base + plan.each) / step)
    assert outcome.slots_filled == pytest.approx(1 - outcome.engines_idle)


def test_environments_are_waited_for_between_turns_and_by_nobody_else() -> None:
    lengths = np.full((1, 1, 2, 3), 10)
    waits = np.array([[[[1.0, 2.0, 100.0], [0.0, 0.0, 0.0]]]])
    plan = Plan(1, 2, base=0.1, each=0.0, learn=0.0, hand_over=0.0)
    assert simulate(plan, Work(lengths, waits), 1).ends == pytest.approx([3 * 10 * 0.1 + 1 + 2])


@some
@given(plans, works)
def test_a_synchronous_run_is_that_of_another_simulation(plan: Plan, work: Work) -> None:
    work = Work(work.lengths, np.zeros_like(work.waits))
    assert simulate(plan, work, STEPS).ends == pytest.approx(by_decode_steps(plan, work, STEPS))


@some
@given(plans, works)
def test_playing_ahead_by_one_step_overlaps_a_rollout_with_an_update(plan: Plan, work: Work) -> None:
    """Step t is taken when it is played and step t - 1 is handed over, and then the rollout of t + 1 begins."""
    ends = [0.0, *simulate(plan, work, STEPS).ends]
    updates = [plan.learn * int(tokens.sum()) / 1000 + plan.hand_over for tokens in work.lengths[:STEPS]]
    rollouts = [end - begin - update for (begin, end), update in zip(itertools.pairwise(ends), updates, strict=True)]
    taken = handed = 0.0
    expected = []
    for rollout, update in zip(rollouts, updates, strict=True):
        taken = max(taken + rollout, handed)
        handed = taken + update
        expected.append(handed)
    assert simulate(replace(plan, staleness=1), work, STEPS).ends == pytest.approx(expected)


@some
@given(plans, works, st.one_of(st.none(), st.integers(1, 4)))
def test_staler_weights_are_never_slower(plan: Plan, work: Work, at_once: int | None) -> None:
    plan = replace(plan, groups_at_once=at_once)
    last = [simulate(replace(plan, staleness=staleness), work, STEPS).ends[-1] for staleness in range(3)]
    assert last[0] * (1 + 1e-9) >= last[1] >= last[2] * (1 - 1e-9)


@some
@given(plans, works)
def test_a_learner_that_takes_no_time_leaves_nothing_to_overlap(plan: Plan, work: Work) -> None:
    plan = replace(plan, learn=0.0, hand_over=0.0)
    ahead = simulate(replace(plan, staleness=1), work, STEPS)
    assert ahead.ends == pytest.approx(simulate(plan, work, STEPS).ends)
    if plan.engines == 1:
        assert simulate(replace(plan, staleness=2), work, STEPS).ends == pytest.approx(ahead.ends)


@some
@given(plans, works)
def test_twice_as_many_engines_are_never_slower(plan: Plan, work: Work) -> None:
    engines = 2 ** (plan.engines // 2)
    plan = replace(plan, engines=engines, slots=work.lengths[0].size)
    fewer, more = (simulate(replace(plan, engines=many), work, STEPS).ends[-1] for many in (engines, 2 * engines))
    assert more <= fewer * (1 + 1e-9)


@some
@given(plans, works, st.integers(0, 2), st.booleans(), st.one_of(st.none(), st.integers(1, 4)), st.booleans())
def test_shares_are_shares_and_staleness_is_bounded(
    plan: Plan, work: Work, staleness: int, partial: bool, at_once: int | None, dealt: bool
) -> None:
    plan = replace(plan, staleness=staleness, partial=partial, groups_at_once=at_once, dealt=dealt)
    outcome = simulate(plan, work, STEPS, skipped=2)
    for share in (outcome.engines_idle, outcome.slots_filled, outcome.learner_idle):
        assert -1e-9 <= share <= 1 + 1e-9
    assert outcome.slots_filled <= 1 - outcome.engines_idle + 1e-9
    assert outcome.staleness <= staleness
    assert partial or outcome.staleness == staleness
    assert outcome == simulate(plan, work, STEPS, skipped=2)
    learnt = [plan.learn * int(tokens.sum()) / 1000 + plan.hand_over for tokens in work.lengths[:STEPS]]
    assert (np.diff([0, *outcome.ends]) >= np.array(learnt) - 1e-9).all()


@some
@given(plans, works, st.integers(0, 2), st.booleans())
def test_no_engine_decodes_more_than_there_is_to_decode(plan: Plan, work: Work, staleness: int, partial: bool) -> None:
    """Of a run with nothing to begin after its last step, the seconds times slots are those of the tokens."""
    work = Work(work.lengths.copy(), work.waits)
    work.lengths[STEPS:] = 0
    work.lengths[STEPS:, :, :, 0] = 1
    plan = replace(plan, staleness=staleness, partial=partial, each=0.0)
    outcome = simulate(plan, work, STEPS)
    filled = outcome.slots_filled * plan.engines * plan.slots * outcome.ends[-1] / plan.base
    extra = staleness * work.lengths[0, :, :, 0].size  # that were begun for later steps
    assert work.lengths[:STEPS].sum() - 1e-6 <= filled <= work.lengths[:STEPS].sum() + extra + 1e-6


def test_whoever_is_free_takes_the_next_share_unless_they_are_dealt() -> None:
    lengths = np.array([100, 10, 10, 10]).reshape(1, 4, 1, 1)
    work = Work(lengths, np.zeros(lengths.shape))
    plan = replace(PLAN, groups_at_once=1, base=1.0, each=0.0, learn=0.0, hand_over=0.0)
    cases: list[tuple[dict[str, Any], float]] = [({}, 100), ({"dealt": True}, 110), ({"groups_at_once": None}, 100)]
    for options, seconds in cases:
        assert simulate(replace(plan, **options), work, 1).ends == pytest.approx([seconds])


def test_episodes_that_go_on_over_a_hand_over_never_wait_for_those_of_their_step() -> None:
    work = draw(STEPS + 1, (8, 4, 2), tokens=100, sigma=1.5, wait=0)
    plan = replace(PLAN, slots=16, staleness=1)
    whole, partial = (simulate(replace(plan, partial=partial), work, STEPS) for partial in (False, True))
    assert partial.ends[-1] < whole.ends[-1]
    assert partial.slots_filled > whole.slots_filled


def test_engines_pause_for_a_hand_over_in_the_middle_of_episodes() -> None:
    work = draw(4, (1, 1, 1), tokens=10, sigma=0)
    plan = Plan(1, 1, base=0.1, each=0.0, learn=0.0, hand_over=0.4, staleness=1)
    assert simulate(replace(plan, partial=True), work, 3).ends == pytest.approx([1.4, 2.8, 4.2])
    assert simulate(plan, work, 3).ends == pytest.approx([1.4, 2.4, 3.4])


def test_lengths_have_the_mean_that_was_asked_for_and_the_first_steps_are_always_the_same() -> None:
    work = draw(3, (200, 8, 3), tokens=400, sigma=0.5, wait=2)
    assert work.lengths.mean() == pytest.approx(400, rel=0.03)
    assert work.waits.mean() == pytest.approx(2, rel=0.03)
    assert (draw(2, (200, 8, 3), tokens=400, sigma=0.5, wait=2).lengths == work.lengths[:2]).all()


def test_the_tables_and_the_picture_have_every_setting(tmp_path: Path) -> None:
    one = Outcome([1.0], 36.0, 0.25, 0.5, 0.125, 1.0)
    cells = {(name, engines, mode): one for name in ("quick", "slow") for engines in ENGINES for mode in MODES}
    assert scale_table(cells).count("100 (25%, 12%)") == len(cells)
    assert mode_table(cells, 16).count("| 100 | 25% | 50% | 12% | 1.00 |") == 2 * len(MODES)
    draw_idle(tmp_path / "idle.png", cells)
    assert (tmp_path / "idle.png").stat().st_size > 10_000
