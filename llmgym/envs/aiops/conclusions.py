"""Whether a text concludes: names an incident type or a cause, other than to deny it or to ask."""

import re

from llmgym.envs.aiops.world import GAUGES, INCIDENT_TYPES, TOPOLOGY

_TYPE = re.compile("|".join(r"[\s_\-]*".join(kind.name.split("_")) for kind in INCIDENT_TYPES))
_NAME = re.compile("|".join([*TOPOLOGY, *GAUGES, "数据库", "缓存", "队列", "网关"]))
_CAUSE = re.compile(
    r"(?<![a-z])cause(?:d by|s)?\b|culprit|diagnos[ei]s|\bblame|\bfault(?:y| is| lies| sits)?\b|responsible|"
    r"\bfailing\b|\bsource of\b|\bstems? from\b|\bdue to\b|\b(?:problem|issue|trouble) (?:is|lies|sits)\b|"
    r"\bpoints? to\b|\bconclu(?:de|des|sion)\b|\banswer\b|"
    r"根因|根本原因|元凶|罪魁|结论|诊断|归咎|源头|起因|故障源|故障服务|问题在|出在|导致|原因是|答案"
)
_BEGINS = re.compile(r"\borigin(?:s|ates?|ated)?\b|\bcomes? from\b|\b(?:starts?|begins?|broke) (?:at|in|with)\b")
_OF_A_SIGNAL = re.compile(r"^\W*(?:the )?(?:[smlt]\d|log|line|request|span|trace|数据|日志)|\brequests?\b")
_EMPHASIS = re.compile(
    r"\bno doubt\b|\bwithout (?:any |a )?doubt\b|\bnot only\b|\bnot surprisingly\b|"
    r"\b(?:cannot|can['’]t) be anything (?:other than|but)\b|无疑|毫无疑问|(?:非常|很|极|最)可能|非常|不难|不仅"
)
_DENIES = re.compile(
    r"\b(?:no|not|never|nothing|without|neither|nor|cannot|unlikely|unknown|unclear|undecided|open|whether|excluded?|"
    r"exclud\w+|rul\w+ (?:it )?out|contradict\w*|eliminat\w+|against|rather than|candidates?|normal|"
    r"would|if|suppos\w+|assum\w+|may|maybe|might|could|perhaps|possibl[ey]|"
    r"which (?:service|one|of)|round 2|incident types?)\b|n['’]t\b|"
    r"不|没|无|非|未|排除|尚|哪|吗|如果|假设|假如|也许|或许|可能|矛盾|候选|第二轮|留到|平常"
)
_CLAUSES = re.compile(r"[^.;,\n!?。；，！？]+[?？]?")
_TURNS = re.compile(r"\bbut\b|\byet\b|\bhowever\b|\bso\b|但|而是")
_YES = re.compile(r"^\W*(?:yes|是的|对)")


def concludes(text: str) -> bool:
    """Tell whether a text names an incident type or a cause, or answers with JSON already.

    It is read clause by clause. A clause that denies, asks or supposes does not conclude. Words for a cause do so
    where they come with the name of a service or a gauge, or where the next clause has one.

    Examples:
        >>> concludes("Not disk full: disk is at 40 %.")
        False
        >>> concludes("One service is at fault, and its callers are slow.")
        False
        >>> concludes("So it is a disk that is full, and payments is to blame.")
        True
    """
    if "{" in text:
        return True
    begun = False  # a clause has spoken of the cause, and not named it
    for sentence in _CLAUSES.findall(text.lower()):
        asks = sentence[-1] in "?？"
        for clause in _TURNS.split(_EMPHASIS.sub(" ", sentence)):
            names, kind = bool(_NAME.search(clause)), bool(_TYPE.search(clause))
            says = bool(_CAUSE.search(clause)) or bool(_BEGINS.search(clause) and not _OF_A_SIGNAL.search(clause))
            if not asks and not _DENIES.search(clause):
                if kind or (says and names) or (begun and (names or _YES.search(clause))):
                    return True
                begun = says
            else:
                begun = asks and (says or kind)
    return False
