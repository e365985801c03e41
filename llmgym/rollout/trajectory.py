"""`Trajectory`: one episode as the tokens it was made of. It only ever grows."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from llmgym.calls import Schemas
from llmgym.engines.base import Completion, FinishReason
from llmgym.envs.faults import EpisodeLostError, FaultKind
from llmgym.errors import EnvironmentContractError
from llmgym.types import Message, Score, ScoreKind, well_formed

Ending = Literal["terminated", "truncated", "context", "max_tokens", "no_reply", FaultKind]
"""How an episode ended: by itself, cut off by its environment, because the context was full, because it had sampled
all the tokens that an episode may, because a server gave no reply, or because its environment raised an exception or
took too long."""

LEARNT = ("advantages", "learner_log_probs", "entropies")
"""What a learner finds for each sampled token, before it learns from it."""


@dataclass(slots=True)
class Reply:
    """One reply of the agent within a trajectory.

    Attributes:
        start: Index of its first token.
        stop: Index after its last token.
        finish_reason: Why sampling stopped.
        weight_version: The weights that sampled it, or its last token.
        reward: What it earned.
        versions: The weights that sampled each token, if they are not all of one version.
        read: In an episode without tokens, those that a server says it read for this reply; None if it does not say.
        written: The same of tokens that it wrote.
    """

    start: int
    stop: int
    finish_reason: FinishReason
    weight_version: int
    reward: float = 0.0
    versions: tuple[int, ...] = ()
    read: int | None = None
    written: int | None = None

    @property
    def token_versions(self) -> tuple[int, ...]:
        """The weights that sampled each token."""
        return self.versions or (self.weight_version,) * (self.stop - self.start)


@dataclass(slots=True)
class Trajectory:
    """One episode: its tokens, which of them were sampled, and with which log-probability.

    `tokens`, `mask` and `log_probs` have equal length; `sum(mask)` is the number of sampled
    tokens, stop tokens included. Messages are a view for people; tokens are the record.

    Almost always an episode is one row: each reply was sampled given all tokens before it.
    Where a chat template rewrites what was said before (see `llmgym.rollout.chat`), a new row
    begins with the conversation as it is rendered now, and a reply was sampled given the
    tokens of its row. The rows follow one another.

    An episode that a server's chat model played has messages and no tokens: nobody here has seen any. What the server
    says of their number is in its `replies`, which are empty ranges of tokens.

    Attributes:
        seed: The seed its environment was reset with.
        group: Trajectories of one group answer the same task, in the same seat.
        seat: Which seat of its environment it is.
        number: Which trajectory of its step it is; -1 if it is of none.
        retries: How often it was played again after a fault.
        tokens: Everything said, in order.  [T]
        mask: True where the agent sampled the token.  [T]
        log_probs: Log-probability under the sampling distribution; 0 where not sampled.  [T]
        replies: The agent's turns, oldest first.
        messages: The conversation as text.
        tools: The JSON schemas of the tools that the agent could call.
        parts: The named parts of the score.
        score: The total reward, or None if it is missing.
        score_error: Why it is missing; None if it is not.
        score_kind: What the score is: a reward, log-odds, or a win rate.
        ending: How the episode ended; None while it goes on.
        row_starts: Where each row begins in `tokens`; the first one at 0.
        data_row: The row of a data set that it is about, see `Task`; None if it is about none.
        learnt: What the learner found for each token, by the names in `LEARNT`; none that is not known for any.  [T]

    Example:
        A prompt of three tokens, a reply of two, of which the last is the stop token:

        >>> trajectory = Trajectory(seed=7, group=0)
        >>> trajectory.observe([1, 40, 41])
        >>> trajectory.act(Completion(0, [50, 2], [-0.5, -0.25], "stop", weight_version=3))
        >>> trajectory.tokens, trajectory.mask
        ([1, 40, 41, 50, 2], [False, False, False, True, True])
        >>> trajectory.log_probs, trajectory.sampled_tokens
        ([0.0, 0.0, 0.0, -0.5, -0.25], 2)
    """

    seed: int
    group: int
    tokens: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    tools: Schemas = ()
    parts: dict[str, float] = field(default_factory=dict)
    score: float | None = None
    score_error: str | None = None
    score_kind: ScoreKind = "reward"
    ending: Ending | None = None
    row_starts: list[int] = field(default_factory=lambda: [0])
    data_row: int | None = None
    seat: int = 0
    number: int = field(default=-1, compare=False, repr=False)
    retries: int = field(default=0, compare=False, repr=False)
    learnt: dict[str, NDArray[np.float32]] = field(default_factory=dict, compare=False, repr=False)

    def observe(self, tokens: Sequence[int]) -> None:
        """Append what the environment said, and the template around it."""
        self.tokens.extend(tokens)
        self.mask.extend([False] * len(tokens))
        self.log_probs.extend([0.0] * len(tokens))

    def start_row(self, tokens: Sequence[int]) -> None:
        """Begin a new row with the conversation so far, rendered again; none of it is sampled."""
        self.row_starts.append(len(self.tokens))
        self.observe(tokens)

    def act(self, completion: Completion) -> None:
        """Append what the agent sampled."""
        start = len(self.tokens)
        self.tokens.extend(completion.tokens)
        self.mask.extend([True] * len(completion.tokens))
        self.log_probs.extend(completion.log_probs)
        stop, reason, version = len(self.tokens), completion.finish_reason, completion.weight_version
        self.replies.append(Reply(start, stop, reason, version, versions=completion.versions))

    def hear_of(self, finish_reason: FinishReason, read: int | None, written: int | None) -> None:
        """Append a reply whose tokens nobody here has seen.

        Args:
            finish_reason: Why it ended.
            read: Tokens that were read for it, as the server says; None if it does not.
            written: The same of those that were written.
        """
        self.replies.append(Reply(0, 0, finish_reason, 0, read=read, written=written))

    def take(self, score: Score) -> None:
        """Take a score in place of what was there; its parts come to those that are there, of which success stays.

        Raises:
            EnvironmentContractError: One of its parts has the name of a part that is there already.
        """
        if both := sorted((score.parts.keys() & self.parts.keys()) - {"success"}):
            raise EnvironmentContractError(
                f"The environment and the scorer both report a part called {both[0]!r}: expected another name of the "
                "scorer's."
            )
        self.score, self.score_error, self.score_kind = score.value, score.error, score.kind
        self.parts = {**score.parts, **self.parts}
        last = [0.0] * (len(self.replies) - 1) + [score.value or 0.0]
        for reply, reward in zip(self.replies, last if score.rewards is None else score.rewards, strict=True):
            reply.reward = reward

    def start_over(self) -> None:
        """Forget what was played, to play it again."""
        fresh = Trajectory(self.seed, self.group, data_row=self.data_row, seat=self.seat, retries=self.retries + 1)
        for one in fields(self):
            setattr(self, one.name, getattr(fresh, one.name))

    def fail(self, fault: EpisodeLostError) -> None:
        """End without a score, because the environment failed."""
        turn = len(self.replies)
        when = f"turn {turn}" if turn else "its reset"
        self.score, self.ending = None, fault.kind
        self.score_error = well_formed(f"the environment of {self.subject} failed in {when}: {fault}")

    def note_learnt(self, name: str, start: int, values: NDArray[np.float32]) -> None:
        """Keep what the learner found for the tokens of a row: NaN where it found nothing.

        Args:
            name: One of `LEARNT`.
            start: Index of the row's first token.
            values: [T of the row]
        """
        if name not in self.learnt:
            self.learnt[name] = np.where(self.mask, np.nan, 0.0).astype(np.float32)
        place = slice(start, start + len(values))
        self.learnt[name][place] = np.where(self.mask[place], values, 0.0)

    @property
    def subject(self) -> str:
        """The task in words, for messages."""
        return f"seed {self.seed}" if self.data_row is None else f"row {self.data_row}"

    @property
    def newest_reply(self) -> list[int]:
        """The tokens of the reply that came last."""
        reply = self.replies[-1]
        return self.tokens[reply.start : reply.stop]

    @property
    def sampled_tokens(self) -> int:
        """How many tokens the agent sampled."""
        return sum(self.mask)

    @property
    def without_tokens(self) -> bool:
        """Whether there are replies, and no tokens of them."""
        return bool(self.replies) and not self.tokens

    @property
    def written_tokens(self) -> int | None:
        """How many tokens the agent sampled, as a server says where there are none here; None if it does not say."""
        return summed(reply.written for reply in self.replies) if self.without_tokens else self.sampled_tokens

    @property
    def cut_off(self) -> bool:
        """Whether a reply was cut off, not ended by the agent."""
        return any(reply.finish_reason == "length" for reply in self.replies)

    @property
    def demonstrated(self) -> bool:
        """Whether nobody sampled it: its log-probabilities are NaN."""
        return bool(self.tokens and self.replies) and math.isnan(self.log_probs[self.replies[0].start])

    @property
    def overlong(self) -> bool:
        """Whether its first observation left no room for a reply."""
        return self.ending == "context" and not self.replies and bool(self.messages)

    @property
    def failed(self) -> bool:
        """Whether it ended through no fault of the agent's: its environment failed, or a server gave no reply."""
        return self.ending == "no_reply" or self.ending in get_args(FaultKind)

    @property
    def succeeded(self) -> bool:
        """Whether its environment says that it was a success."""
        return self.parts.get("success") == 1.0

    @property
    def verdict(self) -> bool | None:
        """Whether it was a success; None if it failed, or nobody could say."""
        nobody_said = self.unscored and "success" not in self.parts
        return None if self.failed or nobody_said else self.succeeded

    @property
    def finished(self) -> bool:
        """Whether somebody replied, and the environment ended it."""
        return bool(self.replies) and self.ending in ("terminated", "truncated")

    @property
    def unscored(self) -> bool:
        """Whether it came to its end and nobody could score it."""
        return self.score is None and self.finished

    @property
    def context(self) -> list[int]:
        """The newest row: the tokens that the next reply is sampled after."""
        return self.tokens[self.row_starts[-1] :]

    @property
    def context_length(self) -> int:
        """How many tokens the newest row has."""
        return len(self.tokens) - self.row_starts[-1]

    @property
    def rows(self) -> list[slice]:
        """Where each row is in `tokens`, `mask` and `log_probs`."""
        return [slice(start, stop) for start, stop in itertools.pairwise([*self.row_starts, len(self.tokens)])]


def summed(counts: Iterable[int | None]) -> int | None:
    """Return a sum; None if a part of it is not known.

    Examples:
        >>> summed([3, 4]), summed([3, None]), summed([])
        (7, None, 0)
    """
    known = list(counts)
    return None if None in known else sum(one or 0 for one in known)
