"""Commands in words, read forgivingly."""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

Verb = Literal["go", "open", "take", "put", "wash", "slice", "heat", "cool", "look", "finish"]

_WORDS: dict[Verb, tuple[str, ...]] = {
    "go": ("go", "walk", "move", "enter", "head"),
    "open": ("open",),
    "take": ("take", "pick up", "grab", "get", "fetch"),
    "put": ("put", "place", "set", "lay", "serve"),
    "wash": ("wash", "clean", "rinse"),
    "slice": ("slice", "cut", "chop"),
    "heat": ("heat", "cook", "warm", "fry", "boil"),
    "cool": ("cool", "chill"),
    "look": ("look", "wait"),
}
_VERB_OF = {word: verb for verb, words in _WORDS.items() for word in words}
_VERBS = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(_VERB_OF, key=len, reverse=True))})(?!\w)")
_LONGEST = 4_000  # characters of a reply that are read, from its end


class Command(NamedTuple):
    """What a reply asks for: a verb, and the things that it names, in order."""

    verb: Verb
    things: tuple[str, ...] = ()


def read_command(reply: str, names: Iterable[str]) -> Command | None:
    """Return the command that comes last in a reply; None if it has none.

    To finish, the last line says so and nothing else.

    Examples:
        >>> names = ["dining room", "potato", "dining table"]
        >>> read_command("It is hot now. Put the Potato onto the dining table!", names)
        Command(verb='put', things=('potato', 'dining table'))
        >>> read_command("I walk to the DINING ROOM", names)
        Command(verb='go', things=('dining room',))
        >>> read_command("Hm.", names) is None
        True
    """
    lines = reply[-_LONGEST:].lower().strip().splitlines()
    if lines and lines[-1].strip(" .!*`\"'") == "finish":
        return Command("finish")
    text = " ".join(" ".join(lines).split())
    verbs = list(_VERBS.finditer(text))
    if not verbs:
        return None
    longest_first = sorted(names, key=len, reverse=True)
    named = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", text[verbs[-1].end() :])
    return Command(_VERB_OF[verbs[-1][0]], tuple(named))
