"""TRL's `GRPOTrainer`: its generation, through the hook it has for several turns.

A `rollout_func` asks the trainer's own `_generate_single_turn` for each turn, as the trainer's
loop over tool calls does: prompt, reply and answer put together as tokens and run again from
the start. The time is that of the trainer's `_generate`. It has no log-probabilities; they
are a forward pass of TRL's update.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from benchmarks.sides.generate import Lengths
from benchmarks.work import Work


def load(model: str, dtype: str) -> Callable[[Work], list[list[list[int]]]]:
    """Return the rollout with a GRPOTrainer."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
    generate = lm.generate
    current: list[Work] = []

    def rollout_func(prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        work = current[0]
        contexts = [list(prompt) for prompt in work.prompts]
        masks: list[list[int]] = [[] for _ in contexts]
        for turn in range(work.turns):
            lengths = [episode[turn] for episode in work.lengths]
            trainer.generation_config.max_new_tokens = max(lengths)
            criteria = [Lengths(max(map(len, contexts)), lengths)]
            lm.generate = functools.partial(generate, stopping_criteria=criteria)
            replies, _ = trainer._generate_single_turn(contexts, None, {}, num_generations=1)
            last = turn == work.turns - 1
            for context, mask, reply, length in zip(contexts, masks, replies, lengths, strict=True):
                bridge = [] if last else work.bridge
                context += reply[:length] + bridge
                mask += [1] * length + [0] * len(bridge)
        completions = [context[len(prompt) :] for prompt, context in zip(work.prompts, contexts, strict=True)]
        return {"prompt_ids": work.prompts, "completion_ids": completions, "logprobs": None, "env_mask": masks}

    trainer = GRPOTrainer(
        model=lm,
        reward_funcs=lambda completions, **kwargs: [0.0] * len(completions),
        args=GRPOConfig(
            output_dir=os.path.join(model, "trl"),
            use_cpu=True,
            bf16=dtype == "bfloat16",
            per_device_train_batch_size=128,
            num_generations=8,
            report_to=[],
            generation_kwargs={"eos_token_id": None},  # nothing but its length ends a reply
        ),
        train_dataset=Dataset.from_dict({"prompt": ["."] * 128}),
        processing_class=tokenizer,
        rollout_func=rollout_func,
    )
    trainer.eos_token_ids = []
    trainer.model.train()

    def rollout(work: Work) -> list[list[list[int]]]:
        torch.manual_seed(work.seed)
        current[:] = [work]
        _, completions, masks, *_ = trainer._generate(["."] * len(work.prompts))
        return [
            _replies(completion, mask, lengths)
            for completion, mask, lengths in zip(completions, masks, work.lengths, strict=True)
        ]

    return rollout


def _replies(completion: list[int], mask: list[int], lengths: list[int]) -> list[list[int]]:
    sampled = [token for token, own in zip(completion, mask, strict=True) if own]
    starts = [sum(lengths[:turn]) for turn in range(len(lengths))]
    return [sampled[start : start + length] for start, length in zip(starts, lengths, strict=True)]
