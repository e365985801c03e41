"""llmgym's whole rollout: the collector, with the environments and the codec that the works come from.

It does more than the others: it resets and steps environments, renders, decodes, scores and
makes trajectories. It plays only the work whose replies all have one length.
"""

from collections.abc import Callable
from pathlib import Path

import gymnasium
import torch

from benchmarks.model import ENV, codec
from benchmarks.work import Work
from llmgym.config.sections import Sampling
from llmgym.engines.local.engine import LocalEngine
from llmgym.envs.vector import TextVectorEnv
from llmgym.models.causal_lm import load_causal_lm
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task


def load(model: str, dtype: str) -> Callable[[Work], list[list[list[int]]]]:
    """Return the collector's rollout."""
    chat = codec()
    chat.stop_token_ids = ()  # nothing but its length ends a reply
    engine = LocalEngine(load_causal_lm(Path(model), getattr(torch, dtype))[0])

    def rollout(work: Work) -> list[list[list[int]]]:
        (length,) = {length for episode in work.lengths for length in episode}
        seeds = {tuple(prompt): seed for seed, prompt in enumerate(dict.fromkeys(map(tuple, work.prompts)))}
        tasks = [Task(seed=seeds[tuple(prompt)], group=seeds[tuple(prompt)]) for prompt in work.prompts]
        envs = TextVectorEnv([lambda: gymnasium.make(ENV)] * len(tasks))
        trajectories = Collector(envs, chat, engine).collect(tasks, Sampling(max_tokens=length), work.seed)
        for trajectory, prompt in zip(trajectories, work.prompts, strict=True):
            assert trajectory.tokens[: trajectory.replies[0].start] == prompt
            first, second = trajectory.replies
            assert trajectory.tokens[first.stop : second.start] == work.bridge
        return [[t.tokens[reply.start : reply.stop] for reply in t.replies] for t in trajectories]

    return rollout
