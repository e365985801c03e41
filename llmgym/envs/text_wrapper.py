"""`TextWrapper`: any Gymnasium environment, played in words."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from llmgym.envs.reading import last_named
from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError
from llmgym.scorers.pointwise import as_number
from llmgym.types import Episode, Outcome, Score

AnyEnv = gymnasium.Env[Any, Any]
Makes = Callable[[np.random.Generator], AnyEnv]
Describes = Callable[[AnyEnv, Any], str]
Parses = Callable[[str], Any | None]


class TextWrapper(TextEnv):
    """Another Gymnasium environment as a text environment.

    An observation of the other environment is described in words, and a reply is read as one of its actions. Its
    rewards are rewards of turns, and its ``terminated`` and ``truncated`` stay what they are. A reply that names no
    action takes a turn and earns `invalid_reward`; the other environment does not notice. The last ``info`` counts
    such replies as ``invalid``.

    The seed of every episode comes from `self.np_random`, so an episode is a function of its own seed if the other
    environment is pure. For an expert, subclass it and write `expert`.

    Args:
        env: The other environment; or a function of the episode's random generator that makes one for each episode,
            for environments that draw something only when they are made.
        describe: A function of the other environment and its newest observation that returns what the agent is told,
            after the end too.
        actions: Names with the actions that they stand for; the last name in a reply counts, in upper or lower case.
            Or a function that reads an action from any text, and returns None if there is none.
        rules: What is said before the first observation.
        ask: What a reply without an action is told; by default the names of the actions.
        invalid_reward: What a reply without an action earns. Where every step costs something, it should cost no less,
            or silence pays.
        max_turns: Replies after which an unfinished episode is truncated, those without an action included.
        won: A function of the last reward, and of whether the other environment terminated, that tells whether an
            episode is a success. By default it is one if it terminated with a reward above 0.
        top_score: The highest return of an episode, if it is known.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.

    Raises:
        ConfigError: Names are missing or equal but for their case, or a number is out of range.

    Example:
        >>> cliff = TextWrapper(
        ...     gymnasium.make("CliffWalking-v1"),
        ...     describe=lambda env, state: f"You are in row {state // 12}, column {state % 12}.",
        ...     actions={"up": 0, "right": 1, "down": 2, "left": 3},
        ...     rules="Go from row 3, column 0 to row 3, column 11. Between them is a cliff.",
        ... )
        >>> print(cliff.reset(seed=0)[0])
        Go from row 3, column 0 to row 3, column 11. Between them is a cliff.
        You are in row 3, column 0.
        >>> cliff.step("I go up.")[:2]
        ('You are in row 2, column 0.', -1.0)
    """

    top_score = None

    def __init__(
        self,
        env: AnyEnv | Makes,
        describe: Describes,
        actions: Mapping[str, Any] | Parses,
        *,
        rules: str = "",
        ask: str | None = None,
        invalid_reward: float = -1.0,
        max_turns: int = 200,
        won: Callable[[float, bool], bool] = lambda reward, terminated: terminated and reward > 0,
        top_score: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if isinstance(max_turns, bool) or not isinstance(max_turns, int) or max_turns < 1:
            raise ConfigError(f"max_turns has to be an integer of at least 1, got {max_turns!r:.80}.")
        if (number := as_number(invalid_reward)) is None or not np.isfinite(number):
            raise ConfigError(f"invalid_reward has to be a finite number, got {invalid_reward!r:.80}.")
        self.inner: AnyEnv | None = env if isinstance(env, gymnasium.Env) else None
        """The other environment."""
        self._make = None if isinstance(env, gymnasium.Env) else env
        self._describe = describe
        self._read = actions if callable(actions) else _by_name(actions)
        names = "" if callable(actions) else f" Reply with one of: {', '.join(actions)}."
        self._ask = f"That names no action.{names}" if ask is None else ask
        self._rules = rules
        self._invalid_reward = number
        self._won = won
        self._last = (0.0, False)
        self.max_turns = max_turns
        self.top_score = top_score

    def begin(self) -> str:
        """Reset the other environment, or make it, and describe where it begins."""
        if self._make is not None:
            self.close()
            self.inner = self._make(self.np_random)
        assert self.inner is not None, "it is given, or has just been made"
        observation, _ = self.inner.reset(seed=int(self.np_random.integers(2**31)))
        self._last = (0.0, False)
        self._seen = self._describe(self.inner, observation)
        return "\n".join([self._rules, self._seen]) if self._rules else self._seen

    def respond(self, action: str) -> Outcome:
        """Take the action that the reply names."""
        assert self.inner is not None, "reset comes before step"
        meant = self._read(action)
        if meant is None:
            return Outcome(f"{self._ask}\n{self._seen}", self._invalid_reward, {"invalid": 1.0})
        observation, reward, terminated, truncated, _ = self.inner.step(meant)
        self._last = (float(reward), bool(terminated))
        self._seen = self._describe(self.inner, observation)
        over = bool(terminated)
        return Outcome(self._seen, float(reward), {"invalid": 0.0}, over, bool(truncated) and not over)

    def score(self, episode: Episode) -> Score:
        """Add nothing to the rewards of the turns."""
        return Score(0.0)

    def succeeded(self, score: Score) -> bool:
        """Tell whether the other environment was won."""
        return bool(self._won(*self._last))

    def close(self) -> None:
        """Close the other environment."""
        if self.inner is not None:
            self.inner.close()


def _by_name(actions: Mapping[str, Any]) -> Parses:
    """Return what reads an action by its name."""
    if not actions or len({str(name).lower() for name in actions}) < len(actions):
        raise ConfigError(f"actions has to have names that differ in more than their case, got {list(actions)}.")

    def read(reply: str) -> Any | None:
        name = last_named(reply, actions)
        return None if name is None else actions[name]

    return read
