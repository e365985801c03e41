"""TorchRL with its defaults: rows as a list of unequal length, the entropy bonus, the whole batch at once."""

from collections.abc import Callable

import torch
from tensordict import TensorDict, lazy_stack
from torchrl.modules.llm import TransformersWrapper
from torchrl.objectives.llm import GRPOLoss
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.updates.episodes import Episodes, Step
from benchmarks.updates.padded import padded


def load(model: str, dtype: str) -> Callable[[Episodes], Step]:
    """Return the update."""
    lm = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    actor = TransformersWrapper(lm, tokenizer=tokenizer, input_mode="tokens", generate=False, return_log_probs=True)
    loss_module = GRPOLoss(actor)
    optimiser = torch.optim.AdamW(lm.parameters(), lr=0.0, weight_decay=0.0)

    def step(episodes: Episodes) -> Step:
        optimiser.zero_grad()
        batch = _rows(episodes)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            losses = loss_module(batch)
        (losses.loss_objective + losses.loss_entropy).backward()
        norm = torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimiser.step()
        return Step(losses.loss_objective.item(), norm.item())

    return step


def _rows(episodes: Episodes) -> TensorDict:
    """Return the episodes as TorchRL's collectors do: stacked lazily, each as long as it is."""
    rows = zip(episodes.prompts, episodes.rests, episodes.masks, episodes.log_probs, strict=True)
    # `GRPOLoss` pads these on the right but what it compares them with on the left: here they are padded already.
    masks = [[0] * len(prompt) + mask for prompt, mask in zip(episodes.prompts, episodes.masks, strict=True)]
    advantages = padded(masks, left=True) * torch.tensor(episodes.advantages)[:, None]
    return lazy_stack(
        [
            TensorDict(
                {
                    "tokens": {"full": torch.tensor(prompt + rest)},
                    "masks": {
                        "all_attention_mask": torch.ones(len(prompt) + len(rest), dtype=torch.bool),
                        "all_assistant_mask": torch.tensor([0] * len(prompt) + mask).bool(),
                    },
                    "log_probs": {"full": torch.tensor([0.0] * len(prompt) + log_probs)},
                    "advantage": advantage[:, None],
                }
            )
            for (prompt, rest, mask, log_probs), advantage in zip(rows, advantages, strict=True)
        ]
    )
