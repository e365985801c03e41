"""`Slots`: where each episode and each prompt is in the embedded engine's KV cache."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llmgym.engines.local.kv_cache import Store


@dataclass(slots=True, eq=False)
class Prompt:
    """What several episodes begin with, but for its last token, which each of them runs itself.

    Attributes:
        tokens: What its row of the prompt store holds.
        row: Which row that is.
        users: The number of episodes that begin with it.
    """

    tokens: tuple[int, ...]
    row: int
    users: int = 0


@dataclass(slots=True, eq=False)
class Slot:
    """What the cache holds of an episode.

    Attributes:
        row: Of the episode store.
        prompt: What comes before the row; None if the row holds everything.
        cached: The tokens in the row.
    """

    row: int
    prompt: Prompt | None
    cached: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens of the conversation that are cached."""
        return len(self.cached) + (len(self.prompt.tokens) if self.prompt else 0)

    @property
    def prompt_row(self) -> int | None:
        """The row of the prompt store that holds the prompt."""
        return self.prompt.row if self.prompt else None

    def holds_start_of(self, tokens: Sequence[int]) -> bool:
        """Whether `tokens` go on from what is cached."""
        before = len(self.prompt.tokens) if self.prompt else 0
        return (
            self.length < len(tokens)
            and list(tokens[before : self.length]) == self.cached
            and (self.prompt is None or tuple(tokens[:before]) == self.prompt.tokens)
        )


class Slots:
    """Rows for episodes, rows for the prompts they share, and a bound on both.

    Args:
        episodes: The store of what episodes hold after their prompt.
        prompts: The store of prompts.
        capacity: Tokens that both stores together may hold.
        max_rows: Episodes in the cache, at most.
        context_length: Tokens of an episode, at most.
    """

    def __init__(self, episodes: Store, prompts: Store, *, capacity: int, max_rows: int, context_length: int) -> None:
        self.episode_store, self.prompt_store = episodes, prompts
        self.prompts: list[Prompt] = []  # by row
        self.max_rows, self._context_length = max_rows, context_length
        self._bound(capacity)
        self._slots: dict[int, Slot] = {}  # by episode
        self._owners: list[int | None] = []  # the episode in each row
        self._parked: dict[int, None] = {}  # episodes between turns, the longest-parked first

    def __contains__(self, episode_id: int) -> bool:
        return episode_id in self._slots

    def __getitem__(self, episode_id: int) -> Slot:
        return self._slots[episode_id]

    # Prompts.

    @property
    def prompt_lengths(self) -> list[int]:
        """Tokens of each prompt, by row."""
        return [len(prompt.tokens) for prompt in self.prompts]

    def prompt_of(self, tokens: Sequence[int]) -> Prompt | None:
        """Return the longest cached prompt that `tokens` begin with and go beyond."""
        fitting = (
            p for p in self.prompts if len(p.tokens) < len(tokens) and tuple(tokens[: len(p.tokens)]) == p.tokens
        )
        return max(fitting, key=lambda prompt: len(prompt.tokens), default=None)

    def add_prompts(self, new: Sequence[tuple[int, ...]]) -> list[Prompt]:
        """Make rows for prompts, as many as have room; the caller fills them."""
        length = self.prompt_store.length
        added: list[Prompt] = []
        for tokens in new:
            longer = max(length, len(tokens))
            if (len(self.prompts) + len(added) + 1) * longer > self._prompt_capacity:
                break
            length = longer
            added.append(Prompt(tokens, len(self.prompts) + len(added)))
        self.prompts += added
        if len(self.prompts) > self.prompt_store.rows or length > self.prompt_store.length:
            self.prompt_store.resize(max(len(self.prompts), self.prompt_store.rows), length)
        return added

    def _leave(self, prompt: Prompt) -> None:
        """Note that an episode of a prompt is gone; close the gap that an unused prompt leaves."""
        prompt.users -= 1
        if prompt.users:
            return
        last = self.prompts.pop()
        if last is not prompt:
            self.prompt_store.copy(last.row, prompt.row, len(last.tokens))
            self.prompts[prompt.row], last.row = last, prompt.row

    # Episodes.

    def place(self, episode_id: int, tokens: Sequence[int]) -> None:
        """Give an episode with these tokens a slot, if it has none; `make_room` has seen to it that one is free."""
        self._parked.pop(episode_id, None)
        if episode_id not in self._slots:
            row = self._owners.index(None)
            prompt = self.prompt_of(tokens)
            self._owners[row] = episode_id
            self._slots[episode_id] = Slot(row, prompt)
            if prompt:
                prompt.users += 1

    def park(self, episode_id: int) -> None:
        """Keep what is cached of an episode for as long as nobody needs its row more."""
        self._parked[episode_id] = None

    def release(self, episode_ids: Iterable[int]) -> None:
        """Free the rows of episodes."""
        for episode_id in episode_ids:
            slot = self._slots.pop(episode_id, None)
            if slot is not None:
                self._owners[slot.row] = None
                self._parked.pop(episode_id, None)
                if slot.prompt:
                    self._leave(slot.prompt)

    def clear(self) -> None:
        """Free every row."""
        self._slots, self._parked, self.prompts = {}, {}, []
        self._owners = [None] * self.episode_store.rows

    def shrink(self, max_rows: int) -> None:
        """Give all memory back, and from now on take at most half as much, for so many episodes."""
        for store in (self.episode_store, self.prompt_store):
            store.resize(0, 0)
        self.max_rows = max_rows
        self._bound(max(self._context_length, self._capacity // 2))
        self.clear()

    def _bound(self, capacity: int) -> None:
        """Hold at most so many tokens from now on."""
        self._capacity = capacity
        self._prompt_capacity = min(capacity // 4, capacity - self._context_length)

    def room_for(self, length: int) -> int:
        """Return how many episodes fit if the longest row holds `length` tokens."""
        return min(self.max_rows, (self._capacity - self.prompt_store.tokens) // self._row_length(length))

    def make_room(self, length: int, active: Sequence[int]) -> None:
        """See to it that rows hold `length` tokens and that each of the `active` episodes has one or can get one.

        Parked episodes lose theirs if they have to. The caller keeps to `room_for`.
        """
        limit = self.room_for(length)
        coming = sum(episode_id not in self._slots for episode_id in active)
        excess = len(self._slots) + coming - limit
        if excess > 0:
            kept = set(active)
            self.release([episode_id for episode_id in self._parked if episode_id not in kept][:excess])
        wanted = len(self._slots) + coming
        rows = min(limit, max(wanted, self.episode_store.rows))
        if rows == self.episode_store.rows and length <= self.episode_store.length:
            return
        for row in range(rows, len(self._owners)):
            if self._owners[row] is not None:
                self.swap(row, self._owners.index(None))
        self.episode_store.resize(rows, self._row_length(length))
        self._owners = [*self._owners[:rows], *[None] * (rows - len(self._owners))]

    def swap(self, one: int, other: int) -> None:
        """Exchange two rows."""
        if one == other:
            return
        held = [0 if (owner := self._owners[row]) is None else len(self._slots[owner].cached) for row in (one, other)]
        if held[0] and held[1]:
            self.episode_store.swap(one, other, max(held))
        elif held[0]:
            self.episode_store.copy(one, other, held[0])
        elif held[1]:
            self.episode_store.copy(other, one, held[1])
        self._owners[one], self._owners[other] = self._owners[other], self._owners[one]
        for row in (one, other):
            owner = self._owners[row]
            if owner is not None:
                self._slots[owner].row = row

    def _row_length(self, length: int) -> int:
        """Return the length of rows that hold `length` tokens: they grow by a quarter at least."""
        now = self.episode_store.length
        if length <= now:
            return now
        return min(self._context_length, -(-max(length, now + now // 4) // 64) * 64)
