"""What databases are about: people, things, and what happened between them, under the names of several trades."""

from dataclasses import dataclass

import numpy as np

from llmgym.envs.sql.database import Table

YEARS = tuple(range(2019, 2025))
PLACES = ("Aldbury", "Brexham", "Corsley", "Denholm", "Elmstead", "Farnley")

_FIRST = """
    Ada Bruno Clara Dario Elena Felix Greta Hugo Ida Jonas Karin Leo Mira Nils Olga Paul Rosa Stefan Tilda Umar Vera
    Wim Yara Zeno Agnes Boris Celia Dana Emil Fiona Gustav Hana
    """.split()  # noqa: SIM905  # lists of words read better without quotes
_LAST = """
    Abel Brandt Costa Dahl Ekman Fischer Garcia Holm Ivanov Jansen Keller Lund Moreau Novak Olsen Petrov Quist Rossi
    Silva Thorn Ulrich Varga Weber Young Zeller Archer Bishop Carver Dyer Fowler Glover Hunter
    """.split()  # noqa: SIM905
_ADJECTIVES = """
    Amber Blue Calm Deep Early Fine Grand High Iron Jade Kind Long Mellow North Open Plain Quick Red Silver Tall
    """.split()  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class Theme:
    """The names that a trade gives to its tables and columns.

    Attributes:
        people: Table of people, with the columns name, place and since.
        person: One of them.
        place: Where a person belongs.
        since: A year in a person's life.
        things: Table of things, with the columns name, kind and size.
        thing: One of them.
        kind: What kind of thing it is.
        size: A number that each thing has.
        events: Table of what happened, with the columns person, thing, amount and year.
        amount: A number that each event has.
        kinds: The kinds of things.
        nouns: What things are called.
    """

    people: str
    person: str
    place: str
    since: str
    things: str
    thing: str
    kind: str
    size: str
    events: str
    amount: str
    kinds: tuple[str, ...]
    nouns: tuple[str, ...]


THEMES = (
    Theme(
        "customers", "customer", "city", "registered", "products", "product", "category", "price", "orders", "quantity",
        kinds=("kitchen", "garden", "office", "sport", "toys"), nouns=("Lamp", "Kettle", "Chair", "Basket", "Clock"),
    ),
    Theme(
        "patients", "patient", "town", "born", "treatments", "treatment", "department", "fee", "visits", "minutes",
        kinds=("surgery", "dental", "eyes", "heart", "skin"), nouns=("Check", "Scan", "Course", "Test", "Therapy"),
    ),
    Theme(
        "members", "member", "district", "joined", "books", "book", "genre", "pages", "loans", "days",
        kinds=("crime", "history", "poetry", "travel", "science"),
        nouns=("Harbour", "Winter", "Garden", "Road", "Hill"),
    ),
    Theme(
        "students", "student", "village", "entered", "courses", "course", "subject", "credits", "exams", "points",
        kinds=("biology", "law", "music", "physics", "art"), nouns=("Basics", "Seminar", "Project", "Survey", "Lab"),
    ),
    Theme(
        "drivers", "driver", "depot", "hired", "routes", "route", "region", "kilometres", "trips", "passengers",
        kinds=("north", "coast", "valley", "centre", "lakes"), nouns=("Line", "Loop", "Express", "Link", "Shuttle"),
    ),
)  # fmt: skip


def tables(rng: np.random.Generator, theme: Theme, people: int, things: int, events: int) -> tuple[Table, ...]:
    """Draw the rows of a database, given how many each table has. Names differ within a table."""
    names = _names(rng, _FIRST, _LAST, people)
    titles = _names(rng, _ADJECTIVES, theme.nouns, things)
    places, kinds = rng.integers(len(PLACES), size=people), rng.integers(len(theme.kinds), size=things)
    since, sizes = rng.integers(1990, 2019, people), rng.integers(3, 400, things)
    # Squares make some people and things far busier than others.
    who, what = (rng.random(events) ** 2 * people).astype(int), (rng.random(events) ** 2 * things).astype(int)
    amounts, years = rng.integers(1, 60, events), rng.choice(YEARS, events)
    return (
        Table(
            theme.people,
            ("id INTEGER PRIMARY KEY", "name TEXT", f"{theme.place} TEXT", f"{theme.since} INTEGER"),
            [(i + 1, names[i], PLACES[places[i]], int(since[i])) for i in range(people)],
        ),
        Table(
            theme.things,
            ("id INTEGER PRIMARY KEY", "name TEXT", f"{theme.kind} TEXT", f"{theme.size} INTEGER"),
            [(i + 1, titles[i], theme.kinds[kinds[i]], int(sizes[i])) for i in range(things)],
        ),
        Table(
            theme.events,
            (
                "id INTEGER PRIMARY KEY",
                f"{theme.person}_id INTEGER REFERENCES {theme.people}",
                f"{theme.thing}_id INTEGER REFERENCES {theme.things}",
                f"{theme.amount} INTEGER",
                "year INTEGER",
            ),
            [(i + 1, int(who[i]) + 1, int(what[i]) + 1, int(amounts[i]), int(years[i])) for i in range(events)],
        ),
    )


def _names(rng: np.random.Generator, first: list[str], last: list[str] | tuple[str, ...], count: int) -> list[str]:
    """Draw names of two words, all different."""
    drawn = rng.choice(len(first) * len(last), count, replace=False)
    return [f"{first[i // len(last)]} {last[i % len(last)]}" for i in drawn]
