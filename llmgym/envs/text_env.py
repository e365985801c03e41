"""`TextEnv`: a conversation as a Gymnasium environment, in three methods."""

import functools
import math
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any

import gymnasium

from llmgym.envs.waiting import settled
from llmgym.errors import ConfigError, EnvironmentContractError
from llmgym.scorers.asking import is_waiting, judges_alone
from llmgym.scorers.names import resolve_scorer
from llmgym.scorers.pointwise import FunctionScorer, ScoreFunction, ScoreLike, Scorer, score_all
from llmgym.spaces import UnicodeText
from llmgym.types import Episode, Message, Score, Turn, as_text

Said = str | Message | Sequence[Message]
"""What an environment says: a text, which is a user's message, or one or more messages of users and tools."""


class TextEnv(gymnasium.Env[str, str]):
    """The base of text environments: write `begin`, `respond` and `score`, get the Gymnasium API.

    An observation is the newest message to the agent, an action is the agent's reply. An
    environment is a pure function of its seed and the actions: all randomness comes from
    `self.np_random`.

    Class attributes:
        system_prompt: What the agent is told before the first observation, if anything.
        max_turns: Replies after which an unfinished episode is truncated, and scored as it is; None for no limit.
            ``max_episode_steps`` of its registration is the same limit; the smaller one counts.
        top_score: The highest reward of an episode; its expert earns it. None if there is none.
        blocking: Whether `begin`, `respond` or `score` wait for something, such as a tool or a judge, without being
            coroutines. Environments that wait do so side by side, each in a thread.
        step_timeout: Seconds that a reset or a step may take in a rollout, scoring included; an episode that takes
            longer ends without a score. None for no limit.

    Args:
        render_mode: ``"ansi"`` to let `render` return the conversation so far.
        scorer: Replaces the environment's own `score`, which scores its episodes where none is given: a
            `Scorer`, a function of an episode, or the name of a registered scorer.

    Raises:
        ConfigError: The scorer compares episodes; an environment has one at a time.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012  # Gymnasium declares it so
    system_prompt: str | None = None
    max_turns: int | None = None
    top_score: float | None = 1.0
    blocking: bool = False
    step_timeout: float | None = None

    def __init__(self, *, render_mode: str | None = None, scorer: Scorer | ScoreFunction | str | None = None) -> None:
        self.observation_space = UnicodeText()
        self.action_space = UnicodeText()
        self.render_mode = render_mode
        self.episode = Episode()
        self.scored: Score | None = None
        """What the newest episode was scored, once it is over."""
        self._scorer = None if scorer is None else _alone(scorer)
        if self._scorer is not None and is_waiting(self._scorer):
            self.blocking = True
        self.heard: tuple[Message, ...] = ()
        """The newest observation as messages: what the next action answers; none if no episode is under way."""

    # The three methods of an environment, the fourth that validates it, and a fifth that preferences are made of.

    def begin(self) -> Said | Awaitable[Said]:
        """Draw a task from `self.np_random` and return the first observation; may be a coroutine.

        An observation is a text, which the user says, or one or more messages of users and tools.

        Whatever the scorer needs to know goes into `self.episode.task`.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement begin().")

    def respond(self, action: str) -> Said | Awaitable[Said | None] | None:
        """Return the answer to the agent's newest reply, or None when the episode is over; may be a coroutine."""
        return None

    def score(self, episode: Episode) -> ScoreLike | Awaitable[ScoreLike]:
        """Return the reward of a finished episode: a number, named parts to sum, or a `Score`; may be a coroutine.

        An environment that leaves it out has no score of its own, and is given a scorer, or its agent is.
        """
        return Score(None, error=f"{type(self).__name__} has no score(episode) of its own and was given no scorer")

    def succeeded(self, score: Score) -> bool:
        """Tell whether a scored episode counts as a success; by default one with the top score does.

        It is not asked where the score has a part called ``success``, which is then the success.
        """
        return self.top_score is not None and score.value is not None and score.value >= self.top_score - 1e-6

    def expert(self) -> Iterator[str]:
        """Yield, after `reset`, a reply per turn that earns the top score; `check_env` tries it."""
        raise NotImplementedError(f"{type(self).__name__} has no expert().")

    def mistake(self) -> Iterator[str]:
        """Yield, after `reset`, a reply per turn: as the expert does, but for something plausible that is wrong.

        Preference data has it as the rejected side (`llmgym.data.preferences`); `check_env` makes
        sure that it earns less than the expert.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mistake().")

    # The Gymnasium API.

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a new episode and return its first observation."""
        super().reset(seed=seed)
        self.episode = Episode(system_prompt=self.system_prompt)
        self.scored = None
        self.heard = self._messages("begin", settled(self.begin()))
        return as_text(self.heard), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take the agent's reply; the reward and its named parts come with the last one.

        Returns:
            The next observation (empty once the episode is over), the reward, terminated,
            truncated, and at the end an info with every part of the score and ``success``, all
            floats; a part that is called ``success`` is the success. A score that is missing
            gives reward 0 and ``info["score_missing"] == 1.0``.
        """
        if not isinstance(action, str):
            raise EnvironmentContractError(f"An action is a string, got {type(action).__name__}: {action!r:.80}")
        if not self.heard:
            raise gymnasium.error.ResetNeeded(
                f"Call reset() before step(): this {type(self).__name__} has no episode under way."
            )
        self.episode.turns.append(Turn(as_text(self.heard), action, self.heard))
        answer = settled(self.respond(action))
        terminated = answer is None
        truncated = not terminated and len(self.episode.turns) >= self.turn_limit
        if not (terminated or truncated):
            self.heard = self._messages("respond", answer)
            return as_text(self.heard), 0.0, False, False, {}
        reward, info = self.finish()
        last = "" if answer is None else as_text(self._messages("respond", answer))
        return last, reward, terminated, truncated, info

    def finish(self) -> tuple[float, dict[str, Any]]:
        """End the episode under way and score it as it is; `step` does so, and whoever else cuts an episode off.

        Returns:
            The reward and the info of the last step.
        """
        self.heard = ()
        self.scored = score = self._score_episode()
        if score.value is None:
            return 0.0, {"score_missing": 1.0}
        return score.value, {"success": float(self.succeeded(score)), **score.parts}

    @property
    def under_way(self) -> bool:
        """Whether an episode has begun and is not over."""
        return bool(self.heard)

    @functools.cached_property
    def registered_limit(self) -> int | None:
        """Replies of an episode at most, by the environment's registration; None for no limit."""
        known = self.spec is not None and self.spec.id in gymnasium.registry
        return gymnasium.registry[self.spec.id].max_episode_steps if self.spec is not None and known else None

    @property
    def turn_limit(self) -> float:
        """Replies of an episode at most, by the class and by its registration; infinity for no limit."""
        return min(limit for limit in (self.max_turns, self.registered_limit, math.inf) if limit is not None)

    def render(self) -> str | None:
        """Return the conversation so far as text, in render mode ``"ansi"``."""
        if self.render_mode != "ansi":
            return None
        lines = [f"--- {message.role} ---\n{message.content}" for message in self.episode.messages]
        lines += [f"--- {message.role} ---\n{message.content}" for message in self.heard]
        return "\n".join(lines)

    def _messages(self, method: str, value: object) -> tuple[Message, ...]:
        """Return an observation as messages."""
        said = Message("user", value) if isinstance(value, str) else value
        messages = said if isinstance(said, list | tuple) else [said]
        if not messages or not all(isinstance(one, Message) and one.role in ("user", "tool") for one in messages):
            end = "" if method == "begin" else ", or None at the end"
            raise EnvironmentContractError(
                f"{type(self).__name__}.{method} has to return a string, or messages of the roles user and tool{end}, "
                f"got {type(value).__name__}: {value!r:.80}"
            )
        return tuple(messages)

    def _score_episode(self) -> Score:
        scorer = self._scorer or FunctionScorer(self.score, f"{type(self).__name__}.score")
        scores: list[Score] = settled(score_all(scorer, [self.episode]))
        return scores[0]


def _alone(scorer: Scorer | ScoreFunction | str) -> Scorer:
    found = judges_alone(resolve_scorer(scorer))
    if found is None:
        raise ConfigError(
            f"scorer: {scorer!r:.80} compares episodes, of which an environment has one at a time; give it to an agent."
        )
    return found
