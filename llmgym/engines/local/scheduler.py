"""`Scheduler`: which requests wait, which run, and in which rows of the cache."""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from llmgym.engines.base import GenerationRequest
from llmgym.engines.local.forward_pass import Span
from llmgym.engines.local.kv_cache import Store
from llmgym.engines.local.slots import Slots

PREFILL_TOKENS = 1280
"""Tokens of several sequences that are read at once."""

_PATIENCE = 8  # steps that a few new requests wait for more of them


@dataclass(slots=True)
class Run:
    """A request and what has been sampled for it."""

    request: GenerationRequest
    u: NDArray[np.float64]
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    @property
    def episode_id(self) -> int:
        """Whose reply it is."""
        return self.request.episode_id

    @property
    def length(self) -> int:
        """Tokens of the conversation, the newest, which the next step runs, included."""
        return len(self.request.tokens) + len(self.tokens)

    @property
    def conversation(self) -> list[int]:
        """All of them."""
        return [*self.request.tokens, *self.tokens]

    def after(self, length: int) -> Sequence[int]:
        """Those after the first `length`."""
        before = len(self.request.tokens)
        return self.tokens[length - before :] if length >= before else self.conversation[length:]


class Scheduler:
    """Takes waiting requests in where there is room, and sends running ones back to wait where there is none.

    Args:
        slots: The rows of the cache.

    Attributes:
        running: The requests that the next step runs; then the i-th is in row i.
    """

    def __init__(self, slots: Slots) -> None:
        self.running: list[Run] = []
        self._slots = slots
        self._waiting: list[Run] = []
        self._held = 0  # steps that the oldest waiting request has been held back
        self._taken = 0  # requests that room was made for in this step

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return not (self._waiting or self.running)

    def add(self, runs: Sequence[Run]) -> None:
        """Let requests wait."""
        self._waiting += runs

    def drop(self) -> None:
        """Forget every request and every episode."""
        self._waiting, self.running = [], []
        self._slots.clear()

    def start_over(self) -> int:
        """Let every running request wait again, with what was sampled for it; return how many ran or were to run."""
        self._waiting, self.running = [*self.running, *self._waiting], []
        self._slots.clear()
        return self._taken or len(self._waiting)

    def set_aside(self) -> list[Run]:
        """Hand out every request, with what was sampled for it, and forget every episode; `add` brings them back."""
        self.start_over()
        aside, self._waiting = self._waiting, []
        return aside

    def lacking(self, run: Run, keep: int = 0) -> Span:
        """Return the tokens that a request's row lacks, without the last `keep`; they count as cached from now on."""
        slot = self._slots[run.episode_id]
        tokens = run.after(slot.length)[: -keep or None]
        span = Span(slot.row, len(slot.cached), tokens, slot.prompt_row)
        slot.cached += tokens
        return span

    def admit(self) -> Iterator[tuple[list[Span], Store]]:
        """Take in waiting requests that fit, and put the running ones into the first rows.

        Yields:
            What has to run before this goes on, and where its keys and values go.
        """
        self._held += bool(self._waiting)
        self._taken = 0
        few = len(self._waiting) < len(self.running) // 16  # their prefill is a pass of its own: wait for company
        if self._waiting and (not few or self._held > _PATIENCE):
            self._held = 0
            chosen = yield from self._choose()
            if chosen:
                yield self._prefill(chosen), self._slots.episode_store
        self._make_room([])
        self._close_ranks()

    def _close_ranks(self) -> None:
        """Put the running requests into the first rows, with as few moves as can be."""
        rows = {self._slots[run.episode_id].row for run in self.running}
        gaps = (row for row in range(len(rows)) if row not in rows)
        for row in sorted(row for row in rows if row >= len(rows)):
            self._slots.swap(row, next(gaps))
        self.running.sort(key=lambda run: self._slots[run.episode_id].row)

    def _choose(self) -> Generator[tuple[list[Span], Store], None, list[Run]]:
        """Give as many waiting requests as fit a slot, and let them run; yield the prompts that they share."""
        for run in self._waiting:
            if run.episode_id in self._slots and not self._slots[run.episode_id].holds_start_of(run.conversation):
                self._slots.release([run.episode_id])
        # Episodes that return to a row of their own come first, before pressure takes it from them.
        self._waiting.sort(key=lambda run: run.episode_id not in self._slots)
        first = self._waiting if self.running else self._one_pass()
        new = [run for run in first if run.episode_id not in self._slots]
        yield self._shared_prompts(new), self._slots.prompt_store
        chosen = self._make_room(first)
        self._waiting = self._waiting[len(chosen) :]
        for run in chosen:
            self._slots.place(run.episode_id, run.conversation)
        self.running += chosen
        return chosen

    def _one_pass(self) -> Sequence[Run]:
        """Return the first waiting requests, whose prompts one pass reads: replies begin before the last is read."""
        prompts: set[tuple[int, ...]] = set()
        tokens = 0
        for count, run in enumerate(self._waiting):
            prompt = tuple(run.conversation)
            if run.episode_id not in self._slots and prompt not in prompts:  # siblings' prompt is read once
                prompts.add(prompt)
                tokens += len(prompt)
                if tokens > PREFILL_TOKENS and len(prompts) > 1:
                    return self._waiting[:count]
        return self._waiting

    def _shared_prompts(self, runs: Sequence[Run]) -> list[Span]:
        """Return the prompts that several of these requests have in common and that are not cached yet."""
        counts = Counter(tuple(run.conversation[:-1]) for run in runs)
        known = {prompt.tokens for prompt in self._slots.prompts}
        common = [tokens for tokens, count in counts.items() if count > 1 and tokens and tokens not in known]
        added = self._slots.add_prompts(common)
        return [Span(prompt.row, 0, prompt.tokens) for prompt in added]

    def _make_room(self, waiting: Sequence[Run]) -> list[Run]:
        """Make room for the next step of the running requests and then for waiting ones; return which of these fit.

        When the running ones have outgrown the memory, some of them wait again.
        """
        lengths = [self._length_in_row(run) for run in self.running]
        while len(self.running) > self._slots.room_for(max(lengths, default=1)):
            lengths.pop()
            preempted = self.running.pop()
            self._slots.release([preempted.episode_id])
            self._waiting.insert(0, preempted)
        chosen: list[Run] = []
        for run in waiting:
            lengths.append(self._length_in_row(run))
            if len(lengths) > self._slots.room_for(max(lengths)):
                lengths.pop()
                break
            chosen.append(run)
        if lengths:
            self._taken = len(lengths)
            self._slots.make_room(max(lengths), [run.episode_id for run in [*self.running, *chosen]])
        return chosen

    def _length_in_row(self, run: Run) -> int:
        """Return the tokens that a request's row has to hold in the next step."""
        known = run.episode_id in self._slots
        prompt = self._slots[run.episode_id].prompt if known else self._slots.prompt_of(run.conversation)
        return run.length - (len(prompt.tokens) if prompt else 0)

    def _prefill(self, runs: Sequence[Run]) -> list[Span]:
        """Return what the requests' rows lack, but for the newest token; nothing if a step can as well run it."""
        lacking = [run.length - self._slots[run.episode_id].length for run in runs]
        area = len(runs) * max(lacking)
        if len(runs) == len(self.running) and area <= min(PREFILL_TOKENS, sum(lacking) * 5 // 4):
            return []
        spans = [self.lacking(run, keep=1) for run, count in zip(runs, lacking, strict=True) if count > 1]
        # Siblings are put side by side: what they share is then read once for all of them.
        spans.sort(key=lambda span: (-1 if span.prompt is None else span.prompt, span.row))
        return spans
