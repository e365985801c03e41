"""transformers: a plain loop, as one writes it; micro-batches of 8 rows, logits of the replies only."""

from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM

from benchmarks.updates.episodes import Episodes, Step
from benchmarks.updates.padded import whole_rows

_ROWS = 8


def load(model: str, dtype: str) -> Callable[[Episodes], Step]:
    """Return the update."""
    lm = AutoModelForCausalLM.from_pretrained(model)
    optimiser = torch.optim.AdamW(lm.parameters(), lr=0.0, weight_decay=0.0)

    def step(episodes: Episodes) -> Step:
        total = 0.0
        tokens, real, sampled, old = whole_rows(episodes)
        advantages = torch.tensor(episodes.advantages)
        optimiser.zero_grad()
        for start in range(0, len(tokens), _ROWS):
            rows = slice(start, start + _ROWS)
            keep = tokens.shape[1] - min(map(len, episodes.prompts[rows])) + 1
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                logits = lm(tokens[rows], attention_mask=real[rows], use_cache=False, logits_to_keep=keep).logits
            chosen, mask = tokens[rows, 1 - keep :], sampled[rows, 1 - keep :]
            log_probs = logits[:, :-1].float().log_softmax(-1).gather(2, chosen[..., None])[..., 0]
            ratio = (log_probs - old[rows, 1 - keep :]).exp()
            advantage = advantages[rows, None]
            objective = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            loss = -(objective * mask).sum() / episodes.sampled
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimiser.step()
        return Step(total, norm.item())

    return step
