"""transformers' `generate`: all episodes in one batch, padded on the left, one turn at a time.

Every turn runs the whole conversation again and lasts as long as its longest reply. It returns
no log-probabilities: its users, TRL among them, compute them in a forward pass that is not
counted here.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria

from benchmarks.work import Work


class Lengths(StoppingCriteria):
    """Ends every reply at its own length, as an end-of-sequence token would.

    Args:
        width: Tokens of the padded prompts.
        lengths: Tokens of each reply.
    """

    def __init__(self, width: int, lengths: list[int]) -> None:
        self.ends = torch.tensor(lengths) + width
        self.eos_token_id = torch.tensor([])  # tells `generate` to pad what is over

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """Tell which replies are over.  [B]"""
        return self.ends <= input_ids.shape[1]


def load(model: str, dtype: str) -> Callable[[Work], list[list[list[int]]]]:
    """Return the rollout with `generate`."""
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
    lm.generation_config.eos_token_id = None  # nothing but its length ends a reply
    tokenizer = AutoTokenizer.from_pretrained(model)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def rollout(work: Work) -> list[list[list[int]]]:
        contexts = [list(prompt) for prompt in work.prompts]
        replies: list[list[list[int]]] = [[] for _ in contexts]
        torch.manual_seed(work.seed)
        for turn in range(work.turns):
            lengths = [episode[turn] for episode in work.lengths]
            width = max(map(len, contexts))
            tokens = torch.tensor([[pad] * (width - len(context)) + context for context in contexts])
            mask = torch.tensor([[0] * (width - len(context)) + [1] * len(context) for context in contexts])
            output = lm.generate(
                input_ids=tokens,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                pad_token_id=pad,
                max_new_tokens=max(lengths),
                stopping_criteria=[Lengths(width, lengths)],
            )
            for context, reply, row, length in zip(contexts, replies, output.tolist(), lengths, strict=True):
                reply.append(row[width : width + length])
                context += reply[-1] + work.bridge
        return replies

    return rollout
