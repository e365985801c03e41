"""What an agent means: an answer between tags, the last of some names, or the last block of code."""

import re
from collections.abc import Iterable


def tagged(reply: str, tag: str) -> str | None:
    r"""Return what is between ``<tag>`` and ``</tag>``; None unless a reply has exactly one of each, in this order.

    Examples:
        >>> tagged("7 + 2 is 9.\n<answer>7 + 2</answer>", "answer")
        '7 + 2'
        >>> tagged("<answer>7</answer> or <answer>9</answer>", "answer") is None
        True
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    if reply.count(opening) != 1 or reply.count(closing) != 1:
        return None
    start, end = reply.index(opening) + len(opening), reply.index(closing)
    return reply[start:end].strip() if start <= end else None


def last_named(reply: str, names: Iterable[str]) -> str | None:
    """Return the name that comes last in a reply, as a word of its own and in any case; None if there is none.

    Where two names end at the same place, the longer one is meant.

    Examples:
        >>> last_named("Not left, so I go UP.", ["up", "down", "left", "right"])
        'up'
        >>> last_named("Stay upright.", ["up", "right"]) is None
        True
    """
    by_lower = {name.lower(): name for name in names}
    longest_first = sorted(by_lower, key=len, reverse=True)
    found = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", reply.lower())
    return by_lower[found[-1]] if found else None


def last_block(reply: str) -> str | None:
    r"""Return the last block of code of a reply; None if there is none.

    Example:
        >>> last_block("So:\n```python\nx = 1\n```\nDone.")
        'x = 1\n'
    """
    pieces = reply.split("```")
    blocks = pieces[1:-1:2]  # one that is never closed is none
    if not blocks:
        return None
    language, end, code = blocks[-1].partition("\n")
    return code if end and language.strip().lower() in ("", "python", "python3", "py") else None
