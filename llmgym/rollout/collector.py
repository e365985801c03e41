"""`Collector`: steps environments through whole episodes, reacting to whichever reply is done."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from llmgym.config.sections import Sampling
from llmgym.engines.base import Completion, Engine, GenerationRequest
from llmgym.envs.vector import StepResult, TextVectorEnv
from llmgym.errors import ContextOverflowError, EnvironmentContractError, StaleCompletionError
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.scoring import episode_of, score_again
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers.names import AnyScorer
from llmgym.scorers.pointwise import as_number
from llmgym.types import Episode, Message, well_formed


@dataclass(frozen=True, slots=True)
class Task:
    """What one episode is about.

    Attributes:
        seed: The seed of its environment.
        group: Episodes of one group have the same seed and have to see the same first observation.
    """

    seed: int
    group: int


_FEW_TASKS = 20  # a share of fewer says little
_NONE_OF = 4  # but none of so many says enough

_CUT_OFF = {"context": "the episode outgrew the context", "max_tokens": "the episode used its tokens up"}


class Collector:
    """Plays episodes: environments on one side, an engine on the other.

    There is no barrier: whichever replies are done are stepped together, and the episodes
    still alive are submitted again at once, so a slow episode delays nobody. Where there are
    more tasks than environments, an environment that is free takes the next task.

    A task whose first observation leaves no room for a reply gives an episode without replies
    and without a score, which ends as one that outgrew the context does.

    Args:
        envs: The environments.
        codec: Turns their texts into tokens.
        engine: Samples the replies.
        scorer: Scores the episodes of a rollout in the place of the environments.
        max_overlong: Largest share of tasks that may not fit the context, of all so far and at least `_FEW_TASKS`;
            but where the first `_NONE_OF` do not, none will.
    """

    def __init__(
        self,
        envs: TextVectorEnv,
        codec: ChatCodec,
        engine: Engine,
        scorer: AnyScorer | None = None,
        max_overlong: float = 0.25,
    ) -> None:
        self.envs, self.codec, self.engine, self.scorer = envs, codec, engine, scorer
        self.max_overlong = max_overlong
        self._tasks = self._overlong = 0  # so far
        self._stop_token_ids = codec.stop_token_ids

    def collect(self, tasks: Sequence[Task], sampling: Sampling, seed: int = 0) -> list[Trajectory]:
        """Play one episode per task; returns them in the order of the tasks.

        Args:
            tasks: What to play.
            sampling: How replies are sampled.
            seed: Start of every reply's own seed.

        Raises:
            ContextOverflowError: More first observations leave no room for a reply than may do so.
            EnvironmentContractError: Siblings of a group differ in their first observation.
            StaleCompletionError: A reply was sampled by other weights than the engine's current ones.
        """
        trajectories = [Trajectory(task.seed, task.group) for task in tasks]
        try:
            episodes = self._play(trajectories, sampling, seed)
        except BaseException:
            self.engine.abort()
            raise
        self._count_overlong(trajectories)
        if self.scorer is not None:
            score_again(self.scorer, trajectories, episodes)
        return trajectories

    def _count_overlong(self, trajectories: Sequence[Trajectory]) -> None:
        """Stop where too many tasks do not fit: then the context is too short, or the task is another one."""
        overlong = {trajectory.group: trajectory for trajectory in trajectories if trajectory.overlong}
        self._tasks += len({trajectory.group for trajectory in trajectories})
        self._overlong += len(overlong)
        none_fits = self._overlong == self._tasks and self._tasks >= _NONE_OF
        if overlong and (none_fits or self._overlong > self.max_overlong * max(self._tasks, _FEW_TASKS)):
            example = next(iter(overlong.values()))
            raise ContextOverflowError(
                f"The first observations of {self._overlong} of {self._tasks} tasks leave no room for a reply in a "
                f"context of {self.engine.context_length} tokens, that of seed {example.seed} takes "
                f"{len(example.tokens)}: expected a share of at most {self.max_overlong:g} (max_overlong). "
                "Raise context_length, if the model can take more, or shorten the task."
            )

    def _play(self, trajectories: list[Trajectory], sampling: Sampling, seed: int) -> dict[int, Episode]:
        """Play all episodes; return what was said in those that their environments ended, by index."""
        episodes: dict[int, Episode] = {}
        first_of: dict[int, Trajectory] = {}  # by group
        waiting = deque(range(len(trajectories)))
        free = list(range(self.envs.num_envs))[::-1]
        env_of: dict[int, int] = {}  # by episode
        while waiting or env_of:
            ready = []
            while waiting and free:
                episode = waiting.popleft()
                env_of[episode] = free.pop()
                self._begin(trajectories[episode], env_of[episode], first_of)
                if trajectories[episode].ending is None:
                    ready.append(episode)
                else:
                    free.append(env_of.pop(episode))
            self.engine.submit([self._request(episode, trajectories[episode], sampling, seed) for episode in ready])

            completions = self.engine.wait()
            for completion in completions:
                self._check_version(completion)
                trajectories[completion.request_id].act(completion)
            alive, over = self._step([c.request_id for c in completions], trajectories, env_of, sampling)
            self.engine.submit([self._request(episode, trajectories[episode], sampling, seed) for episode in alive])
            self.engine.release(over)
            for episode in over:
                free.append(env_of.pop(episode))
                self._end(episode, trajectories[episode], free[-1], episodes)
        return dict(sorted(episodes.items()))  # by index: in which order they ended changes nothing

    def _begin(self, trajectory: Trajectory, env: int, first_of: dict[int, Trajectory]) -> None:
        observation, _ = self.envs.reset_one(env, seed=trajectory.seed)
        system = self.envs.system_prompt(env)
        trajectory.messages = [Message("system", system)] if system else []
        trajectory.messages.append(Message("user", observation))
        _check_sibling(trajectory, first_of.setdefault(trajectory.group, trajectory))
        trajectory.observe(self.codec.prompt(trajectory.messages))
        if len(trajectory.tokens) >= self.engine.context_length:
            trajectory.ending = "context"
            trajectory.score_error = (
                f"the first observation of seed {trajectory.seed} takes {len(trajectory.tokens)} tokens and leaves no "
                f"room for a reply in a context of {self.engine.context_length}"
            )

    def _check_version(self, completion: Completion) -> None:
        """Weights change between rollouts and never within one, so a reply of another version is the engine's fault."""
        if completion.weight_version != self.engine.weight_version:
            raise StaleCompletionError(
                f"The engine has weights of version {self.engine.weight_version}, but a reply of episode "
                f"{completion.request_id} was sampled by version {completion.weight_version}: the rollout ends here, "
                "for nothing that other weights sampled is trained on."
            )

    def _request(self, episode: int, trajectory: Trajectory, sampling: Sampling, seed: int) -> GenerationRequest:
        return GenerationRequest(
            request_id=episode,
            episode_id=episode,
            tokens=trajectory.context,
            max_tokens=min(
                sampling.max_tokens,
                _tokens_left(trajectory, sampling),
                self.engine.context_length - trajectory.context_length,
            ),
            stop_token_ids=self._stop_token_ids,
            sampling=sampling,
            seed=(seed << 64) + (episode << 16) + len(trajectory.replies),
        )

    def _step(
        self, episodes: list[int], trajectories: list[Trajectory], env_of: dict[int, int], sampling: Sampling
    ) -> tuple[list[int], list[int]]:
        """Answer the newest replies of `episodes`; return which of them go on and which are over."""
        actions = {}
        for episode in episodes:
            trajectory = trajectories[episode]
            action = self.codec.text(trajectory.newest_reply)
            trajectory.messages.append(Message("assistant", action))
            actions[env_of[episode]] = action
        results = self.envs.step_some(actions)
        alive: list[int] = []
        over: list[int] = []
        for episode in episodes:
            self._answer(trajectories[episode], results[env_of[episode]], sampling)
            (over if trajectories[episode].ending else alive).append(episode)
        return alive, over

    def _answer(self, trajectory: Trajectory, result: StepResult, sampling: Sampling) -> None:
        trajectory.replies[-1].reward = result.reward
        if result.terminated or result.truncated:
            trajectory.ending = "terminated" if result.terminated else "truncated"
            numbers = {well_formed(str(key)): as_number(part) for key, part in result.info.items()}
            trajectory.parts = {key: part for key, part in numbers.items() if part is not None}
            missing = trajectory.parts.pop("score_missing", None)
            trajectory.score = None if missing == 1.0 else sum(reply.reward for reply in trajectory.replies)
            return
        trajectory.messages.append(Message("user", result.observation))
        bridge = self.codec.bridge(trajectory.messages[-1].content, trajectory.tokens[-1])
        rewritten = self.codec.rewritten(trajectory.messages, trajectory.newest_reply)
        length = trajectory.context_length + len(bridge) if rewritten is None else len(rewritten)
        if length >= self.engine.context_length:
            trajectory.ending = "context"
        elif not _tokens_left(trajectory, sampling):
            trajectory.ending = "max_tokens"
        elif rewritten is None:
            trajectory.observe(bridge)
        else:
            trajectory.start_row(rewritten)

    def _end(self, episode: int, trajectory: Trajectory, env: int, episodes: dict[int, Episode]) -> None:
        """Keep what was said in an episode that is over, or why it has no score."""
        if trajectory.ending in _CUT_OFF:
            trajectory.score_error = _CUT_OFF[trajectory.ending]
        else:
            trajectory.score_error = self.envs.score_error(env)
            episodes[episode] = self.envs.episode(env) or episode_of(trajectory.messages)


def _tokens_left(trajectory: Trajectory, sampling: Sampling) -> int:
    """How many tokens an episode may still sample."""
    bound = sampling.max_episode_tokens
    return sampling.max_tokens if bound is None else max(0, bound - trajectory.sampled_tokens)


def _check_sibling(trajectory: Trajectory, sibling: Trajectory) -> None:
    """Compare what two episodes of a group saw first; the sibling may have gone on since."""
    shown, expected = trajectory.messages, sibling.messages[: len(trajectory.messages)]
    if shown != expected:
        raise EnvironmentContractError(
            f"Two resets with seed {trajectory.seed} gave different first observations "
            f"({expected[-1].content!r:.60} and {shown[-1].content!r:.60}): "
            "an environment has to be a function of its seed, with self.np_random as its only source of chance."
        )
