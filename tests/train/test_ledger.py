"""What became of every episode: sums add up, what failed votes nowhere, and a run that mostly fails is stopped."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import llmgym
from llmgym import Episode
from llmgym.agents import GRPO, OPO, PPO, SPIN, SPPO, IterativeDPO
from llmgym.envs.faults import EpisodeLostError
from llmgym.errors import FailureRateError, TrainingError
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers import Weighted
from llmgym.train.ledger import account

SMALL: dict[str, Any] = {"max_tokens": 40, "eval_episodes": 0, "sample_every": 0, "max_grad_norm": 1e9}
PLAYED: dict[str, Any] = {**SMALL, "prompts_per_step": 4, "group_size": 6, "updates_per_step": 1}


def noisy(episode: Episode) -> float:
    """Pay differently for nearly everything that is said."""
    return sum(map(ord, "".join(episode.actions))) % 97 / 97


@pytest.fixture(scope="module")
def episodes() -> list[Trajectory]:
    agent = GRPO(scorer=noisy, temperature=1.5, **PLAYED)
    played = agent.trainer.steps._roll_out(1)[0]
    agent.close()
    return played


def failed(episodes: list[Trajectory], share: float) -> tuple[list[Trajectory], list[Trajectory]]:
    """Let some episodes fail, in three ways; return all of them, and the others alone."""
    chance = random.Random(share)
    lost = set(chance.sample(range(len(episodes)), max(1, round(share * len(episodes)))))
    found = copy.deepcopy(episodes)
    for number, one in enumerate(found):
        one.number = number
        if number in lost:
            how = chance.randrange(3)
            if how == 0:
                one.fail(EpisodeLostError("env_error", "it broke"))
            else:
                one.score, one.ending = None, "terminated" if how == 1 else "context"
    return found, [one for number, one in enumerate(found) if number not in lost]


def gradient(kind: Any, options: dict[str, Any], given: list[Trajectory]) -> dict[str, torch.Tensor]:
    """Return the gradient of an update from these episodes."""
    agent = kind(**{**PLAYED, **options})
    trainer = agent.trainer
    trainer.student.begin(trainer.learner)
    for number, one in enumerate(given):
        one.number = number
    trainer.steps._played = given, given
    batch = agent.prepare([one for one in given if one.tokens])
    if batch is not None:
        trainer.steps.learn(1, batch)
    agent.close()
    named = trainer.learner.loss.named_parameters()
    return {name: one.grad.clone() for name, one in named if one.grad is not None}


KINDS = [
    (GRPO, {}),
    (GRPO, {"kl_coef": 0.1, "aggregation": "seq-mean-token-mean"}),
    (GRPO, {"advantage": "reinforce_plus_plus_baseline"}),
    (PPO, {"critic": "own"}),
    (OPO, {}),
    (SPPO, {}),
    (IterativeDPO, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=lambda one: getattr(one, "__name__", str(one)))
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.92])
def test_the_gradient_is_that_of_the_survivors_alone(
    kind: Any, options: dict[str, Any], share: float, episodes: list[Trajectory]
) -> None:
    everyone, survivors = failed(episodes, share)
    found, expected = gradient(kind, options, everyone), gradient(kind, options, survivors)
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, atol=1e-6, rtol=1e-5)
    if share < 0.9 and kind is not IterativeDPO:
        assert any(one.abs().max() > 1e-4 for one in expected.values())


def test_every_episode_has_one_fate(episodes: list[Trajectory]) -> None:
    everyone, survivors = failed(episodes, 0.5)
    for kind, options in KINDS:
        agent = kind(**{**PLAYED, **options})
        found = account(everyone, everyone, agent.prepare(everyone), lambda one: True)
        fates = {name: found[name] for name in found if name.startswith("episodes/") and name != "episodes/asked"}
        assert sum(fates.values()) == found["episodes/asked"] == len(everyone)
        assert sum(count for name, count in fates.items() if "masked" in name) >= len(everyone) - len(survivors)
        assert found["untrained"] == pytest.approx(1 - fates["episodes/trained"] / len(everyone))
        if kind is GRPO:
            assert fates["episodes/trained"] == len(survivors)
            assert {"episodes/masked/env_error", "episodes/masked/no_score", "episodes/masked/context"} < fates.keys()


def test_episodes_in_which_nothing_was_said_are_told_apart() -> None:
    broken, long, idle = (Trajectory(seed=0, group=0, number=number, ending="context") for number in range(3))
    long.messages.append(llmgym.Message("user", "x" * 9))
    broken.fail(EpisodeLostError("env_error", "it broke"))
    idle.ending, idle.score = "terminated", 1.0
    found = account([broken, long, idle], [broken, long, idle], None, lambda one: True)
    fates = {name for name in found if name.startswith("episodes/masked")}
    assert fates == {"episodes/masked/env_error", "episodes/masked/overlong", "episodes/masked/no_turn"}


def test_an_episode_that_is_counted_twice_is_an_error(episodes: list[Trajectory]) -> None:
    everyone, _ = failed(episodes, 0.1)
    everyone[3].number = 4
    with pytest.raises(TrainingError, match="some were lost or counted twice"):
        account(everyone, everyone, None, lambda one: True)


@llmgym.register_scorer("failing-now-and-then")
def failing(episode: Episode) -> float:
    if sum(map(ord, "".join(episode.actions))) % 10 == 0:
        raise OSError("no route to host 10.0.0.7")
    return noisy(episode)


def test_a_run_says_what_became_of_its_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {**PLAYED, "temperature": 1.5, "max_failure_rate": 1.0, "output_dir": tmp_path, "rollouts_per_step": 2}
    (run,) = [GRPO(scorer=Weighted({"env": 0.5, "failing-now-and-then": 0.5}), **options).train(steps=2).path]
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        fates = [row[name] for name in row if name.startswith("episodes/") and name != "episodes/asked"]
        assert sum(fates) == row["episodes/asked"] >= 24
        assert row["episode_tokens"] > 0
        assert row["episode_tokens_trained"] > 0
    assert "untrained" in capsys.readouterr().out


def test_a_run_without_failures_shows_no_column_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (metrics,) = GRPO(**PLAYED, output_dir=tmp_path).train(steps=1).metrics
    assert metrics["episodes/trained"] == metrics["episodes/asked"] == 24
    assert metrics["episode_tokens"] == metrics["episode_tokens_trained"]
    assert "untrained" not in capsys.readouterr().out


def test_an_episode_of_demonstrations_is_nobodys(tmp_path: Path) -> None:
    (metrics,) = SPIN(**PLAYED, output_dir=tmp_path).train(steps=1).metrics
    assert metrics["episodes/trained"] == 24


@pytest.mark.parametrize("parts", [{"failing-half": 1.0}, {"env": 0.5, "failing-half": 0.5}])
def test_a_run_whose_scorer_fails_too_often_stops_and_says_why(parts: dict[str, float], tmp_path: Path) -> None:
    @llmgym.register_scorer("failing-half")
    def half(episode: Episode) -> float:
        said = sum(map(ord, "".join(episode.actions)))
        if said % 2:
            raise OSError(f"no route to host {said}")
        return 1.0

    with pytest.raises(FailureRateError, match=r"max_failure_rate.*\n\d+ times: .*raised OSError: no route to host"):
        GRPO(scorer=Weighted(parts), temperature=1.5, **PLAYED, output_dir=tmp_path).train(steps=3)
    assert not list(tmp_path.iterdir())
