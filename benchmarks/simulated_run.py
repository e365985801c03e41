"""A run on many engines, simulated event by event: who plays, waits for environments, learns and hands over when."""

import heapq
import itertools
import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Plan:
    """Who does a run, and in which order.

    Attributes:
        engines: How many.
        slots: Episodes that an engine has room for. One keeps its slot while its environment answers.
        base: Seconds of a decode step.
        each: Seconds that a decode step takes longer per episode in flight.
        learn: Seconds per 1000 learnt tokens.
        hand_over: Seconds until engines have new weights.
        staleness: 0: a rollout begins when the weights of the step before are handed over. K: that of step t + K begins
            when that of step t is taken.
        partial: Whether episodes go on over a hand-over, for which engines pause, and groups of later steps begin where
            there is room, as long as none is more than `staleness` hand-overs ahead of those that learnt. Each step
            still learns from its own groups.
        groups_at_once: Groups of a share, of which an engine plays one at a time; None for an equal part each.
        dealt: Whether shares are dealt out when a rollout begins, as llmgym does when it plays ahead; otherwise whoever
            is free takes the next one.
    """

    engines: int
    slots: int
    base: float
    each: float
    learn: float
    hand_over: float
    staleness: int = 0
    partial: bool = False
    groups_at_once: int | None = None
    dealt: bool = False


@dataclass(frozen=True)
class Work:
    """What is played.

    Attributes:
        lengths: Tokens of each reply; 0 where an episode had ended.  [steps, groups, siblings, turns]
        waits: Seconds that the environment takes after it, unless it is the last one.  [the same]
    """

    lengths: NDArray[np.int64]
    waits: NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What became of a run; shares and staleness are those after the pipeline was filled.

    Attributes:
        ends: Seconds at which each step had handed over its weights.
        step_seconds: The mean step.
        engines_idle: Share of time in which an engine decodes nothing.
        slots_filled: Share of slots that decode.
        learner_idle: Share of time in which the learner neither learns nor hands over.
        staleness: Hand-overs between the weights that sampled and those that learn, by reply.
    """

    ends: list[float]
    step_seconds: float
    engines_idle: float
    slots_filled: float
    learner_idle: float
    staleness: float

    @property
    def steps_per_hour(self) -> float:
        """How many of the mean step."""
        return 3600 / self.step_seconds


@dataclass(eq=False)
class _Episode:
    step: int
    turns: list[tuple[int, float]]  # tokens and the wait after them
    version: int  # of the weights that sample it
    turn: int = 0


@dataclass(eq=False)
class _Engine:
    base: float
    each: float
    count: float = 0.0  # decode steps until `at`
    at: float = 0.0
    busy: float = 0.0
    filled: float = 0.0
    load: int = 0  # episodes that it was given and that are not over
    held: int = 0  # slots
    predicted: int = 0  # which event is about what decodes now
    decoding: list[tuple[float, int, _Episode]] = field(default_factory=list)  # by the step in which a reply ends
    waiting: deque[_Episode] = field(default_factory=deque)  # for a slot
    shares: deque[list[_Episode]] = field(default_factory=deque)

    @property
    def step(self) -> float:
        """Seconds of a decode step."""
        return self.base + self.each * len(self.decoding)

    def advance(self, now: float) -> None:
        """Decode until now; not at all while it pauses."""
        if now > self.at:
            if self.decoding:
                self.count += (now - self.at) / self.step
                self.busy += now - self.at
                self.filled += len(self.decoding) * (now - self.at)
            self.at = now


class _Run:
    """A run, event by event."""

    def __init__(self, plan: Plan, work: Work, steps: int) -> None:
        self.plan, self.work, self.steps, self.now, self.version = plan, work, steps, 0.0, 0
        self.engines = [_Engine(plan.base, plan.each) for _ in range(plan.engines)]
        self.events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = itertools.count()
        self.shares: deque[list[_Episode]] = deque()  # for whoever is free
        self.left = [math.prod(work.lengths.shape[1:3])] * len(work.lengths)  # episodes
        self.stale: list[list[int]] = [[] for _ in work.lengths]
        self.tokens = work.lengths.sum(axis=(1, 2, 3)).tolist()
        self.started, self.learning, self.learnt = 0, False, 0.0  # groups, now, seconds
        self.marks: list[tuple[float, float, float, float]] = []  # at hand-overs: when, busy, filled, learnt

    def go(self) -> None:
        """Play and learn."""
        if self.plan.partial:
            self.admit()
        else:
            for step in range(max(1, self.plan.staleness)):
                self.begin(step)
        while len(self.marks) < self.steps:
            self.now, _, happen, arguments = heapq.heappop(self.events)
            happen(*arguments)

    def at(self, when: float, happen: Callable[..., None], *arguments: Any) -> None:
        """Have something happen then."""
        heapq.heappush(self.events, (when, next(self.order), happen, arguments))

    def episodes(self, step: int, groups: Iterable[int]) -> list[_Episode]:
        """Return all episodes of some groups."""
        made = []
        for group in groups:
            both = (of[step, group].tolist() for of in (self.work.lengths, self.work.waits))
            for lengths, waits in zip(*both, strict=True):
                turns = [turn for turn in zip(lengths, waits, strict=True) if turn[0]]
                made.append(_Episode(step, turns, self.version))
        return made

    # Playing.

    def begin(self, step: int) -> None:
        """Hand out the shares of a rollout."""
        groups, plan = self.work.lengths.shape[1], self.plan
        size = plan.groups_at_once or math.ceil(groups / plan.engines)
        shares = [self.episodes(step, range(at, min(at + size, groups))) for at in range(0, groups, size)]
        for place, share in enumerate(shares):
            if plan.groups_at_once is None:
                self.engines[place].shares.append(share)
            elif plan.dealt:
                min(self.engines, key=lambda one: len(one.shares) + (one.load > 0)).shares.append(share)
            else:
                self.shares.append(share)
        for engine in self.engines:
            self.next_share(engine)

    def next_share(self, engine: _Engine) -> None:
        """Have an engine begin a share if it is free."""
        queue = engine.shares or self.shares
        if engine.load == 0 and queue:
            self.give(engine, queue.popleft())

    def admit(self) -> None:
        """Begin groups where there is room, within the bound of staleness."""
        groups = self.work.lengths.shape[1]
        while self.started < min(self.version + self.plan.staleness + 1, len(self.work.lengths)) * groups:
            engine = min(self.engines, key=lambda one: one.load)
            if engine.load >= self.plan.slots:
                break
            self.give(engine, self.episodes(self.started // groups, [self.started % groups]))
            self.started += 1

    def give(self, engine: _Engine, episodes: list[_Episode]) -> None:
        """Have an engine play episodes."""
        engine.advance(self.now)
        engine.load += len(episodes)
        engine.waiting += episodes
        self.seat(engine)
        self.predict(engine)

    def seat(self, engine: _Engine) -> None:
        """Give slots to those that wait for one."""
        while engine.waiting and engine.held < self.plan.slots:
            engine.held += 1
            self.decode(engine, engine.waiting.popleft())

    def decode(self, engine: _Engine, episode: _Episode) -> None:
        """Begin a reply; only where episodes go on over a hand-over it has newer weights than its share."""
        if self.plan.partial:
            episode.version = self.version
        tokens = episode.turns[episode.turn][0]
        heapq.heappush(engine.decoding, (engine.count + tokens, next(self.order), episode))

    def predict(self, engine: _Engine) -> None:
        """Foresee the next end of a reply; what was foreseen before no longer counts."""
        engine.predicted += 1
        if engine.decoding:
            when = engine.at + max(0.0, engine.decoding[0][0] - engine.count) * engine.step
            self.at(when, self.replied, engine, engine.predicted)

    def replied(self, engine: _Engine, predicted: int) -> None:
        """End replies."""
        if predicted != engine.predicted:
            return
        engine.advance(self.now)
        engine.count = max(engine.count, engine.decoding[0][0])
        while engine.decoding and engine.decoding[0][0] <= engine.count + 1e-6:
            episode = heapq.heappop(engine.decoding)[2]
            self.stale[episode.step].append(episode.step - episode.version)
            wait = episode.turns[episode.turn][1]
            episode.turn += 1
            if episode.turn == len(episode.turns):
                self.over(engine, episode)
            elif wait:
                self.at(self.now + wait, self.answered, engine, episode)
            else:
                self.decode(engine, episode)
        self.seat(engine)
        self.predict(engine)
        if self.plan.partial:
            self.admit()
        else:
            self.next_share(engine)
        self.take()

    def answered(self, engine: _Engine, episode: _Episode) -> None:
        """Go on after the environment."""
        engine.advance(self.now)
        self.decode(engine, episode)
        self.predict(engine)

    def over(self, engine: _Engine, episode: _Episode) -> None:
        """End an episode."""
        engine.load, engine.held = engine.load - 1, engine.held - 1
        self.left[episode.step] -= 1

    # Learning.

    def take(self) -> None:
        """Begin to learn from a rollout that is complete."""
        step = self.version
        if not self.learning and not self.left[step]:
            self.learning = True
            if self.plan.staleness and not self.plan.partial:
                self.begin(step + self.plan.staleness)
            self.learnt += (seconds := self.plan.learn * self.tokens[step] / 1000) + self.plan.hand_over
            self.at(self.now + seconds, self.hand_over)

    def hand_over(self) -> None:
        """Send the weights; engines that are in the middle of something stop for it."""
        if self.plan.partial:
            for engine in self.engines:
                engine.advance(self.now)
                engine.at = self.now + self.plan.hand_over
                self.predict(engine)
        self.at(self.now + self.plan.hand_over, self.handed_over)

    def handed_over(self) -> None:
        """Go on with new weights."""
        self.version, self.learning = self.version + 1, False
        for engine in self.engines:
            engine.advance(self.now)
        busy, filled = (sum(getattr(one, name) for one in self.engines) for name in ("busy", "filled"))
        self.marks.append((self.now, busy, filled, self.learnt))
        if self.version < self.steps:
            if self.plan.partial:
                self.admit()
            elif not self.plan.staleness:
                self.begin(self.version)
            self.take()


def simulate(plan: Plan, work: Work, steps: int, skipped: int = 0) -> Outcome:
    """Simulate the steps of a run that is longer.

    Args:
        plan: Who does it.
        work: What is played: at least `steps` and as many more as rollouts may be ahead.
        steps: How many.
        skipped: Steps that only fill the pipeline; fewer than `steps`.
    """
    run = _Run(plan, work, steps)
    run.go()
    seconds, busy, filled, learnt = np.subtract(run.marks[-1], run.marks[skipped - 1] if skipped else (0, 0, 0, 0))
    return Outcome(
        [mark[0] for mark in run.marks],
        float(seconds) / (steps - skipped),
        engines_idle=float(1 - busy / seconds / plan.engines),
        slots_filled=float(filled / seconds / plan.engines / plan.slots),
        learner_idle=float(1 - learnt / seconds),
        staleness=statistics.fmean(one for of_step in run.stale[skipped:steps] for one in of_step),
    )
