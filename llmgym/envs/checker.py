"""`check_env`: whether an environment keeps the promises that training relies on."""

import itertools
import warnings
from collections.abc import Callable, Iterator
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


def check_env(env: gymnasium.Env[str, str], *, seeds: int = 20) -> None:
    """Check a text environment: Gymnasium's contract, purity, its scoring, and that its expert is one.

    Args:
        env: The environment.
        seeds: How many episodes are played with random replies, and how many by the expert
            if there is one; as many with its mistakes if it has some. Not where several seats play.

    Raises:
        EnvironmentContractError: What is wrong, in a sentence.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            gymnasium_check_env(env.unwrapped, skip_render_check=env.render_mode is None)
        except (AssertionError, ValueError, Warning) as error:
            raise EnvironmentContractError(f"Gymnasium's check_env: {error}") from error
    ends = [_play_twice(env, seed, partial(_random_replies, seed))[-1] for seed in range(seeds)]
    inner = env.unwrapped
    if ends and all("score_missing" in info for *_, info in ends):
        reason = getattr(getattr(inner, "scored", None), "error", None) or "it does not say why"
        raise EnvironmentContractError(f"None of {seeds} episodes has a score, the last since {reason}.")
    if not has_expert(inner) or len(inner.seats) > 1:  # of which nobody's reward is that of the episode
        return
    for seed in range(seeds):
        total = _total(inner, seed, "expert")
        if inner.top_score is not None and abs(total - inner.top_score) > 1e-6:
            raise EnvironmentContractError(f"The expert earned {total} on seed {seed}, expected {inner.top_score}.")
        if has_mistakes(inner) and (wrong := _total(inner, seed, "mistake")) >= total:
            raise EnvironmentContractError(
                f"The mistake earned {wrong} on seed {seed}, expected less than the expert's {total}."
            )


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
