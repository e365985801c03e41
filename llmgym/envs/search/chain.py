"""Questions that lead from one document to the next."""

from dataclasses import dataclass

import numpy as np

from llmgym.envs.search.world import RELATIONS, Entity, World


@dataclass(frozen=True, slots=True)
class Chain:
    """A question: an entity, and the facts to follow from it, one after another.

    Attributes:
        world: What it is about.
        path: The entities whose documents prove the answer, in order.
        relations: The fact of each that leads on; the last one leads to the answer.
    """

    world: World
    path: tuple[Entity, ...]
    relations: tuple[str, ...]

    @property
    def question(self) -> str:
        """The question in words."""
        phrase = f"the {self.path[0].kind} {self.path[0].name}"
        for entity, relation in zip(self.path, self.relations, strict=True):
            phrase = RELATIONS[entity.kind][relation].phrase.format(x=phrase)
        return f"What is {phrase}?"

    @property
    def answer(self) -> str:
        """The right answer."""
        return self.world.value(self.path[-1], self.relations[-1])

    @property
    def documents(self) -> frozenset[str]:
        """The ids of the documents that prove it."""
        return frozenset(entity.document for entity in self.path)


def draw_chain(rng: np.random.Generator, world: World, hops: int) -> Chain:
    """Draw a question of so many facts, which passes through no entity twice."""
    while True:
        index = int(rng.integers(len(world.entities)))
        seen = [index]
        relations: list[str] = []
        while len(relations) < hops:
            entity = world.entities[seen[-1]]
            # Only the last fact may be a number, from which nothing leads on.
            last = len(relations) == hops - 1
            names = [name for name, one in RELATIONS[entity.kind].items() if last or one.to is not None]
            relations.append(names[rng.integers(len(names))])
            if RELATIONS[entity.kind][relations[-1]].to is not None:
                seen.append(entity.facts[relations[-1]])
        if len(set(seen)) == len(seen):
            return Chain(world, tuple(world.entities[i] for i in seen[:hops]), tuple(relations))
