"""`check_env`: whether an environment keeps the promises that training relies on."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
from gymnasium.utils.env_checker import check_env as gymnasium_check_env

from llmgym.calls import ActionLike, as_action
from llmgym.envs.experts import has_expert, has_mistakes
from llmgym.envs.text_env import TextEnv
from llmgym.errors import EnvironmentContractError
from llmgym.spaces import UnicodeText

Transcript = list[tuple[Any, ...]]
Replies = Callable[[], Iterator[ActionLike]]

_MOST_TURNS = 100  # of an episode with random replies


@dataclass(frozen=True, slots=True)
class Check:
    """One of the promises that `check_env` and ``llmgym check`` look into.

    Attributes:
        name: What it looks into.
        run: Looks into it, given an environment and a number of seeds; returns what it saw.
    """

    name: str
    run: Callable[[gymnasium.Env[str, str], int], str]


def check_env(env: gymnasium.Env[str, str], *, seeds: int = 20) -> None:
    """Check a text environment: Gymnasium's contract, purity, its scoring, and that its expert is one.

    Args:
        env: The environment.
        seeds: How many episodes are played with random replies, and how many by the expert
            if there is one; as many with its mistakes if it has some. Not where several seats play.

    Raises:
        EnvironmentContractError: What is wrong, in a sentence.
    """
    for check in CHECKS:
        check.run(env, seeds)


def _keeps_gymnasiums_contract(env: gymnasium.Env[str, str], seeds: int) -> str:
    for name in ("observation", "action"):
        space: object = getattr(env.unwrapped, f"{name}_space", None)
        if isinstance(space, gymnasium.Space) and not isinstance(space.sample(), str):
            raise EnvironmentContractError(
                f"The {name} space of {env.unwrapped} has to contain texts, as llmgym.UnicodeText does, got {space}."
            )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            gymnasium_check_env(env.unwrapped, skip_render_check=env.render_mode is None)
        except (AssertionError, ValueError, Warning) as error:
            raise EnvironmentContractError(f"Gymnasium's check_env: {error}") from error
    return "kept"


def _is_pure_and_scores(env: gymnasium.Env[str, str], seeds: int) -> str:
    transcripts = [_play_twice(env, seed, partial(_random_replies, seed)) for seed in range(seeds)]
    ends = [transcript[-1] for transcript in transcripts]
    missing = sum("score_missing" in info for *_, info in ends)
    if ends and missing == len(ends):
        reason = getattr(getattr(env.unwrapped, "scored", None), "error", None) or "it does not say why"
        raise EnvironmentContractError(f"None of {seeds} episodes has a score. The last reason: {reason}.")
    top = getattr(env.unwrapped, "top_score", None)
    for seed, transcript in enumerate(transcripts):
        total = float(sum(step[1] for step in transcript))
        if top is not None and total > top + 1e-6:
            raise EnvironmentContractError(
                f"Random replies earned {total:g} on seed {seed}, expected at most the top_score of {top:g}; a class "
                "whose episodes can earn more says so with top_score, or that there is no such limit with None."
            )
    return f"equal episodes for equal replies on {seeds} seeds" + (f", {missing} without a score" if missing else "")


def _expert_is_one(env: gymnasium.Env[str, str], seeds: int) -> str:
    inner = env.unwrapped
    if not has_expert(inner):
        return "skipped: it has no expert"
    if len(inner.seats) > 1:
        return "skipped: with several seats, nobody's reward is that of the episode"
    totals = [_total(inner, seed, "expert") for seed in range(seeds)]
    if inner.top_score is None:
        return f"{min(totals):g} to {max(totals):g} on {seeds} seeds" if totals else "no seeds"
    for seed, total in enumerate(totals):
        if abs(total - inner.top_score) > 1e-6:
            raise EnvironmentContractError(f"The expert earned {total} on seed {seed}, expected {inner.top_score}.")
    return f"{inner.top_score:g} on {seeds} seeds"


def _mistakes_are_worse(env: gymnasium.Env[str, str], seeds: int) -> str:
    inner = env.unwrapped
    if not has_expert(inner) or not has_mistakes(inner):
        return "skipped: it has no mistake"
    worse = []
    for seed in range(seeds):
        total, wrong = _total(inner, seed, "expert"), _total(inner, seed, "mistake")
        if wrong >= total:
            raise EnvironmentContractError(
                f"The mistake earned {wrong} on seed {seed}, expected less than the expert's {total}."
            )
        worse.append(wrong)
    return f"{min(worse):g} to {max(worse):g} on {seeds} seeds" if worse else "no seeds"


CHECKS = (
    Check("Gymnasium's contract", _keeps_gymnasiums_contract),
    Check("random replies", _is_pure_and_scores),
    Check("the expert earns the top score", _expert_is_one),
    Check("a mistake earns less", _mistakes_are_worse),
)
"""What is checked, in this order."""


def _total(env: TextEnv, seed: int, who: str) -> float:
    """Play the environment's own ``expert`` or ``mistake``; return the reward."""
    transcript = _play_twice(env, seed, getattr(env, who))
    _, _, terminated, truncated, _ = transcript[-1]
    if not (terminated or truncated):
        raise EnvironmentContractError(f"The {who} ran out of replies on seed {seed} before the episode was over.")
    return float(sum(step[1] for step in transcript))


def _play_twice(env: gymnasium.Env[str, str], seed: int, replies: Replies) -> Transcript:
    first, second = _play(env, seed, replies), _play(env, seed, replies)
    if first != second:
        raise EnvironmentContractError(
            f"Seed {seed} gave two different episodes for the same actions: use self.np_random and nothing else."
        )
    return first


def _play(env: gymnasium.Env[str, str], seed: int, replies: Replies) -> Transcript:
    observation, _ = env.reset(seed=seed)
    transcript: Transcript = [(observation, 0.0, False, False, {})]
    limited = env.spec is not None and env.spec.max_episode_steps is not None  # Gymnasium's TimeLimit may say both
    for action in replies():
        transcript.append(env.step(as_action(action)))
        _, _, terminated, truncated, _ = transcript[-1]
        if terminated and truncated and not limited:
            raise EnvironmentContractError(f"Seed {seed} ended terminated and truncated; an episode is one of them.")
        if terminated or truncated:
            break
    return transcript


def _random_replies(seed: int) -> Iterator[str]:
    space = UnicodeText(seed=seed)
    return itertools.islice(iter(space.sample, None), _MOST_TURNS)
