"""The recipe of the bundled model that reads incidents: ``python -m llmgym.demo.tiny_incidents build``.

It is made as `llmgym.demo.tiny` is, from nothing, but of lessons in AIOpsIncident. It reads the signals nearly always
right, and names the cause a third of the time when sampled at temperature 1.
"""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from llmgym.demo import TINY_INCIDENTS_PATH
from llmgym.demo.incident_teacher import ROUNDS, Stage, batches, lessons
from llmgym.demo.tiny import (
    CHATML,
    Recipe,
    as_llama,
    build_command,
    fit_tokenizer,
    grow,
    loss_of,
    make_model,
    minimise,
    plain_text,
)
from llmgym.rollout.chat import ChatCodec

WORDS = r" ?\[[A-Z]\d+\]| ?[A-Z]\d+\b| [a-z]+ (?:high|normal)\b| ?[A-Za-z_]+| ?\p{Han}+| ?\d{1,2}| ?[^\sA-Za-z\d]+|\s"
"""How text is cut before its bytes are merged: a tag is one piece, a snake_case name, and a gauge with its state."""

RECIPE = Recipe(
    steps=sum(stage.steps for stages in ROUNDS for stage in stages), heads=2, rope_theta=1e6, prompt_weight=0.02
)


def build(path: Path, recipe: Recipe) -> None:
    """Make the tokenizer and the model, and save both to `path`."""
    torch.manual_seed(recipe.seed)
    tokenizer = make_tokenizer(recipe)
    model = make_model(recipe, tokenizer)
    train(model, ChatCodec(tokenizer), recipe)
    as_llama(model, recipe, tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)


def make_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on whole lessons."""
    taught = lessons(np.random.default_rng([recipe.seed, 1]), 1, ROUNDS[-1][-1])
    return fit_tokenizer([plain_text(lesson) for lesson in itertools.islice(taught, 3000)], recipe, WORDS, CHATML)


def train(model: Qwen2ForCausalLM, codec: ChatCodec, recipe: Recipe) -> None:
    """Teach the model all rounds of lessons; of each round at most the first `steps` batches."""
    for number, stages in enumerate(ROUNDS, start=2):
        _teach(model, codec, recipe, stages, np.random.default_rng([recipe.seed, number]))


def _teach(
    model: Qwen2ForCausalLM, codec: ChatCodec, recipe: Recipe, stages: Sequence[Stage], rng: np.random.Generator
) -> None:
    stream = batches(rng, stages, recipe.answers_per_lesson)
    steps = min(recipe.steps, sum(stage.steps for stage in stages))
    minimise(model, lambda: loss_of(model, [grow(lesson, codec, recipe) for lesson in next(stream)]), recipe, steps)


def main(arguments: list[str] | None = None) -> int:
    """Build the bundled model that reads incidents."""
    return build_command("llmgym.demo.tiny_incidents", __doc__, TINY_INCIDENTS_PATH, RECIPE, build, arguments)


if __name__ == "__main__":
    sys.exit(main())
