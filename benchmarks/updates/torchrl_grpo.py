"""TorchRL: its `TransformersWrapper` and `GRPOLoss`, with assistant masks and micro-batches of 8 rows."""

from collections.abc import Callable

import torch
from tensordict import TensorDict
from torchrl.modules.llm import TransformersWrapper
from torchrl.objectives.llm import GRPOLoss
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.updates.episodes import Episodes, Step
from benchmarks.updates.padded import whole_rows

_ROWS = 8


def load(model: str, dtype: str) -> Callable[[Episodes], Step]:
    """Return the update."""
    lm = AutoModelForCausalLM.from_pretrained(model)
    actor = TransformersWrapper(
        lm,
        tokenizer=AutoTokenizer.from_pretrained(model),
        input_mode="tokens",
        generate=False,
        return_log_probs=True,
        pad_output=True,
    )
    loss_module = GRPOLoss(actor, masking_strategy="rlhf", entropy_bonus=False)
    optimiser = torch.optim.AdamW(lm.parameters(), lr=0.0, weight_decay=0.0)

    def step(episodes: Episodes) -> Step:
        total = 0.0
        tokens, real, sampled, old = whole_rows(episodes)
        advantage = (torch.tensor(episodes.advantages)[:, None] * sampled)[..., None]
        batch = TensorDict(
            {
                "tokens": {"full": tokens},
                "masks": {"all_attention_mask": real, "all_assistant_mask": sampled},
                "log_probs": {"full": old},
                "advantage": advantage,
            },
            batch_size=[len(tokens)],
        )
        optimiser.zero_grad()
        for rows in batch.split(_ROWS):
            share = rows["masks", "all_assistant_mask"].sum() / episodes.sampled
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = loss_module(rows).loss_objective * share  # it is a mean over the micro-batch
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimiser.step()
        return Step(total, norm.item())

    return step
