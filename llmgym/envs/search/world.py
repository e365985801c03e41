"""What documents tell of: invented entities, and the facts that lead from one to another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["person", "company", "city", "lamp", "novel"]


@dataclass(frozen=True, slots=True)
class Relation:
    """A fact that each entity of a kind has once.

    Attributes:
        phrase: What is asked for, of {x}.
        sentence: How the document of {x} tells that it is {y}.
        former: How it tells what it was before.
        to: The kind of {y}; None for a number.
    """

    phrase: str
    sentence: str
    former: str
    to: Kind | None


RELATIONS: Mapping[Kind, Mapping[str, Relation]] = {
    "person": {
        "home": Relation("the city where {x} lives", "{x} lives in {y}.", "Until {n} {x} lived in {y}.", "city"),
        "work": Relation(
            "the company that {x} works for", "{x} works for {y}.", "Until {n} {x} worked for {y}.", "company"
        ),
        "licence": Relation(
            "the licence number of {x}",
            "The licence number of {x} is {y}.",
            "Until {n} the licence number of {x} was {y}.",
            None,
        ),
    },
    "company": {
        "seat": Relation(
            "the city where {x} is based", "{x} is based in {y}.", "Until {n} {x} was based in {y}.", "city"
        ),
        "head": Relation("the head of {x}", "The head of {x} is {y}.", "Until {n} the head of {x} was {y}.", "person"),
        "staff": Relation(
            "the number of employees of {x}", "{x} has {y} employees.", "In {n} {x} had {y} employees.", None
        ),
    },
    "city": {
        "mayor": Relation(
            "the mayor of {x}", "The mayor of {x} is {y}.", "Until {n} the mayor of {x} was {y}.", "person"
        ),
        "sponsor": Relation(
            "the sponsor of {x}", "The sponsor of {x} is {y}.", "Until {n} the sponsor of {x} was {y}.", "company"
        ),
        "people": Relation(
            "the number of inhabitants of {x}", "{x} has {y} inhabitants.", "In {n} {x} had {y} inhabitants.", None
        ),
    },
    "lamp": {
        "maker": Relation("the maker of {x}", "{x} is made by {y}.", "Until {n} {x} was made by {y}.", "company"),
        "designer": Relation(
            "the designer of {x}", "{x} is designed by {y}.", "Until {n} {x} was designed by {y}.", "person"
        ),
    },
    "novel": {
        "scene": Relation(
            "the scene of {x}", "The scene of {x} is {y}.", "In a draft of {n} the scene of {x} was {y}.", "city"
        ),
        "author": Relation(
            "the author of {x}", "The author of {x} is {y}.", "In a draft of {n} the author of {x} was {y}.", "person"
        ),
    },
}
"""The facts of each kind, by name."""

KINDS: tuple[Kind, ...] = tuple(RELATIONS)

_SYLLABLES = """
    bal bren cor dal den el fal gar hol im jor kel lam mor nar or pel quin ras sel tam ul vor wes yar zan
    """.split()  # noqa: SIM905  # lists of words read better without quotes
_ENDINGS = "da dor fen ga ham is ka lin mar nik ona per ris sa tho una vik wen xar yo".split()  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class Entity:
    """Somebody or something that a document is about.

    Attributes:
        kind: What it is.
        name: No other has it.
        document: The id of its document.
        facts: What each relation leads to: the index of an entity, or a number.
        former: The same for what was so before; empty where documents do not tell.
        years: Until when.
    """

    kind: Kind
    name: str
    document: str
    facts: Mapping[str, int]
    former: Mapping[str, int]
    years: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Document:
    """A text that can be found."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class World:
    """Entities, each with a document."""

    entities: tuple[Entity, ...]

    def value(self, entity: Entity, relation: str, *, former: bool = False) -> str:
        """Return what a fact leads to, as it is written."""
        found = (entity.former if former else entity.facts)[relation]
        return str(found) if RELATIONS[entity.kind][relation].to is None else self.entities[found].name

    def document(self, entity: Entity) -> Document:
        """Write the document of an entity."""
        lines = [f"{entity.name} is a {entity.kind}."]
        for name, relation in RELATIONS[entity.kind].items():
            if name in entity.former:
                before = self.value(entity, name, former=True)
                lines.append(relation.former.format(x=entity.name, y=before, n=entity.years[name]))
            lines.append(relation.sentence.format(x=entity.name, y=self.value(entity, name)))
        return Document(entity.document, entity.name, " ".join(lines))


def draw_world(rng: np.random.Generator, count: int, *, former: bool) -> World:
    """Draw so many entities, with facts that lead to others, and with former facts too if asked for."""
    kinds = [KINDS[i % len(KINDS)] for i in range(count)]
    names = _names(rng, kinds)
    ids = rng.permutation(count) + 1
    of_kind = {kind: np.array([i for i, own in enumerate(kinds) if own == kind]) for kind in KINDS}
    tables = {
        (kind, name): _targets(rng, of_kind, kind, relation)
        for kind in KINDS
        for name, relation in RELATIONS[kind].items()
    }
    entities = []
    for i, kind in enumerate(kinds):
        row = i // len(KINDS)
        now = {name: int(tables[kind, name][0][row]) for name in RELATIONS[kind]}
        before = {name: int(tables[kind, name][1][row]) for name in RELATIONS[kind]} if former else {}
        years = {name: int(tables[kind, name][2][row]) for name in before}
        entities.append(Entity(kind, names[i], f"D{ids[i]:03d}", now, before, years))
    return World(tuple(entities))


def _targets(
    rng: np.random.Generator, of_kind: Mapping[Kind, np.ndarray], kind: Kind, relation: Relation
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw where a relation leads from each entity of a kind, where it led before, and until when."""
    own = of_kind[kind]
    years = rng.integers(1950, 2020, len(own))
    if relation.to is None:
        now = rng.integers(1000, 99_999, len(own))
        return now, now + rng.integers(1, 999, len(own)), years
    there = of_kind[relation.to]
    place = rng.integers(len(there), size=len(own))
    before = (place + rng.integers(1, len(there), len(own))) % len(there)
    return there[place], there[before], years


def _names(rng: np.random.Generator, kinds: list[Kind]) -> list[str]:
    """Draw names that differ in every word."""
    words = len(_SYLLABLES) * len(_ENDINGS)
    drawn = rng.choice(words, 2 * len(kinds), replace=False)
    named = [f"{_SYLLABLES[i // len(_ENDINGS)]}{_ENDINGS[i % len(_ENDINGS)]}".capitalize() for i in drawn]
    return [f"{named[2 * i]} {named[2 * i + 1]}" if kind == "person" else named[2 * i] for i, kind in enumerate(kinds)]
