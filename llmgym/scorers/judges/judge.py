"""`Judge` and `PairJudge`: scorers that ask a language model."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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


class _Asking:
    """What asks a language model, and reads what it says.

    Args:
        model: Answers, and remembers.
        prompt: What it is asked.
        reader: Reads its answers.
        system: What it is told before, if anything.
        votes: How often it is asked the same.
    """

    def __init__(
        self, model: Cached, prompt: str, reader: Reader, *, system: str | None = None, votes: int = 1
    ) -> None:
        self._model, self._prompt, self._reader, self._system, self._votes = model, prompt, reader, system, votes
        self.waits = model.waits

    def _scores(
        self, shown: Sequence[Mapping[str, str | None]], prices: Prices | None = None
    ) -> list[Score] | Awaitable[list[Score]]:
        """Fill the prompt with each of several things that are shown, ask, and return a score for each."""
        asked = [_question(self._prompt, values) for values in shown]
        votes = range(self._votes)
        questions = [Question(self._system, one, vote) for one in asked if isinstance(one, str) for vote in votes]

        def scored(answers: list[Answer]) -> list[Score]:
            of_each = (answers[start : start + self._votes] for start in range(0, len(answers), self._votes))
            return [_score(next(of_each), self._reader, prices) if isinstance(one, str) else one for one in asked]

        return then(self._model.answers(questions), scored)


class Judge(_Asking):
    """Scores an episode by what a language model says of it, from 0 to 1.

    A verdict that cannot be read counts as none. Of several votes the mean counts, if at least half of them can be
    read; else the score is missing, with the reason.

    Args:
        model: Answers, and remembers.
        prompt: What it is asked; ``{question}``, ``{reply}``, ``{conversation}`` and ``{column}`` of the row stand for
            what is judged. See `llmgym.scorers.judges.question`.
        reader: Reads its answers.
        prices: What it costs.
        options: ``system``, what it is told before, and ``votes``, how often it is asked about an episode.
    """

    def __init__(
        self, model: Cached, prompt: str, reader: Reader, *, prices: Prices | None = None, **options: Any
    ) -> None:
        super().__init__(model, prompt, reader, **options)
        self._prices = prices
        self.per = "episode" if model.waits else "rollout"  # a model that is here takes batches

    def score(self, episodes: Sequence[Episode]) -> list[Score] | Awaitable[list[Score]]:
        """Return the verdict on each episode."""
        return self._scores(list(map(values_of, episodes)), self._prices)


class PairJudge(_Asking):
    """Says how likely one of two episodes of a task is the better one, by what a language model says of them.

    llmgym asks about both orders, so a model that prefers the first one prefers nobody.

    Args:
        model: Answers, and remembers.
        prompt: What it is asked; ``{question}``, ``{first}`` and ``{second}``, the two replies, and ``{column}`` of the
            row stand for what is judged.
        reader: Reads its answers; 1 is for the first.
        opponents: How many siblings each episode is compared with; None for all.
        options: ``system``, what it is told before, and ``votes``, how often it is asked about a pair.
    """

    per: ClassVar[str] = "group"

    def __init__(
        self, model: Cached, prompt: str, reader: Reader, *, opponents: int | None = None, **options: Any
    ) -> None:
        super().__init__(model, prompt, reader, **options)
        self.opponents = opponents

    def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[Comparison] | Awaitable[list[Comparison]]:
        """Return the probability that the first of each pair is better."""
        scores = self._scores([values_of_pair(*pair) for pair in pairs])
        return then(scores, lambda found: [score if score.value is None else score.value for score in found])


def _question(prompt: str, values: Mapping[str, str | None]) -> str | Score:
    """Return what is asked, or the missing score of what cannot be."""
    try:
        return fill(prompt, values)
    except NothingToSayError as error:
        return Score(None, error=str(error))


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
