"""What an agent answers, and what that is worth."""

import json
from dataclasses import dataclass

from llmgym.envs.reading import tagged

MOST_DOCUMENTS = 5  # that may be cited
_MOST_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and the documents that are said to prove it."""

    value: str
    documents: frozenset[str]


def read_answer(reply: str) -> Answer | None:
    """Read the answer of a reply; None if there is none as asked for.

    Example:
        >>> read_answer('<answer>{"answer": "Baldor", "documents": ["D007"]}</answer>')
        Answer(value='Baldor', documents=frozenset({'D007'}))
    """
    text = tagged(reply, "answer")
    if text is None or len(text) > _MOST_CHARS:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != {"answer", "documents"}:
        return None
    value, documents = found["answer"], found["documents"]
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    if not isinstance(documents, list) or not all(isinstance(one, str) for one in documents):
        return None
    return Answer(str(value).strip(), frozenset(documents)) if len(documents) <= MOST_DOCUMENTS else None


def score_parts(answer: Answer | None, value: str, needed: frozenset[str], read: frozenset[str]) -> dict[str, float]:
    """Compare an answer with the right one.

    Args:
        answer: What was answered.
        value: The right answer.
        needed: The documents that prove it.
        read: The documents that the agent has read; it can cite no others.

    Returns:
        ``answer``: 0.6 for the right one. ``precision``: 0.2 times the share of the cited documents that are needed.
        ``recall``: 0.2 times the share of the needed documents that are cited.
    """
    if answer is None:
        return {"answer": 0.0, "precision": 0.0, "recall": 0.0}
    right = len(answer.documents & needed & read)
    return {
        "answer": 0.6 * (answer.value.casefold() == value.casefold()),
        "precision": 0.2 * right / max(1, len(answer.documents)),
        "recall": 0.2 * right / len(needed),
    }
