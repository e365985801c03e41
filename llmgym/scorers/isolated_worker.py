"""What a worker does for `llmgym.scorers.isolated`: it makes scorers, and asks them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from llmgym.envs.waiting import settled
from llmgym.scorers.asking import AnyScorer, ask
from llmgym.scorers.pairwise import PairwiseScorer, compare_all
from llmgym.types import Score
from llmgym.workers.references import find
from llmgym.workers.values import decode

Json = Any

_SCORERS: dict[str, AnyScorer] = {}


def answer(message: Json) -> Json:
    """Answer ``{"make": {path: scorer}}``, or ``{"scorer": path, "about": episodes or pairs}`` with what it says."""
    if "make" in message:
        _SCORERS.update({path: _made(sent) for path, sent in message["make"].items()})
        return list(_SCORERS)
    scorer, about = _SCORERS[message["scorer"]], decode(message["about"])
    said = compare_all(scorer, about) if isinstance(scorer, PairwiseScorer) else ask(scorer, about, range(len(about)))
    values: Sequence[Any] = settled(said)
    return [asdict(one) if isinstance(one, Score) else one for one in values]


def _made(sent: Json) -> AnyScorer:
    """Make a scorer of what was sent."""
    made: AnyScorer
    if "of" in sent:
        made = find(sent["as"])(find(sent["of"]), sent["name"])
    elif "class" in sent:
        made = find(sent["class"])()
    else:
        made = decode(sent["instance"])
    return made
