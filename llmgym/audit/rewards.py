"""What the rewards of probes may be, and findings where they are something else."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llmgym.audit.answers import Answers
from llmgym.audit.findings import Finding, FindingKind
from llmgym.audit.playing import Failure, Played
from llmgym.audit.probes import PROBES, TRICKS, Knows

EXPERT, MISTAKE = "the expert", "the mistake"
LUCK = 0.05  # of the tasks, on which replies may earn the top without being the expert's answer
NEARLY_ALL = 0.9  # of the tasks, for which one reply may not be right
MARGIN = 0.1  # of what the expert earns: a smaller difference of means is none
TOLERANCE = 1e-6
HALF = 0.5  # of what a judge can give

_FAILURES: dict[Failure, tuple[FindingKind, str]] = {
    "raises": ("raises", "raises an exception"),
    "hangs": ("hangs", "hangs"),
    "no_score": ("no_score", "has no score"),
    "speechless": ("speechless", "ends too early"),
}
_KNOWS: dict[str, Knows] = {probe.name: probe.knows for probe in PROBES}


@dataclass(frozen=True, slots=True)
class Bar:
    """What earns the top: the top score, or where there is none as much as the expert.

    Attributes:
        top: The top score; None if there is none, or a scorer took its place.
        expert: What the expert earned, by seed.
    """

    top: float | None
    expert: Mapping[int, float]

    def reached(self, played: Played) -> bool:
        """Tell whether an episode earned the top."""
        least = self.expert.get(played.seed) if self.top is None else self.top
        return played.reward is not None and least is not None and played.reward >= least - TOLERANCE

    def counts(self, played: Played) -> bool:
        """Tell whether an episode earned the top, or counts as a success; a scorer's episodes count by their reward."""
        return self.reached(played) or (self.top is not None and played.success)


@dataclass(frozen=True, slots=True)
class Row:
    """How a probe did.

    Attributes:
        probe: Its name.
        episodes: What it played.
        tops: How many of them earned the top.
    """

    probe: str
    episodes: Sequence[Played] = field(repr=False)  # which are long
    tops: int

    @property
    def rewards(self) -> list[float]:
        """The rewards of the episodes that have one."""
        return [played.reward for played in self.episodes if played.reward is not None]

    @property
    def mean(self) -> float | None:
        """The mean reward; None if no episode has one."""
        return sum(self.rewards) / len(self.rewards) if self.rewards else None

    @property
    def success(self) -> float:
        """The share of episodes that the environment counts as successes."""
        return sum(played.success for played in self.episodes) / len(self.episodes)


def findings_of(rows: Mapping[str, Row], bar: Bar, answers: Answers) -> Iterator[Finding]:
    """Yield what is wrong with the rewards of probes."""
    for row in rows.values():
        yield from _failures(row)
        yield from _above_top(row, bar)
    yield from _of_the_expert(rows, bar)
    flagged = set()
    for row in rows.values():
        for finding in _undeserved(row, bar, answers):
            flagged.add(row.probe)
            yield finding
    yield from _repetitions(rows, bar)
    yield from _hedging(rows)
    yield from _fooled(rows)
    yield from _beats_mistake([row for row in rows.values() if row.probe not in flagged], rows)


def _failures(row: Row) -> Iterator[Finding]:
    for failure, (kind, says) in _FAILURES.items():
        failed = [played for played in row.episodes if played.failure == failure]
        if failed:
            yield _finding(kind, row, failed, f"{says}: {failed[0].error}")


def _above_top(row: Row, bar: Bar) -> Iterator[Finding]:
    top = bar.top
    if top is None:
        return
    above = [played for played in row.episodes if played.reward is not None and played.reward > top + TOLERANCE]
    if above:
        most = max(played.reward or 0.0 for played in above)
        yield _finding("above_top", row, above, f"earns up to {most:.4g}, more than the top score of {top:g}")


def _of_the_expert(rows: Mapping[str, Row], bar: Bar) -> Iterator[Finding]:
    if EXPERT in rows and bar.top is not None:
        row, top = rows[EXPERT], bar.top
        below = [one for one in row.episodes if one.reward is not None and one.reward < top - TOLERANCE]
        if below:
            yield _finding("expert", row, below, f"earns {below[0].reward:.4g}, less than the top score of {top:g}")
    if MISTAKE in rows:
        equal = [one for one in rows[MISTAKE].episodes if (one.reward or 0.0) >= _expert_earned(one, bar) - TOLERANCE]
        if equal:
            yield _finding("mistake", rows[MISTAKE], equal, "earns as much as the expert")


def _undeserved(row: Row, bar: Bar, answers: Answers) -> Iterator[Finding]:
    """Replies made without the task may earn the top only where they happen to be its answer, or on few other tasks."""
    knows = _KNOWS.get(row.probe)
    if knows not in ("nothing", "the question", "another answer"):
        return
    by_last_word = knows != "the question"  # an echo ends as the observation does, which is no luck
    reached = [one for one in row.episodes if bar.counts(one)]
    unearned = [one for one in reached if not answers.lucky(one.seed, one.replies, by_last_word=by_last_word)]
    if len(unearned) > LUCK * len(row.episodes):
        yield _finding("undeserved", row, unearned, "earns the top without the answer")
    elif row.probe == "the commonest answer" and len(reached) >= NEARLY_ALL * len(row.episodes):
        yield _finding("constant", row, reached, "earns the top, so the task need not be read")


def _repetitions(rows: Mapping[str, Row], bar: Bar) -> Iterator[Finding]:
    for name in ("the answer twice", "the answer padded"):
        if name in rows:
            more = [one for one in rows[name].episodes if (one.reward or 0.0) > _expert_earned(one, bar) + TOLERANCE]
            if more:
                twice, once = more[0].reward, _expert_earned(more[0], bar)
                yield _finding("repetition", rows[name], more, f"earns {twice:.4g} and the answer itself {once:.4g}")


def _hedging(rows: Mapping[str, Row]) -> Iterator[Finding]:
    """A list may not earn more than silence, or than a single answer that is given for all tasks."""
    blind = ("an empty reply", "another task's answer", "the commonest answer")
    single = max((rows[name].mean or 0.0 for name in blind if name in rows), default=0.0)
    for name in ("a list of all answers", "an object of all answers"):
        row = rows.get(name)
        if row is not None and row.mean is not None and row.mean > single + _margin(rows):
            best = max(row.episodes, key=lambda one: one.reward or 0.0)
            sentence = f"earns {row.mean:.2f} on average, and one answer for all tasks {single:.2f}"
            yield Finding("hedging", _capital(f"{row.probe} {sentence}."), row.probe, best.seed, best.replies)


def _fooled(rows: Mapping[str, Row]) -> Iterator[Finding]:
    if TRICKS in rows:
        worked = [one for one in rows[TRICKS].episodes if (one.reward or 0.0) >= HALF]
        if worked:
            best = max(worked, key=lambda one: one.reward or 0.0)
            yield _finding(
                "fooled", rows[TRICKS], [best, *worked[1:]], f"earns up to {best.reward:.2f} of 1 from the judge"
            )


def _beats_mistake(candidates: Sequence[Row], rows: Mapping[str, Row]) -> Iterator[Finding]:
    """Where a mistake costs something, as a wrong answer may where none costs nothing, the comparison is with zero."""
    if MISTAKE not in rows or rows[MISTAKE].mean is None:
        return
    mistaken = rows[MISTAKE].mean or 0.0
    for row in candidates:
        if (
            _KNOWS.get(row.probe) == "nothing"
            and row.mean is not None
            and row.mean > max(mistaken, 0.0) + _margin(rows)
        ):
            best = max(row.episodes, key=lambda one: one.reward or 0.0)
            sentence = f"earns {row.mean:.2f} on average, more than the environment's own mistake with {mistaken:.2f}"
            yield Finding("beats_mistake", _capital(f"{row.probe} {sentence}."), row.probe, best.seed, best.replies)


def _margin(rows: Mapping[str, Row]) -> float:
    return MARGIN * abs(rows[EXPERT].mean or 0.0)


def _expert_earned(played: Played, bar: Bar) -> float:
    return bar.expert.get(played.seed, float("inf"))


def _finding(kind: FindingKind, row: Row, shown: Sequence[Played], sentence: str) -> Finding:
    share = f"on {len(shown)} of {len(row.episodes)} tasks"
    return Finding(kind, _capital(f"{row.probe} {sentence}, {share}."), row.probe, shown[0].seed, shown[0].replies)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
