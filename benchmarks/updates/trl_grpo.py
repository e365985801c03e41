"""TRL's `GRPOTrainer`: `train()` for one step, its defaults, its generation replaced by the episodes.

Its loss type is its own default, ``dapo``: the mean over the sampled tokens of the whole batch.
Several turns are masked as it masks the answers of tools. The loss and the length of the
gradient are what the trainer works with.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, ProgressCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.updates.episodes import Episodes, Step
from benchmarks.updates.padded import padded


class _Given(GRPOTrainer):
    """The trainer with episodes that are given instead of sampled."""

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        episodes = self.episodes
        prompts, rests = padded(episodes.prompts, left=True), padded(episodes.rests)
        return {
            "prompt_ids": prompts,
            "prompt_mask": padded([[1] * len(prompt) for prompt in episodes.prompts], left=True),
            "completion_ids": rests,
            "completion_mask": padded([[1] * len(rest) for rest in episodes.rests]),
            "tool_mask": padded(episodes.masks),
            "advantages": torch.tensor(episodes.advantages),
            "old_per_token_logps": padded(episodes.log_probs),
            "num_items_in_batch": torch.tensor(episodes.sampled),
        }

    def training_step(self, *arguments: Any) -> torch.Tensor:
        loss = super().training_step(*arguments)
        self.losses.append(loss.item())
        return loss


def load(model: str, dtype: str, **options: Any) -> Callable[[Episodes], Step]:
    """Return the update with a GRPOTrainer that has these options beside its defaults."""
    trainer = _Given(
        model=AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=lambda completions, **kwargs: [0.0] * len(completions),
        args=GRPOConfig(
            output_dir=os.path.join(model, "trl"),
            use_cpu=True,
            bf16=dtype == "bfloat16",
            per_device_train_batch_size=8,
            gradient_accumulation_steps=16,
            num_generations=8,
            learning_rate=0.0,
            max_steps=1,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **options,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["."] * 128}),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    norms: list[float] = []
    clip = trainer.accelerator.clip_grad_norm_

    def clip_and_note(*arguments: Any, **keywords: Any) -> Any:
        norm = clip(*arguments, **keywords)
        norms.append(float(norm))
        return norm

    trainer.accelerator.clip_grad_norm_ = clip_and_note

    def step(episodes: Episodes) -> Step:
        trainer.episodes, trainer.losses = episodes, []
        trainer._buffered_inputs = None
        trainer._step = 0
        trainer.train()
        return Step(sum(trainer.losses), norms[-1])

    return step
