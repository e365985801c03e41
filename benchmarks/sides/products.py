"""The matrix products of a rollout and nothing else: what the embedded engine cannot be faster than.

Every distinct prompt goes through the linear layers once, then the tokens between two replies,
then token after token of all replies that are not over yet; the head takes the sampled ones. No
attention, no norms, no cache and no sampling.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from benchmarks.work import Work

_ROWS = 1280  # of one pass, as the engine's


def load(model: str, dtype: str) -> Callable[[Work], list[list[list[int]]]]:
    """Return the products of a rollout, which samples nothing: the tokens it returns count up."""
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
    head = lm.get_output_embeddings()
    layers = [module for module in lm.modules() if isinstance(module, nn.Linear) and module is not head]
    widths = {layer.in_features for layer in layers}

    def run(rows: int, sampled: int) -> None:
        for start in range(0, rows, _ROWS):
            count = min(_ROWS, rows - start)
            states = {width: torch.zeros(count, width, dtype=lm.dtype) for width in widths}
            for layer in layers:
                layer(states[layer.in_features])
        head(torch.zeros(sampled, head.in_features, dtype=lm.dtype))

    @torch.inference_mode()
    def rollout(work: Work) -> list[list[list[int]]]:
        run(sum(map(len, {tuple(prompt) for prompt in work.prompts})), 0)
        for turn in range(work.turns):
            if turn:
                run(len(work.bridge) * len(work.prompts), 0)
            lengths = [episode[turn] for episode in work.lengths]
            for step in range(max(lengths)):
                alive = sum(length > step for length in lengths)
                run(alive, alive)
        numbers = iter(range(work.sampled))
        return [[[next(numbers) for _ in range(length)] for length in episode] for episode in work.lengths]

    return rollout
