"""Signs that a reward is earned by something else than the task: seen where they are, and nowhere else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llmgym
from llmgym.agents import GRPO
from llmgym.evaluate import length_correlation, share_repeated
from llmgym.rollout.trajectory import Reply, Trajectory
from llmgym.scorers import Clipped, Weighted
from llmgym.scorers.composition import only_reported
from llmgym.train.watch import WINDOW, HackWatch
from llmgym.types import Message

STEPS = 20


def episode(group: int, said: str, score: float | None, tokens: int = 10, **parts: float) -> Trajectory:
    return Trajectory(
        group,
        group,
        tokens=[1] * tokens,
        mask=[True] * tokens,
        replies=[Reply(0, tokens, "stop", 0)],
        messages=[Message("user", "?"), Message("assistant", said)],
        score=score,
        parts=parts,
    )


def watched(make: Any, **options: Any) -> list[str]:
    """Return what is said in a run whose step `t` has 64 episodes that `make(t, rng, group)` makes."""
    rng, watch = np.random.default_rng(0), HackWatch(**options)
    said = []
    for step in range(STEPS):
        said += watch.look([make(step, rng, group) for group in range(16) for _ in range(4)])
    return said


def test_longer_replies_that_earn_more_are_told_once_with_their_seeds() -> None:
    def longer(step: int, rng: np.random.Generator, group: int) -> Trajectory:
        tokens = int(rng.integers(10, 20) * (1 + step / 10))
        return episode(group, str(rng.random()), tokens / 100 + rng.normal() / 100, tokens)

    (said,) = watched(longer)
    assert said.startswith("Longer replies earn more (correlation 0.9")
    assert "seed " in said


def test_longer_replies_that_succeed_more_often_are_no_sign() -> None:
    def thinking(step: int, rng: np.random.Generator, group: int) -> Trajectory:
        right = float(rng.random() < 0.2 + step / 30)
        tokens = int(10 + 20 * right + step)
        return episode(group, str(rng.random()), right, tokens, success=right)

    assert watched(thinking) == []


def test_one_reply_to_everything_is_told_unless_it_is_right() -> None:
    def collapsing(success: float) -> Any:
        def make(step: int, rng: np.random.Generator, group: int) -> Trajectory:
            said = "yes" if rng.random() < step / 8 else str(rng.random())
            return episode(group, said, 0.5 if said == "yes" else 0.1, success=success)

        return make

    (said,) = watched(collapsing(0.1))
    assert "of episodes repeat others word by word, one reply 6" in said
    assert watched(collapsing(0.9)) == []


def test_a_measure_that_falls_while_the_reward_rises_is_told() -> None:
    def hacked(step: int, rng: np.random.Generator, group: int) -> Trajectory:
        right = float(rng.random() < 0.6 - step / 50)
        parts = {"exact": right, "success": right}
        return episode(group, str(rng.random()), min(1.0, step / 20 + rng.random() / 10), **parts)

    (said,) = watched(hacked, reported=["exact"])
    assert "while 'exact' fell from 0." in said
    assert watched(hacked) == [], "it is the environment's own score that rises"
    assert any("'success' fell" in one for one in watched(hacked, judged=True))


@pytest.mark.parametrize("seed", range(20))
def test_chance_is_no_sign(seed: int) -> None:
    rng, watch = np.random.default_rng(seed), HackWatch(["part"], judged=True)
    for _ in range(60):
        episodes = [
            episode(group, rng.choice(list("abcdefgh")), rng.random(), int(rng.integers(1, 99)), part=rng.random())
            for group in range(8)
            for _ in range(4)
        ]
        assert watch.look(episodes) == []


def test_episodes_without_a_score_are_no_sign() -> None:
    watch = HackWatch()
    assert watch.look([episode(0, "", None)] * 4) == watch.look([]) == []
    assert (length_correlation([]), share_repeated([])) == (0.0, 0.0)
    assert (length_correlation([episode(0, "a", 1.0)] * 4), share_repeated([episode(0, "a", 1.0)] * 4)) == (0.0, 1.0)


def test_nothing_is_said_before_two_windows_are_full() -> None:
    def hacked(step: int, rng: np.random.Generator, group: int) -> Trajectory:
        return episode(group, str(rng.random()), float(step), exact=float(-step))

    rng, watch = np.random.default_rng(0), HackWatch(["exact"])
    told = [watch.look([hacked(step, rng, group) for group in range(8)]) for step in range(12)]
    assert [bool(one) for one in told].index(True) == 2 * WINDOW - 1


def test_scorers_of_weight_0_are_found_wherever_they_are() -> None:
    def brief(episode: llmgym.Episode) -> float:
        return 0.0

    inner = Weighted({"exact": 1.0, brief: 0.0})
    assert only_reported(inner) == ["brief"]
    assert only_reported(Clipped(inner, 0.0, 1.0)) == ["Weighted.brief"]
    assert only_reported(None) == []


def test_a_run_tells_of_a_reward_that_pays_for_the_wrong_thing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real thing: a reward for saying bet whatever the card, in an environment that knows better."""

    @llmgym.register_env("WatchedCard-v0")
    class Card(llmgym.TextEnv):
        """Check, always."""

        def begin(self) -> str:
            return f"You hold {self.np_random.choice(['J', 'Q', 'K'])}. Reply with check or bet."

        def score(self, episode: llmgym.Episode) -> float:
            return float(episode.actions[0] == "check")

    GRPO(
        env="WatchedCard-v0",
        model="tiny-tools",
        scorer=lambda episode: float(episode.actions[0] == "bet"),
        steps=12,
        eval_episodes=0,
        max_tokens=8,
        learning_rate=1e-3,
        output_dir=tmp_path,
    ).train()
    said = " ".join(capsys.readouterr().out.split())
    assert "The reward rose from" in said
    assert "while 'success' fell from" in said
