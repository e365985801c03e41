"""How long 64 episodes of four turns take whose environment waits 200 ms per turn, all at the same time.

``python -m benchmarks.waiting``; the engine is scripted, so that nothing but environments and coroutines takes time.
"""

import argparse
import asyncio
import statistics
import time
from typing import Any

import llmgym
from benchmarks.results import Claim, claim_table, processor
from llmgym.config.sections import Sampling
from llmgym.demo import TINY_PATH
from llmgym.engines.scripted import ScriptedEngine
from llmgym.envs.vector import TextVectorEnv
from llmgym.models.causal_lm import load_causal_lm
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task

WAIT, TURNS, EPISODES = 0.2, 4, 64


class Waiting(llmgym.TextEnv):
    """Answers anything after a while, in a coroutine."""

    def begin(self) -> str:
        """Ask."""
        return "?"

    async def respond(self, action: str) -> str | None:
        """Wait, and ask again."""
        await asyncio.sleep(WAIT)
        return "?" if len(self.episode.turns) < TURNS else None

    def score(self, episode: llmgym.Episode) -> float:
        """Give nothing."""
        return 0.0


class Blocking(Waiting):
    """The same in a call that blocks, and says so."""

    blocking = True

    def respond(self, action: str) -> str | None:  # type: ignore[override]  # it is no coroutine
        """Wait, and ask again."""
        time.sleep(WAIT)
        return "?" if len(self.episode.turns) < TURNS else None


def seconds(kind: type[Waiting], codec: ChatCodec, reply: list[int]) -> float:
    """Play all episodes once."""
    engine = ScriptedEngine(lambda request: reply)
    collector = Collector(TextVectorEnv([kind] * EPISODES), codec, engine)
    begun = time.perf_counter()
    played = collector.collect([Task(seed, seed) for seed in range(EPISODES)], Sampling(max_tokens=8))
    assert all(len(one.replies) == TURNS for one in played)
    return time.perf_counter() - begun


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    _, tokenizer = load_causal_lm(TINY_PATH)
    codec = ChatCodec(tokenizer)
    reply: Any = [*tokenizer("ok")["input_ids"], codec.stop_token_ids[0]]
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        for kind in (Waiting, Blocking):
            found.setdefault(kind.__name__, []).append(seconds(kind, codec, reply))
    print(f"{processor()}; medians of {repeats} interleaved repeats.\n")
    texts = {"Waiting": "coroutines", "Blocking": "calls that block, and say so"}
    claims = [
        Claim(f"seconds of {EPISODES} episodes of {TURNS} turns of {WAIT} s in {texts[name]}", 1.3, middle, False)
        for name, middle in ((name, statistics.median(values)) for name, values in found.items())
    ]
    print(claim_table(claims))


if __name__ == "__main__":
    main()
