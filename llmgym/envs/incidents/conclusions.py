"""Whether a text concludes: names an incident type or a cause, other than to deny it."""

import re

from llmgym.envs.incidents.world import INCIDENT_TYPES

_TYPE = "|".join(r"[\s_\-]*".join(kind.name.split("_")) for kind in INCIDENT_TYPES)
_CAUSE = (
    r"\bcauses?\b|\bcaused by\b|culprit|diagnos[ei]s|\bblame|\bat fault\b|\bfault (?:is|lies|sits)\b|responsible|"
    r"\borigin(?:s|ates?|ated)?\b|\bsource of\b|\bstems? from\b|\bcomes? from\b|\bdue to\b|\b(?:starts?|begins?|broke) "
    r"(?:at|in|with)\b|\bconclu(?:de|des|sion)\b|\b(?:my|the|final) answer\b|\bfaulty\b|"
    r"根因|根本原因|元凶|罪魁|结论|诊断|归咎|源头|起因|故障源|出在|原因是|答案"
)
_SAYS = re.compile(f"{_TYPE}|{_CAUSE}")
_DENIES = re.compile(
    r"\b(?:no|not|never|without|neither|nor|cannot|unlikely|unknown|unclear|undecided|open|whether|which|excluded?|"
    r"exclud\w+|rul\w+ (?:it )?out)\b|n't\b|\?|不|没|无|非|未|排除|尚|哪"
)
_CLAUSES = re.compile(r"[.;:,\n!。；：，！]|\bbut\b|\byet\b|\bhowever\b|\bso\b|\bit is\b(?=.*\bit is\b)|但|而是")


def concludes(text: str) -> bool:
    """Tell whether a text names an incident type or a cause, or answers with JSON already.

    It is read clause by clause. A clause that denies or asks does not conclude.

    Examples:
        >>> concludes("Not disk full: disk is at 40 %.")
        False
        >>> concludes("So it is a disk that is full, and payments is to blame.")
        True
    """
    if "{" in text:
        return True
    return any(_SAYS.search(clause) and not _DENIES.search(clause) for clause in _CLAUSES.split(text.lower()))
