"""The environment: a question, documents to search and read, and an answer with its proof."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from llmgym.calls import ActionLike, ToolCall
from llmgym.envs.search.answer import MOST_DOCUMENTS, read_answer, score_parts
from llmgym.envs.search.chain import Chain, draw_chain
from llmgym.envs.search.index import Index
from llmgym.envs.search.world import Document, draw_world
from llmgym.envs.splits import Split, check_difficulty_and_split, draw_in_split
from llmgym.envs.text_env import TextEnv
from llmgym.envs.tools import Tool, ToolError
from llmgym.errors import did_you_mean
from llmgym.types import Episode


class Level(NamedTuple):
    """What a difficulty asks for."""

    documents: int
    hops: int  # documents that prove an answer
    former: bool  # whether documents also tell what is no longer so


LEVELS = (Level(30, 1, False), Level(60, 2, False), Level(120, 2, True), Level(200, 3, True))


@dataclass(frozen=True, slots=True)
class Lookup:
    """One task: a question over a world."""

    chain: Chain

    @property
    def content(self) -> str:
        """The question."""
        return self.chain.question


class Search(TextEnv):
    """Find the documents that answer a question, follow them from one to the next, and cite those that prove it.

    All names are invented for the episode, so the answer is only in the documents, one for each person, company, city,
    lamp and novel. A tool searches them, another one reads one of them. Then a reply without a call ends the episode
    with a JSON object between ``<answer>`` and ``</answer>``: ``{"answer": "...", "documents": ["D001"]}``. Of
    the documents cited, only those that were read count. A reply scores nothing if it cites more than five, has two
    answers, lacks one of the two keys, or has another key. An episode is a success if it earns the full score.

    The reward is the sum of three parts:

    - ``answer`` (0.6): it is the right name or number; capitals do not matter.
    - ``precision`` (0.2): the share of the cited documents that are needed.
    - ``recall`` (0.2): the share of the needed documents that are cited.

    | difficulty | documents | to find and cite | |
    |---|---|---|---|
    | 0 | 30 | 1 | |
    | 1 | 60 | 2 | |
    | 2 | 120 | 2 | documents also tell what is no longer so |
    | 3 | 200 | 3 | the same |

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no question belongs to both.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.

    Raises:
        ConfigError: The SQLite of this Python was built without its full-text search, FTS5.
    """

    system_prompt = (
        "You answer a question from documents, which you search and read with your tools. One document often leads to "
        "the next. Then reply without a call: give a JSON object between <answer> and </answer>, such as "
        '<answer>{"answer": "a name or a number", "documents": ["D001"]}</answer>, with the ids of the documents that '
        f"prove the answer and of no others, at most {MOST_DOCUMENTS}. Cite only documents that you have read."
    )

    def search(self, query: str) -> list[dict[str, str]]:
        """Search the documents; the five that match best are shown, the best first.

        Args:
            query: Words to look for; documents that have more of them, or rarer ones, match better.
        """
        keys = ("id", "title", "excerpt")
        return [dict(zip(keys, found, strict=True)) for found in self._index.search(query)]

    def read(self, id: str) -> dict[str, str]:
        """Read a document.

        Args:
            id: Such as D001.
        """
        if id not in self._documents:
            raise ToolError(f"there is no document {id!r:.80}.{did_you_mean(id[:80], self._documents)}")
        self._read.add(id)
        return asdict(self._documents[id])

    tools: Sequence[Callable[..., Any] | Tool] = (search, read)

    def __init__(self, difficulty: int = 1, split: Split = "train", **options: Any) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, len(LEVELS), split)
        self.level = LEVELS[difficulty]
        self.split: Split = split
        self.max_turns = 4 + 4 * self.level.hops
        self._index = Index(())

    def begin(self) -> str:
        """Draw a world and a question, and write the documents."""
        task = draw_in_split(self._draw, self.np_random, self.split)
        self.episode.task = task
        world = task.chain.world
        documents = sorted((world.document(entity) for entity in world.entities), key=lambda one: one.id)
        self._documents: dict[str, Document] = {one.id: one for one in documents}
        self._read: set[str] = set()
        self._index.close()
        self._index = Index(documents)
        return task.chain.question

    def _draw(self, rng: np.random.Generator) -> Lookup:
        world = draw_world(rng, self.level.documents, former=self.level.former)
        return Lookup(draw_chain(rng, world, self.level.hops))

    def score(self, episode: Episode) -> dict[str, float]:
        """Compare the answer and its proof with the right ones."""
        chain: Chain = episode.task.chain
        return score_parts(read_answer(episode.actions[-1]), chain.answer, chain.documents, frozenset(self._read))

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def expert(self) -> Iterator[ActionLike]:
        """Search and read one document after another, then answer."""
        chain: Chain = self.episode.task.chain
        yield from self._found(chain.answer)

    def mistake(self) -> Iterator[ActionLike]:
        """Read the right documents and answer with something else: what is no longer so, or another name in them."""
        chain: Chain = self.episode.task.chain
        last, relation = chain.path[-1], chain.relations[-1]
        if relation in last.former:
            yield from self._found(chain.world.value(last, relation, former=True))
        else:
            others = [chain.world.value(last, name) for name in last.facts if name != relation]
            yield from self._found(str(self.np_random.choice(others)))

    def _found(self, answer: str) -> Iterator[ActionLike]:
        chain: Chain = self.episode.task.chain
        for entity in chain.path:
            yield ToolCall("search", {"query": entity.name})
            yield ToolCall("read", {"id": entity.document})
        said = {"answer": answer, "documents": [entity.document for entity in chain.path]}
        yield f"<answer>{json.dumps(said)}</answer>"
