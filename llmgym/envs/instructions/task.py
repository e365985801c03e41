"""The environment: write a text that keeps several constraints at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmgym.envs.instructions.constraints import ABSENCES, CONSTRAINTS, Constraint, Words, kinds_named
from llmgym.envs.instructions.writer import TOPICS, write
from llmgym.envs.splits import Split, check_difficulty_and_split, draw_in_split
from llmgym.envs.text_env import TextEnv
from llmgym.types import Episode, Score

MAX_CHARS = 2_000
SOME = 0.3  # for the share of constraints that are kept

LEVELS = (2, 3, 5, 7)
"""How many constraints there are at each difficulty, at most."""


@dataclass(frozen=True, slots=True)
class Brief:
    """One task: a topic, constraints, and a text that keeps them all."""

    topic: str
    constraints: tuple[Constraint, ...]
    text: str

    @property
    def told(self) -> str:
        """The task as it is shown."""
        lines = [f"{number}. {one.told}" for number, one in enumerate(self.constraints, start=1)]
        return "\n".join([f"Write a short text about {self.topic}.", *lines])

    @property
    def content(self) -> str:
        """What is asked for, in whatever order."""
        return "\n".join([self.topic, *sorted(one.told for one in self.constraints)])


class Instructions(TextEnv):
    """Write a short text that keeps several constraints, each of which is checked exactly.

    The whole reply is the text. A word is a run of letters, which apostrophes and hyphens can join; upper and lower
    case make no difference to words. There is one turn.

    The constraints of a task are read off a text that a small grammar wrote, so they can be kept together: the expert
    replies with that text. Each kind comes at most once.

    | kind | asks for |
    |---|---|
    | ``words`` | a number of words in a range |
    | ``sentences`` | exactly so many sentences, each with a full stop at its end |
    | ``contains``, ``avoids`` | a word exactly so often, or not at all |
    | ``first_word``, ``last_word`` | what the text begins or ends with, punctuation aside |
    | ``no_commas`` | no comma |
    | ``case`` | small or capital letters only |
    | ``bullets`` | so many lines that begin with ``- ``, and nothing else |
    | ``json_keys`` | one JSON object with these keys in order, whose values are texts, and nothing else |
    | ``order`` | one word before another |
    | ``repeats`` | no word more often than so many times |

    The reward is 1 if all constraints are kept, and else 0.3 times the share of them that is. The last ``info`` says
    for each kind whether it was kept. A reply keeps none of them if it is blank, longer than 2,000 characters, or
    repeats a line of the task. Every task has ``words``, and at least one kind other than
    ``avoids``, ``no_commas``, ``case`` and ``repeats`` if any is in play: many a text keeps those four by chance.

    Checked is the form and not the sense: a list of words in the right form earns as much as a good text.

    Args:
        difficulty: 0 to 3: at most 2, 3, 5 or 7 constraints.
        split: ``"train"`` or ``"eval"``; no topic with the same constraints belongs to both.
        kinds: The names of the constraints in play besides ``words``; all of them unless given.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.

    Raises:
        ConfigError: A kind of constraint is unknown.
    """

    max_turns = 1

    def __init__(
        self, difficulty: int = 1, split: Split = "train", kinds: Sequence[str] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, len(LEVELS), split)
        self.most = LEVELS[difficulty]
        self.split: Split = split
        self.others = [
            kind for kind in kinds_named(tuple(CONSTRAINTS) if kinds is None else kinds) if kind is not Words
        ]

    def begin(self) -> str:
        """Draw a topic and constraints, and show them."""
        self.episode.task = draw_in_split(self._draw, self.np_random, self.split)
        told: str = self.episode.task.told
        return told

    def _draw(self, rng: np.random.Generator) -> Brief:
        asking = [kind for kind in self.others if kind.kind not in ABSENCES]
        while True:
            topic = TOPICS[rng.integers(len(TOPICS))]
            text = write(rng, topic)
            others = [self.others[i] for i in rng.permutation(len(self.others))]
            fit = [found for kind in others if (found := kind.read_off(rng, text)) is not None][: self.most - 1]
            if any(one.kind not in ABSENCES for one in fit) or not asking:
                constraints = [Words.read_off(rng, text), *fit]
                return Brief(topic, tuple(constraints[i] for i in rng.permutation(len(constraints))), text)

    def score(self, episode: Episode) -> Score:
        """Check each constraint."""
        brief: Brief = episode.task
        kept = kept_by(episode.actions[-1], brief)
        share = sum(kept.values()) / len(kept)
        value = 1.0 if all(kept.values()) else SOME * share
        return Score(value, {kind: float(met) for kind, met in kept.items()})

    def expert(self) -> Iterator[str]:
        """Reply with the text that the constraints were read off."""
        yield self.episode.task.text

    def mistake(self) -> Iterator[str]:
        """Spoil that text in one respect, such as a courtesy where a word was asked for."""
        brief: Brief = self.episode.task
        chosen = brief.constraints[self.np_random.integers(len(brief.constraints))]
        yield chosen.spoilt(brief.text)


def kept_by(reply: str, brief: Brief) -> dict[str, bool]:
    """Return for each kind of constraint of a task whether a reply keeps it."""
    counts = bool(reply.strip()) and len(reply) <= MAX_CHARS and not _repeats(reply, brief)
    return {one.kind: counts and one.met(reply) for one in brief.constraints}


def _repeats(reply: str, brief: Brief) -> bool:
    """Tell whether a reply says a line of the task again."""
    said = " ".join(reply.lower().split())
    lines = [f"write a short text about {brief.topic}.", *(one.told.lower() for one in brief.constraints)]
    return any(line in said for line in lines)
