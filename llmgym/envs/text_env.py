"""`TextEnv`: a conversation as a Gymnasium environment, in three methods."""

import functools
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import gymnasium

from llmgym.calls import Action, ActionLike, read_calls
from llmgym.envs.tools import Tool, Toolbox, counted
from llmgym.envs.waiting import settled, waits
from llmgym.errors import ConfigError, EnvironmentContractError
from llmgym.scorers.asking import is_waiting, judges_alone, own_copy
from llmgym.scorers.composition import reads_environment
from llmgym.scorers.expressions import resolve_scorer
from llmgym.scorers.pointwise import ScoreFunction, ScoreLike, Scorer, as_score, finite, named, score_all
from llmgym.spaces import UnicodeText
from llmgym.types import Episode, Message, Outcome, Player, Role, Said, Score, Turn, as_text, asks


class TextEnv(gymnasium.Env[str, str]):
    """The base of text environments: write `begin`, `respond` and `score`, get the Gymnasium API.

    An observation is the newest message to the agent, an action is the agent's reply. An
    environment is a pure function of its seed and the actions: all randomness comes from
    `self.np_random`.

    Class attributes:
        system_prompt: What the agent is told before the first observation, if anything; `begin` may set another one for
            its episode.
        max_turns: Replies after which an unfinished episode is truncated, and scored as it is; None for no limit.
            ``max_episode_steps`` of its registration is the same limit; the smaller one counts.
        stop: Strings that end a reply, besides those that a run names; the reply keeps them.
        max_tokens: Tokens per reply, at most, where a run allows more. None: what the run allows.
        max_episode_tokens: Sampled tokens per episode, at most, where a run allows more. None: what the run allows.
        top_score: The highest reward of an episode; its expert earns it. None if there is none.
        blocking: Whether `begin`, `respond` or `score` wait for something, such as a tool or a judge, without being
            coroutines. Environments that wait do so side by side, each in a thread.
        step_timeout: Seconds that a reset or a step may take in a rollout, scoring included; an episode that takes
            longer ends without a score. None for no limit.
        tools: Functions that the agent can call, see `llmgym.Tool`; functions of the class are methods. Replies that
            call some are answered by them, all others by `respond`. `begin` may set others for its episode, and
            `respond` for what is left of it.
        tool_timeout: Seconds that a call may take; then its answer says so. None for no limit.
        seats: Who plays each seat. Where there are several, each has an `Episode` of its own, with its own conversation
            and score. Before `begin` and `respond` return, they set `self.seat` to whose turn it is, who is told what
            they return. The reward of a step is that of the seat which replied.

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
    stop: Sequence[str] = ()
    max_tokens: int | None = None
    max_episode_tokens: int | None = None
    top_score: float | None = 1.0
    blocking: bool = False
    step_timeout: float | None = None
    tools: Sequence[Callable[..., Any] | Tool] = ()
    tool_timeout: float | None = None
    seats: Sequence[Player] = ("learner",)

    def __init__(self, *, render_mode: str | None = None, scorer: Scorer | ScoreFunction | str | None = None) -> None:
        self.observation_space = UnicodeText()
        self.action_space = UnicodeText()
        self.render_mode = render_mode
        self.episode = Episode()
        """The episode of the seat whose turn it is; once it is over, of the seat that replied last."""
        self.episodes = [self.episode]
        """The episode of each seat."""
        self.seat = 0
        """The seat whose turn it is."""
        self._replied = 0  # the seat that replied last
        self.scores: list[Score] = []
        """What the newest episode of each seat was scored, once it is over."""
        self._scorer = None if scorer is None else _alone(scorer)
        if self._scorer is not None and is_waiting(self._scorer):
            self.blocking = True
        self.heard: tuple[Message, ...] = ()
        """The newest observation as messages: what the next action answers, or the last words of an episode."""
        self._toolbox: Toolbox | None = None
        self._called: int | None = None  # calls of the episode so far, if there are tools
        self.under_way = False
        """Whether an episode has begun and is not over."""
        self.options: dict[str, Any] = {}
        """The options of the newest `reset`, for `begin`."""

    # The three methods of an environment, the fourth that validates it, and a fifth that preferences are made of.

    def begin(self) -> Said | Awaitable[Said]:
        """Draw a task from `self.np_random` and return the first observation; may be a coroutine.

        An observation is a text, which the user says, or one or more messages. The first one may be of the system, and
        earlier ones of the assistant too: a dialogue so far, or examples. The last one is a user's or a tool's.

        Whatever the scorer needs to know goes into `self.episode.task`.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement begin().")

    def respond(self, action: str) -> Said | Outcome | Awaitable[Said | Outcome | None] | None:
        """Return the answer to the agent's newest reply, or None when the episode is over; may be a coroutine.

        An `Outcome` also says what the reply earns at once, and may end the episode or cut it off with a last message.
        Replies that call `tools` do not come here.
        """
        return None

    def score(self, episode: Episode) -> ScoreLike | Awaitable[ScoreLike]:
        """Return the reward of a finished episode: a number, named parts to sum, or a `Score`; may be a coroutine.

        An environment that leaves it out has no score of its own, and is given a scorer, or its agent is.
        """
        return Score(None, error=f"{type(self).__name__} has no score(episode) of its own and was given no scorer")

    def succeeded(self, score: Score) -> bool:
        """Tell whether a scored episode counts as a success; by default one that earned the top score does.

        What its turns earned is part of the score here, as it is of `top_score`. It is not asked where the score has a
        part called ``success``, which is then the success.
        """
        return self.top_score is not None and score.value is not None and score.value >= self.top_score - 1e-6

    @staticmethod
    def final_answer(reply: str) -> str | None:
        """Return the answer in the last reply of an episode, in one form however it is put; None if there is none.

        Evaluations let the samples of a task vote with it (maj@k). Whoever gives the same answer has to be as right. An
        environment whose tasks have no such answer leaves it out.
        """
        raise NotImplementedError("This environment names no answers.")

    def expert(self) -> Iterator[ActionLike]:
        """Yield, after `reset`, a reply per turn that earns the top score; `check_env` tries it.

        A reply is a text, or a call of a tool, or several.
        """
        raise NotImplementedError(f"{type(self).__name__} has no expert().")

    def mistake(self) -> Iterator[ActionLike]:
        """Yield, after `reset`, a reply per turn: as the expert does, but for something plausible that is wrong.

        Preference data has it as the rejected side (`llmgym.data.preferences`); `check_env` makes
        sure that it earns less than the expert.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mistake().")

    @property
    def declares_success(self) -> bool:
        """Whether it says which episodes are successes: it has a top score, or a `succeeded` of its own."""
        return self.top_score is not None or type(self).succeeded is not TextEnv.succeeded

    @property
    def has_score(self) -> bool:
        """Whether it scores its episodes: it has a score of its own, or was given a scorer."""
        return self._scorer is not None or type(self).score is not TextEnv.score

    # The Gymnasium API.

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a new episode and return its first observation."""
        super().reset(seed=seed)
        self.options = options or {}
        self.episodes = [Episode(seat=seat) for seat in range(len(self.seats))]
        self.episode, self.seat, self.scores = self.episodes[0], 0, []
        said = self._messages("begin", settled(self.begin()), ("user", "tool", "assistant", "system"))
        if said[0].role == "system":
            self.episode.system_prompt, said = said[0].content, said[1:]
        if self.episode.system_prompt is None:
            self.episode.system_prompt = self.system_prompt
        if not asks(said) or any(message.role == "system" for message in said):
            raise EnvironmentContractError(
                f"{type(self).__name__}.begin has to return messages of which only the first is the system's and the "
                f"last a user's or a tool's, got the roles {', '.join(message.role for message in said) or 'system'}."
            )
        for episode in self.episodes[1:]:
            episode.task, episode.system_prompt = self.episode.task, self.episode.system_prompt
        self._seat_next()
        self._replied = self.seat
        self._called = 0 if self.toolbox else None
        self.heard, self.under_way = said, True
        return as_text(said), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take the agent's reply; the score and its named parts come with the last one.

        Returns:
            The next observation (once the episode is over, its last words), the reward, terminated,
            truncated, and the parts of the turn; at the end an info with every part of the score and
            ``success``, if it is declared, all floats; a part that is called ``success`` is the success. A score that
            is missing gives reward 0 and ``info["score_missing"] == 1.0``.
        """
        if not isinstance(action, str):
            raise EnvironmentContractError(f"An action is a string, got {type(action).__name__}: {action!r:.80}")
        if not self.under_way:
            raise gymnasium.error.ResetNeeded(
                f"Call reset() before step(): this {type(self).__name__} has no episode under way."
            )
        turn = Turn(as_text(self.heard), action, self.heard)
        self._replied = self.seat
        self.episode.turns.append(turn)
        outcome = self._outcome(settled(self._answer(action)))
        if outcome.reward or outcome.parts:
            self.episode.turns[-1] = replace(turn, reward=outcome.reward, parts=outcome.parts)
        truncated = outcome.truncated or (not outcome.over and len(self.episode.turns) >= self.turn_limit)
        ended = outcome.over or outcome.truncated
        self.heard = () if ended and not outcome.said else self._messages("respond", outcome.said)
        said = as_text(self.heard)
        if not (outcome.over or truncated):
            self._seat_next()
            return said, outcome.reward, False, False, dict(outcome.parts)
        reward, info = self.finish()
        return said, outcome.reward + reward, outcome.over, truncated, info

    def finish(self) -> tuple[float, dict[str, Any]]:
        """End the episode under way and score it as it is; `step` does so, and whoever else cuts an episode off.

        Returns:
            The score, apart from what turns earned, and the info of the last step.
        """
        self.seat = self._replied
        self.episode = self.episodes[self.seat]
        try:
            self.scores = self._score_episodes()
        finally:
            self.release_episode()
        return self.earned(self.seat)

    def earned(self, seat: int) -> tuple[float, dict[str, Any]]:
        """Return the score of a seat whose episode is over, apart from what turns earned, and the info of its end."""
        score = self.scores[seat]
        if score.value is None:
            return 0.0, {"score_missing": 1.0}
        parts = {**({} if self._called is None else counted(0, 0)), **score.parts}
        for turn in self.episodes[seat].turns:
            for name, part in turn.parts.items():
                parts[name] = parts.get(name, 0.0) + part
        total = score.value + sum(turn.reward for turn in self.episodes[seat].turns)
        declared = {"success": float(self.succeeded(replace(score, value=total)))} if self.declares_success else {}
        return score.value, {**declared, **parts}

    def release_episode(self) -> None:
        """Give back what an episode holds, such as a connection, once it is over, or cut off where nobody scores it."""
        self.under_way = False

    @property
    def scored(self) -> Score | None:
        """What the newest episode was scored, once it is over; of several seats, the one that replied last."""
        return self.scores[self.seat] if self.scores else None

    @property
    def toolbox(self) -> Toolbox:
        """The tools, ready to be called; `begin` may have chosen others for its episode."""
        if self._toolbox is None or self._toolbox.made_of != (tuple(self.tools), self.tool_timeout):
            self._toolbox = Toolbox(self.tools, self, self.tool_timeout)
        return self._toolbox

    @property
    def waits(self) -> bool:
        """Whether a reset or a step may wait for something."""
        return waits(self, "begin", "respond", "score") or self.toolbox.waits

    @functools.cached_property
    def registered_limit(self) -> int | None:
        """Replies of an episode at most, by the environment's registration; None for no limit."""
        known = self.spec is not None and self.spec.id in gymnasium.registry
        return gymnasium.registry[self.spec.id].max_episode_steps if self.spec is not None and known else None

    @property
    def turn_limit(self) -> float:
        """Replies of an episode at most, by the class and by its registration; infinity for no limit."""
        own, registered = self.max_turns, self.registered_limit
        return min(math.inf if own is None else own, math.inf if registered is None else registered)

    def render(self) -> str | None:
        """Return the conversation so far as text, in render mode ``"ansi"``."""
        if self.render_mode != "ansi":
            return None
        said = [("system", self.episode.system_prompt)] if self.episode.system_prompt else []
        for turn in self.episode.turns:
            said += [*((message.role, message.content) for message in turn.heard), ("assistant", str(turn.action))]
        said += [(message.role, message.content) for message in self.heard]
        return "\n".join(f"--- {role} ---\n{content}" for role, content in said)

    def _answer(self, action: str) -> Said | Outcome | Awaitable[Said | Outcome | None] | None:
        """Return what tools answer to a reply that calls some, and what `respond` does to any other."""
        if self._called is None:
            return self.respond(action)
        read = action if isinstance(action, Action) else read_calls(action)
        before, self._called = self._called, self._called + len(read.calls)
        return self.toolbox.answer(read, before) if read.calls else self.respond(action)

    def _messages(self, method: str, value: object, roles: Sequence[Role] = ("user", "tool")) -> tuple[Message, ...]:
        """Return what a method says as messages."""
        if isinstance(value, str):
            return (Message("user", value),)
        messages = value if isinstance(value, list | tuple) else [value]
        if not messages or not all(isinstance(one, Message) and one.role in roles for one in messages):
            end = "" if method == "begin" else ", an Outcome, or None at the end"
            raise EnvironmentContractError(
                f"{type(self).__name__}.{method} has to return a string, or messages of the roles "
                f"{', '.join(roles[:-1])} and {roles[-1]}{end}, got {type(value).__name__}: {value!r:.80}"
            )
        return tuple(messages)

    def _outcome(self, value: Any) -> Outcome:
        """Return what `respond` returned as an outcome whose numbers are finite floats."""
        if not isinstance(value, Outcome):
            return Outcome((), over=True) if value is None else Outcome(value)
        name = f"{type(self).__name__}.respond"
        if value.over and value.truncated:
            raise EnvironmentContractError(f"{name} returned an Outcome that is over and truncated; it is one of them.")
        return replace(value, reward=finite(value.reward, name, what="reward"), parts=named(value.parts, name))

    def _seat_next(self) -> None:
        """Give the turn to the seat that the environment named."""
        if not 0 <= self.seat < len(self.seats):
            raise EnvironmentContractError(
                f"{type(self).__name__} gave the turn to seat {self.seat!r:.80}, expected a number from 0 to "
                f"{len(self.seats) - 1}."
            )
        self.episode = self.episodes[self.seat]

    def _score_episodes(self) -> list[Score]:
        if self._scorer is None:
            return [self._own_score(one) for one in self.episodes]
        if reads_environment(self._scorer):
            for one in self.episodes:
                one.scored = self._own_score(one)
        scores: list[Score] = settled(score_all(self._scorer, list(map(own_copy, self.episodes))))
        return scores

    def _own_score(self, episode: Episode) -> Score:
        return as_score(settled(self.score(episode)), len(episode.turns), f"{type(self).__name__}.score")


def _alone(scorer: Scorer | ScoreFunction | str) -> Scorer:
    found = judges_alone(resolve_scorer(scorer))
    if found is None:
        raise ConfigError(
            f"scorer: {scorer!r:.80} compares episodes, of which an environment has one at a time; give it to an agent."
        )
    return found
