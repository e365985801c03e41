"""`Judge` and `PairJudge`: scorers that ask a language model."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from llmgym.envs.waiting import then
from llmgym.scorers.judges.cache import Cached
from llmgym.scorers.judges.chat import Answer, Question
from llmgym.scorers.judges.question import NothingToSayError, fill, values_of, values_of_pair
from llmgym.scorers.judges.verdicts import Reader, UnreadableError, Verdict
from llmgym.scorers.pairwise import Comparison
from llmgym.types import Episode, Score


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in any currency.

    Attributes:
        read: Of questions.
        written: Of answers.
    """

    read: float = 0.0
    written: float = 0.0


class Judge:
    """Scores an episode by what a language model says of it, from 0 to 1.

    A verdict that cannot be read counts as none. Of several votes the mean counts, if at least half of them can be
    read; else the score is missing, with the reason.

    Args:
        model: Answers, and remembers.
        prompt: What it is asked; ``{question}``, ``{reply}``, ``{conversation}`` and ``{column}`` of the row stand for
            what is judged. See `llmgym.scorers.judges.question`.
        reader: Reads its answers.
        system: What it is told before, if anything.
        votes: How often it is asked about an episode.
        prices: What it costs.
    """

    def __init__(
        self,
        model: Cached,
        prompt: str,
        reader: Reader,
        *,
        system: str | None = None,
        votes: int = 1,
        prices: Prices | None = None,
    ) -> None:
        self._model, self._reader = model, reader
        self._prompt, self._system, self._votes, self._prices = prompt, system, votes, prices
        self.waits = model.waits
        self.per = "episode" if model.waits else "rollout"  # a model that is here takes batches

    def score(self, episodes: Sequence[Episode]) -> list[Score] | Awaitable[list[Score]]:
        """Return the verdict on each episode."""
        asked = [_question(self._prompt, values_of(episode)) for episode in episodes]
        score = partial(_score, reader=self._reader, prices=self._prices)
        return _asked(self._model, asked, self._system, self._votes, score)


class PairJudge:
    """Says how likely one of two episodes of a task is the better one, by what a language model says of them.

    llmgym asks about both orders, so a model that prefers the first one prefers nobody.

    Args:
        model: Answers, and remembers.
        prompt: What it is asked; ``{question}``, ``{first}`` and ``{second}``, the two replies, and ``{column}`` of the
            row stand for what is judged.
        reader: Reads its answers; 1 is for the first.
        system: What it is told before, if anything.
        votes: How often it is asked about a pair.
        opponents: How many siblings each episode is compared with; None for all.
    """

    per: ClassVar[str] = "group"

    def __init__(
        self,
        model: Cached,
        prompt: str,
        reader: Reader,
        *,
        system: str | None = None,
        votes: int = 1,
        opponents: int | None = None,
    ) -> None:
        self.opponents = opponents
        self._model, self._reader, self._prompt, self._system, self._votes = model, reader, prompt, system, votes
        self.waits = model.waits

    def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[Comparison] | Awaitable[list[Comparison]]:
        """Return the probability that the first of each pair is better."""
        asked = [_question(self._prompt, values_of_pair(*pair)) for pair in pairs]
        score = partial(_score, reader=self._reader, prices=None)
        scores = _asked(self._model, asked, self._system, self._votes, score)
        return then(scores, lambda found: [score if score.value is None else score.value for score in found])


def _question(prompt: str, values: Mapping[str, str | None]) -> str | Score:
    """Return what is asked, or the missing score of what cannot be."""
    try:
        return fill(prompt, values)
    except NothingToSayError as error:
        return Score(None, error=str(error))


def _asked(
    model: Cached,
    asked: Sequence[str | Score],
    system: str | None,
    votes: int,
    score: Callable[[Sequence[Answer]], Score],
) -> list[Score] | Awaitable[list[Score]]:
    """Ask what can be asked, several times each, and return a score for each in order."""
    questions = [Question(system, one, vote) for one in asked if isinstance(one, str) for vote in range(votes)]

    def scored(answers: list[Answer]) -> list[Score]:
        found = (score(answers[start : start + votes]) for start in range(0, len(answers), votes))
        return [next(found) if isinstance(one, str) else one for one in asked]

    return then(model.answers(questions), scored)


def _score(answers: Sequence[Answer], reader: Reader, prices: Prices | None) -> Score:
    """Return the mean of the verdicts, and what they cost."""
    verdicts, reasons = list[Verdict](), list[str]()
    for answer in answers:
        if answer.text is None:
            reasons.append(answer.error or "there was no answer")
            continue
        try:
            verdicts.append(reader(answer.text))
        except UnreadableError as error:
            reasons.append(str(error))
    read, written = sum(one.read for one in answers), sum(one.written for one in answers)
    parts = {"judge/calls": float(sum(one.calls for one in answers)), "judge/tokens": float(read + written)}
    if prices is not None:
        parts["judge/cost"] = (prices.read * read + prices.written * written) / 1e6
    if not verdicts or 2 * len(verdicts) < len(answers):
        of_several = f"{len(reasons)} of {len(answers)} votes tell nothing: " if len(answers) > 1 else ""
        return Score(None, parts, f"{of_several}{reasons[0]}")
    if len(answers) > 1:
        parts["judge/spread"] = max(one.value for one in verdicts) - min(one.value for one in verdicts)
    for name in verdicts[0].parts:
        named = [one.parts[name] for one in verdicts if name in one.parts]
        parts[f"judge/said/{name}"] = sum(named) / len(named)  # a name of its own, whatever a judge calls it
    return Score(sum(one.value for one in verdicts) / len(verdicts), parts)
