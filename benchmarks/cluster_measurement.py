"""What `simulate` says of small runs beside what they take; its parameters come from other measurements."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import processor
from benchmarks.simulated_run import Plan, Work, simulate
from llmgym.agents import GRPO
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory
from llmgym.workers.ray_session import prepare_local

GROUPS, SIZE, FEW = (
    16,
    8,
    4,
)  # of a step, of a group, and groups of the smaller rollout that the decode step is fitted to
BLOCK = 4  # steps that are measured in a row
SIMULATED = 40
WITHIN = 0.2
FAR = 10**6  # steps from here on have tasks that no measured step has

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one process": ({}, {}),
    "one process, 8 groups at once": ({"groups_at_once": 8}, {"groups_at_once": 8}),
    "one rollout worker": ({"rollout_workers": 1}, {}),
    "one rollout worker, staleness 1": ({"rollout_workers": 1, "max_staleness": 1}, {"staleness": 1}),
}
"""Options of a run, and of the plan that simulates it."""


@dataclass(frozen=True)
class Rollout:
    """A rollout in one engine without other work.

    Attributes:
        seconds: That it took.
        tokens: That were sampled.
        longest: Tokens of its longest episode, so many decode steps.
    """

    seconds: float
    tokens: int
    longest: int


def decode_step(rollouts: Sequence[Rollout]) -> tuple[float, float]:
    """Return the seconds of a decode step and those that each episode in flight adds, by least squares.

    A rollout of which every episode has room takes as many decode steps as its longest episode has tokens, and each
    token is one of an episode in flight.

    Examples:
        >>> few, many = (Rollout(0.01 * 100 + 0.001 * tokens, tokens, 100) for tokens in (500, 2000))
        >>> [round(one, 6) for one in decode_step([few, many])]
        [0.01, 0.001]
    """
    rows = np.array([[one.longest, one.tokens] for one in rollouts], dtype=float)
    seconds = np.array([one.seconds for one in rollouts])
    base, each = np.linalg.lstsq(rows, seconds, rcond=None)[0]
    if base < 0:  # by chance, where it is little
        base, each = 0.0, rows[:, 1] @ seconds / (rows[:, 1] @ rows[:, 1])
    return float(base), float(each)


def replies(trajectories: Sequence[Trajectory]) -> list[list[int]]:
    """Return how many tokens each reply of each episode has."""
    return [[reply.stop - reply.start for reply in one.replies] for one in trajectories]


def resampled(episodes: Sequence[Sequence[int]], steps: int, seed: int = 0) -> Work:
    """Return steps of groups that were played."""
    turns = max(map(len, episodes))
    table: NDArray[np.int64] = np.array([[*one, *[0] * (turns - len(one))] for one in episodes])
    groups = table.reshape(-1, SIZE, turns)
    lengths = groups[np.random.default_rng(seed).integers(len(groups), size=(steps, GROUPS))]
    return Work(lengths, np.zeros(lengths.shape))


@contextlib.contextmanager
def agent_of(**options: Any) -> Iterator[GRPO]:
    """Make an agent that has taken a step; it learns nothing that would change the lengths of its replies."""
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
        agent = GRPO(
            prompts_per_step=GROUPS,
            group_size=SIZE,
            eval_episodes=0,
            sample_every=0,
            learning_rate=1e-12,
            output_dir=directory,
            **options,
        )
        agent.train(steps=1)
        yield agent
        agent.close()


class Parts:
    """Measures the parts of a step, none of which is a step, in one process."""

    def __init__(self, agent: GRPO) -> None:
        self._agent, self._steps, self._tried = agent, agent.trainer.steps, 0
        self._collect, self._steps.player.collect = self._steps.player.collect, self._timed
        self.rollouts: list[Rollout] = []
        self.few: list[Rollout] = []
        self.many: list[Rollout] = []
        self.learn: list[float] = []  # seconds per 1000 tokens
        self.seen: list[list[int]] = []  # the replies of each episode
        self.cores: list[float] = []  # how much of a core there was for it

    def _timed(self, tasks: Sequence[Task], *rest: Any) -> list[Trajectory]:
        begun = time.perf_counter()
        trajectories = self._collect(tasks, *rest)
        seconds, lengths = time.perf_counter() - begun, replies(trajectories)
        self.seen += lengths
        self.rollouts.append(Rollout(seconds, sum(map(sum, lengths)), max(map(sum, lengths))))
        return trajectories

    def measure(self) -> None:
        """Play a few groups, then those of a step, and learn from the latter."""
        steps, number = self._steps, FAR + 2 * self._tried
        self._tried += 1
        since, used = time.perf_counter(), time.process_time()
        few = [task for task in steps._tasks(number, steps._rng(number), 0, FEW) for _ in range(SIZE)]
        self._timed(few, self._agent.config.sampling, number)
        begun = time.perf_counter()
        steps.learn(number, steps.experience(number + 1, number + 1).batch)
        whole = self.rollouts[-1]
        self.learn.append((time.perf_counter() - begun - whole.seconds) / whole.tokens * 1000)
        self.few.append(self.rollouts[-2])
        self.many.append(whole)
        self.cores.append((time.process_time() - used) / (time.perf_counter() - since))

    def plan(self, last: int) -> Plan:
        """Return what the last measurements say."""
        base, each = decode_step([median(self.few[-last:]), median(self.many[-last:])])
        return Plan(1, GROUPS * SIZE, base, each, statistics.median(self.learn[-last:]), hand_over=0.0)


def median(rollouts: Sequence[Rollout]) -> Rollout:
    """Return the medians of what rollouts took."""
    taken = ([getattr(one, field.name) for one in rollouts] for field in fields(Rollout))
    return Rollout(*map(statistics.median, taken))


def hand_over(agent: GRPO) -> float:
    """Return the seconds of a hand-over, the canary included."""
    student, version = agent.trainer.student, agent.trainer.steps_done
    begun = time.perf_counter()
    student.hand_over(version)
    if student.plays_ahead:
        student.check_hand_over(version)
    return time.perf_counter() - begun


def compare(rounds: int) -> str:
    """Run and simulate all cases; return a table of their median steps as Markdown.

    Parts are measured in turns with blocks of steps, since the machine may have other work that comes and goes. The
    first and the last step of a block do not count: nothing is played ahead for the one, or beside the other.
    """
    prepare_local()
    lines = [
        f"{processor()}, one thread a process; {rounds} blocks of {BLOCK - 2} steps each, in turns with the parts. "
        "core: how much of one there was for the process that measures parts, 1 on a quiet machine.",
        "",
        "| run | decode step, ms | by episode, ms | s per 1000 tokens learnt | hand-over s | measured step s | "
        "from least to most | simulated s | simulated by measured | core | |",
        "|---" * 11 + "|",
    ]
    with agent_of() as alone:
        parts = Parts(alone)
        for name, (options, how) in CASES.items():
            handing: list[float] = []
            measured: list[float] = []
            with agent_of(**options) as agent:
                for _ in range(rounds):
                    parts.measure()
                    handing.append(hand_over(agent))
                    measured += [one["seconds"] for one in agent.train(steps=BLOCK).metrics[1:-1]]
            plan = replace(parts.plan(rounds), hand_over=statistics.median(handing), **how)
            ends = simulate(plan, resampled(parts.seen, SIMULATED + 1), SIMULATED).ends
            simulated, real = statistics.median(np.diff([0.0, *ends])), statistics.median(measured)
            lines.append(
                f"| {name} | {1000 * plan.base:.2f} | {1000 * plan.each:.3f} | {plan.learn:.3f} | {plan.hand_over:.3f} "
                f"| {real:.2f} | {min(measured):.2f} to {max(measured):.2f} | {simulated:.2f} | "
                f"{simulated / real:.2f} | {statistics.fmean(parts.cores[-rounds:]):.2f} | "
                f"{'PASS' if abs(simulated / real - 1) <= WITHIN else 'miss'} |"
            )
    return "\n".join(lines)
