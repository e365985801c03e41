"""The environment: a secret word, and marks for every guess."""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llmgym.envs.codeword.marks import RIGHT, marks
from llmgym.envs.reading import tagged
from llmgym.envs.splits import Split, check_difficulty_and_split, draw_in_split
from llmgym.envs.text_env import TextEnv
from llmgym.types import Episode, Outcome, Score

FOUND = 0.8
PLACES = 0.2  # for all letters at their places
INVALID = -0.05


class Level(NamedTuple):
    """What a difficulty asks for."""

    letters: int
    guesses: int


LEVELS = (Level(4, 8), Level(5, 6), Level(6, 6), Level(6, 4))


@dataclass(frozen=True, slots=True)
class Secret:
    """One task: a word."""

    word: str

    @property
    def content(self) -> str:
        """The word."""
        return self.word


@functools.cache
def words(letters: int) -> tuple[str, ...]:
    """Return the words of so many letters that can be secret, in alphabetical order."""
    text = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8")
    return tuple(word for word in text.split() if len(word) == letters)


class CodeWord(TextEnv):
    """Guess a secret word from marks, as in Wordle.

    A guess is as many letters from a to z as the word has, between ``<guess>`` and ``</guess>``. It need not be a word.
    The agent may think aloud; a reply with two guesses has none. Every letter of a guess is marked: ``+`` if it is at
    its place, ``?`` if the word has it elsewhere, ``-`` if not. A letter is marked as often as the word has it.

    A reply without a guess uses one up. The reward comes in parts, each with the reply that earns it:

    - 0.8 for finding the word (``found``).
    - 0.2 in all for letters at their places (``places``): a guess earns its share of them beyond that of the best
      guess so far. Finding the word earns what is left of it.
    - -0.05 for a reply without a guess (``invalid``).

    So the word is worth 1 whenever it is found, unless a reply had no guess, and an episode that does not find it earns
    less than 0.2.

    | difficulty | letters | secret words | guesses |
    |---|---|---|---|
    | 0 | 4 | 541 | 8 |
    | 1 | 5 | 696 | 6 |
    | 2 | 6 | 479 | 6 |
    | 3 | 6 | 479 | 4 |

    The expert guesses words that agree with all marks so far, as a good player does. Some words would need more guesses
    than there are, so its last guess is the word: it is an expert for data to learn from, not a measure of what can be
    achieved.

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no word is secret in both.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    def __init__(self, difficulty: int = 1, split: Split = "train", **options: Any) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, len(LEVELS), split)
        self.level = LEVELS[difficulty]
        self.split: Split = split
        self.max_turns = self.level.guesses
        self._guess = re.compile(f"[a-z]{{{self.level.letters}}}")

    def begin(self) -> str:
        """Draw a word and say how to guess it."""
        secrets = words(self.level.letters)
        self.episode.task = draw_in_split(
            lambda rng: Secret(secrets[rng.integers(len(secrets))]), self.np_random, self.split
        )
        self.told: list[tuple[str, str]] = []
        self._best = 0
        return (
            f"Guess a word of {self.level.letters} letters in at most {self.level.guesses} guesses. Each letter of a "
            "guess is marked: + at its place, ? elsewhere in the word, - not in the word. Any letters may be guessed.\n"
            "Give one guess: <guess>letters</guess>"
        )

    def respond(self, action: str) -> Outcome:
        """Mark the guess."""
        word, guess = self.episode.task.word, self.guess_in(action)
        left = self.level.guesses - len(self.episode.turns)
        if guess is None:
            said = f"That is not one guess of {self.level.letters} letters between <guess> and </guess>."
            parts = {"found": 0.0, "places": 0.0, "invalid": INVALID}
        else:
            self.told.append((guess, marks(guess, word)))
            said = "\n".join(" ".join(line) for line in self.told[-1])
            best = max(self._best, self.told[-1][1].count(RIGHT))
            gained, self._best = PLACES * (best - self._best) / len(word), best
            parts = {"found": FOUND * (guess == word), "places": gained, "invalid": 0.0}
        said += "" if guess == word else f"\nGuesses left: {left}" if left else f"\nThe word was {word}."
        return Outcome(said, sum(parts.values()), parts, over=guess == word or not left)

    def guess_in(self, reply: str) -> str | None:
        """Return the guess of a reply, in lower case; None if it has none or several."""
        guess = (tagged(reply, "guess") or "").lower()
        return guess if self._guess.fullmatch(guess) else None

    @property
    def found(self) -> bool:
        """Whether the newest guess is the word."""
        return bool(self.told) and self.told[-1][0] == self.episode.task.word

    def score(self, episode: Episode) -> Score:
        """Add nothing to what the replies earned."""
        return Score(0.0)

    def succeeded(self, score: Score) -> bool:
        """Tell whether the word was found, whatever scored it."""
        return self.found

    def expert(self) -> Iterator[str]:
        """Guess words that agree with all marks; the last guess is the word."""
        possible = list(words(self.level.letters))
        while len(self.episode.turns) < self.level.guesses - 1:
            yield _tagged(_any(self.np_random, possible))
            guess, told = self.told[-1]
            if self.found:
                return
            possible = [word for word in possible if marks(guess, word) == told]
        yield _tagged(self.episode.task.word)

    def mistake(self) -> Iterator[str]:
        """Guess words without regard to the marks, and never the right one."""
        wrong = [word for word in words(self.level.letters) if word != self.episode.task.word]
        for _ in range(self.level.guesses):
            yield _tagged(_any(self.np_random, wrong))


def _tagged(guess: str) -> str:
    return f"<guess>{guess}</guess>"


def _any(rng: np.random.Generator, among: list[str]) -> str:
    return among[rng.integers(len(among))]
