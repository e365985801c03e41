"""`WhereIs`: a question about three people and three places, in words that a small model knows."""

from collections.abc import Iterator
from typing import Any

import llmgym

PEOPLE = {
    "train": ("Anna", "Tom", "Ben", "Lucy", "Mary", "John", "Sam", "Kate"),
    "eval": ("Paul", "Emma", "Peter", "Alice"),
}
PLACES = {
    "train": ("kitchen", "garden", "hall", "office", "school", "park", "station", "library"),
    "eval": ("bedroom", "market", "museum", "hotel"),
}


@llmgym.register_env("WhereIs-v0")
class WhereIs(llmgym.TextEnv):
    """Three people are in three places; where is one of them?

    A reply is right if it names the right place and neither of the other two. In the split ``eval`` are people and
    places that training never shows.
    """

    system_prompt = "Give short answers."

    def __init__(self, *, split: str = "train", **options: Any) -> None:
        super().__init__(**options)
        self.split = split

    def begin(self) -> str:
        """Draw who is where, and who is asked about."""
        people = [str(name) for name in self.np_random.permutation(PEOPLE[self.split])[:3]]
        self.places = [str(name) for name in self.np_random.permutation(PLACES[self.split])[:3]]
        asked = int(self.np_random.integers(3))
        self.person, self.episode.task = people[asked], self.places[asked]
        said = " ".join(f"{who} is in the {where}." for who, where in zip(people, self.places, strict=True))
        return f"{said} Where is {self.person}?"

    def score(self, episode: llmgym.Episode) -> dict[str, float]:
        """Give 0.9 for the right place, and 0.1 for naming one place at all."""
        named = [place for place in self.places if place in episode.actions[0]]
        return {"right": 0.9 * (named == [episode.task]), "one_place": 0.1 * (len(named) == 1)}

    def expert(self) -> Iterator[str]:
        """Name the right place."""
        yield self.episode.task

    def mistake(self) -> Iterator[str]:
        """Name another one."""
        yield next(place for place in self.places if place != self.episode.task)
