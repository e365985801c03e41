"""The teacher of the bundled model: it knows the format, reads the incidents, and guesses the cause.

Round 1 cites signals that are there, the direct traces of the cause first among equals.
Round 2 is right in the service with probability `RIGHT` and in the incident type with the
same, independently, so in both a third of the time; where it is wrong it blames a service
that merely shows symptoms, or any other type. A student of this teacher is like a base
model: able to do the task, and to sample the right answer now and then.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llmgym.envs.aiops.incident import Incident, generate_incident
from llmgym.envs.aiops.phrases import ROUND_2, SYSTEM, Language
from llmgym.envs.aiops.replies import answer, bystander, other_type, reason
from llmgym.envs.aiops.report import round_1_message
from llmgym.envs.aiops.world import DIFFICULTIES, Difficulty
from llmgym.types import Message

RIGHT = math.sqrt(1 / 3)


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


def lessons(rng: np.random.Generator, answers: int) -> Iterator[Lesson]:
    """Yield lessons without end, of every difficulty and language, the default ones most often.

    Args:
        rng: The source of all randomness.
        answers: Replies to round 2 per lesson.
    """
    while True:
        difficulty = DIFFICULTIES[rng.choice(len(DIFFICULTIES), p=(0.1, 0.7, 0.1, 0.1))]
        language: Language = "en" if rng.random() < 0.85 else "zh"
        incident = generate_incident(rng, difficulty, "train")
        yield Lesson(
            prompt=(
                Message("system", SYSTEM[language]),
                Message("user", round_1_message(incident, difficulty, language)),
            ),
            reasoning=reason(rng, incident, language),
            question=ROUND_2[language],
            answers=tuple(guess(rng, incident, difficulty) for _ in range(answers)),
        )


def guess(rng: np.random.Generator, incident: Incident, difficulty: Difficulty) -> str:
    """Answer round 2, right in both names with probability ``RIGHT ** 2``."""
    service, cause = incident.service, incident.incident_type
    if rng.random() > RIGHT:
        service = bystander(rng, incident)
    if rng.random() > RIGHT:
        cause = other_type(rng, incident, difficulty)
    return answer(service, cause)
