"""The teacher of the bundled model: it says what incidents show, and guesses the cause.

Lessons come in stages. At first the student reads gauges alone, of one service and then of
several, in any order. Then reports come without rules, and grow from a few lines to their
full length; then they come with the rules and the names in play, as in the environment. At
last it practises to read what is said of services, and which slow one is furthest down. A
student of this size does not learn to find what a tag refers to from whole reports alone.

Round 1 is the expert's. Round 2 is right until the last stage of each round of lessons, where
it names the right service with probability `RIGHT` and the right type with the same,
independently, so both a third of the time; where it is wrong it blames a service that merely
shows signals, or any other type. A student of this teacher is like a base model: able to do
the task, and to sample the right answer now and then.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llmgym.envs.aiops.diagnosis import Claim
from llmgym.envs.aiops.incident import Incident, generate_incident, tagged
from llmgym.envs.aiops.phrases import ROUND_2, SYSTEM
from llmgym.envs.aiops.replies import answer, bystander, other_type, read_row, read_services, reason, telling_signals
from llmgym.envs.aiops.report import report, round_1_message, rows, section
from llmgym.envs.aiops.world import DIFFICULTIES, Difficulty
from llmgym.types import Message

RIGHT = math.sqrt(1 / 3)
"""Probability that a guess names the right service, and the same for the type."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One incident as the student sees it.

    Attributes:
        prompt: The messages before round 1's reply.
        reasoning: Round 1's reply.
        question: Round 2's message.
        answers: Several replies to round 2, each the teacher's guess.
    """

    prompt: tuple[Message, ...]
    reasoning: str
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the curriculum.

    Attributes:
        steps: How many batches of it are taught.
        lessons: How many lessons make a batch.
        reads: What the lessons are to read, each as often as the others: gauges alone, what is said of services
            alone, or reports.
        terse: Share of the reports that come without rules and names in play.
        easy: Share of the lessons that are of difficulty 0; the others are of the default difficulty.
        grows: Whether lessons begin with as little as can be asked about, and grow with each batch.
        right: Probability that an answer names the right service, and the same for the type.
    """

    steps: int
    lessons: int
    reads: tuple[Literal["gauges", "services", "reports"], ...] = ("reports",)
    terse: float = 0.0
    easy: float = 0.15
    grows: bool = False
    right: float = 1.0


ROUNDS: tuple[tuple[Stage, ...], ...] = (
    (
        Stage(steps=300, lessons=24, reads=("gauges",), grows=True),
        Stage(steps=300, lessons=24, terse=1.0, grows=True),
        Stage(steps=250, lessons=12, terse=0.5),
        Stage(steps=200, lessons=8, right=RIGHT),
    ),
    (
        Stage(steps=200, lessons=24, terse=1.0),
        Stage(steps=200, lessons=12, terse=0.5),
        Stage(steps=200, lessons=8, right=RIGHT),
    ),
    (
        Stage(steps=200, lessons=24, terse=1.0),
        Stage(steps=240, lessons=16, terse=0.3),
        Stage(steps=160, lessons=8, right=RIGHT),
    ),
    (
        Stage(steps=300, lessons=16, terse=0.5),
        Stage(steps=120, lessons=8, right=RIGHT),
    ),
    (
        Stage(steps=330, lessons=20, reads=("services", "services", "reports"), terse=0.5),
        Stage(steps=150, lessons=16, terse=0.3),
        Stage(steps=120, lessons=10, right=RIGHT),
    ),
    (Stage(steps=200, lessons=10, easy=0.5, right=RIGHT),),
)
"""What is taught. Each round has a learning rate that rises and falls."""


def batches(rng: np.random.Generator, stages: Sequence[Stage], answers: int) -> Iterator[list[Lesson]]:
    """Yield the batches of some stages, one after another.

    Args:
        rng: The source of all randomness.
        stages: What is taught.
        answers: Replies to round 2 per lesson.
    """
    for stage in stages:
        for step in range(stage.steps):
            shown = step / stage.steps if stage.grows else 1.0
            yield list(itertools.islice(lessons(rng, answers, stage, shown), stage.lessons))


def lessons(rng: np.random.Generator, answers: int, stage: Stage, shown: float = 1.0) -> Iterator[Lesson]:
    """Yield lessons of a stage without end, in English.

    Args:
        rng: The source of all randomness.
        answers: Replies to round 2 per lesson.
        stage: What they are like.
        shown: Share of a report that is shown beyond what names the cause, at most.
    """
    while True:
        difficulty = DIFFICULTIES[int(rng.random() >= stage.easy)]
        incident = generate_incident(rng, difficulty, "train")
        reads = stage.reads[rng.integers(len(stage.reads))]
        if reads == "gauges":
            yield _read_gauges(rng, incident, shown)
        elif reads == "services":
            yield _read_services(rng, incident, shown)
        else:
            yield _triage(rng, incident, difficulty, answers, stage, shown)


def _read_gauges(rng: np.random.Generator, incident: Incident, shown: float) -> Lesson:
    """Read the gauges of some services, in any order."""
    of_service = rows(incident)
    services = list(of_service)[: 1 + int(rng.random() * 1.7 * shown * len(of_service))]
    metrics = replace(incident, signals=tagged(one for service in services for one in of_service[service]))
    told = list(rows(metrics).items())
    order = rng.permutation(len(told))
    return Lesson(
        prompt=(Message("system", SYSTEM["en"]), Message("user", section(metrics, "metric", "en"))),
        reasoning="\n".join(read_row(service, row, "en") for service, row in (told[i] for i in order)),
        question=ROUND_2["en"],
        answers=(),
    )


def _read_services(rng: np.random.Generator, incident: Incident, shown: float) -> Lesson:
    """Read which services are slow, and name the one furthest down."""
    shows = part(rng, incident, rng.random() if rng.random() > shown else 1.0)
    told = replace(incident, signals=tagged(one for one in shows.signals if one.kind != "metric"))
    return Lesson(
        prompt=(
            Message("system", SYSTEM["en"]),
            Message("user", "\n".join(section(told, kind, "en") for kind in ("symptom", "trace", "log"))),
        ),
        reasoning="\n".join(read_services(told, [incident.cause.service], "en")),
        question=ROUND_2["en"],
        answers=(),
    )


def _triage(
    rng: np.random.Generator, incident: Incident, difficulty: Difficulty, answers: int, stage: Stage, shown: float
) -> Lesson:
    """Reason as the expert does, of all that is shown or of a part, and guess the cause."""
    telling = telling_signals(incident, difficulty)
    if shown < 1:
        incident = part(rng, incident, rng.random() * shown)
        telling = []
    told = report(incident, "en") if rng.random() < stage.terse else round_1_message(incident, difficulty, "en")
    return Lesson(
        prompt=(Message("system", SYSTEM["en"]), Message("user", told)),
        reasoning=reason(incident, [incident.cause.service], telling, "en"),
        question=ROUND_2["en"],
        answers=tuple(guess(rng, incident, difficulty, stage.right) for _ in range(answers)),
    )


def part(rng: np.random.Generator, incident: Incident, share: float) -> Incident:
    """Return an incident that shows less: that its service is slow, its gauges, and a share of the rest."""
    fault = incident.cause.service
    seen = [signal for signal in incident.signals if signal.claim == Claim(fault, "slow")]
    kept = {fault} | {service for service in rows(incident) if rng.random() < share}
    return replace(
        incident,
        signals=tagged(
            signal
            for signal in incident.signals
            if (signal.service in kept if signal.kind == "metric" else signal is seen[0] or rng.random() < share)
        ),
    )


def guess(rng: np.random.Generator, incident: Incident, difficulty: Difficulty, right: float) -> str:
    """Answer round 2, right in both names with probability ``right ** 2``."""
    service, incident_type = incident.cause.service, incident.cause.incident_type
    if rng.random() > right:
        service = bystander(rng, incident)
    if rng.random() > right:
        incident_type = other_type(rng, incident.cause, difficulty)
    return answer(service, incident_type)
