"""The recipe of the bundled model that calls tools: ``python -m llmgym.demo.tiny_tools build``.

It is made as `llmgym.demo.tiny` is, from nothing, but of conversations in the environments of `CLASSES`. At first it
sees experts alone, from whom it learns to copy an expression into a call, and what that says into an answer. Then an
expert plays in fewer than a third of the episodes, and the environment's own mistake in all others. So it calls the
calculator now and then, in the format of its own chat template, and mostly says a number out of its head. Training
makes the better half the rule.
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from llmgym.calls import Schemas, calling
from llmgym.demo import TINY_TOOLS_PATH
from llmgym.demo.tiny import Recipe, Tree, as_llama, build_command, fit_tokenizer, loss_of, make_model, minimise
from llmgym.envs.experts import expert_env, play
from llmgym.envs.splits import training_seeds
from llmgym.registry import make_env
from llmgym.rollout.call_syntax import as_json_lines
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.trajectory import Trajectory
from llmgym.rollout.transcript import transcribe
from llmgym.types import Message

RIGHT = 0.3
"""Share of the episodes that the expert plays, in the second half of the lessons."""

WORDS = r" ?[A-Za-z_]+| ?[-+*/]|\d{1,2}| ?[^-+*/\sA-Za-z\d]+|\s"
"""How text is cut before its bytes are merged: a number up to 99 is one piece, the same wherever it is."""

TEMPLATE = Path(__file__).with_suffix(".jinja").read_text(encoding="utf-8")
"""ChatML, with tools and calls as Hermes and Qwen write them."""


@dataclass(frozen=True)
class Class:
    """An environment to learn in.

    Attributes:
        env: Its id.
        arguments: What it is made with.
        share: Of all lessons.
    """

    env: str
    arguments: dict[str, Any]
    share: float


CLASSES = (
    Class("llmgym/Sums-v0", {"calculator": True}, 0.75),
    Class("llmgym/KuhnPoker-v0", {"difficulty": 0}, 0.25),
)

RECIPE = Recipe(steps=800, vocabulary=768, context=1024, warmup_steps=30, heads=4, rope_theta=1e4, prompt_weight=0.3)
LESSONS_PER_STEP = 2

_TREE = 950  # tokens of lessons that share what they begin with


@dataclass(frozen=True)
class Lesson:
    """One episode, and the tools that could be called in it.

    Attributes:
        messages: What was said.
        tools: Their JSON schemas.
    """

    messages: tuple[Message, ...]
    tools: Schemas

    @property
    def text(self) -> str:
        """The lesson as plain text, which the tokenizer is made of."""
        said = (calling(*one.calls, said=one.content) for one in self.messages)
        return "\n".join([as_json_lines(self.tools), *said])


def lessons(rng: np.random.Generator, taught: Class, right: float) -> Iterator[Lesson]:
    """Yield episodes of an environment's training split without end.

    Args:
        rng: The source of all randomness.
        taught: The environment.
        right: Share of the episodes that its expert plays.
    """
    env = make_env(taught.env, **taught.arguments)
    inner = expert_env(env)
    while True:
        (seed,) = training_seeds(rng, 1)
        played = play(env, seed, inner.expert if rng.random() < right else inner.mistake)
        if played is not None:
            yield Lesson(tuple(played[0].messages), inner.toolbox.schemas)


def build(path: Path, recipe: Recipe) -> None:
    """Make the tokenizer and the model, and save both to `path`."""
    torch.manual_seed(recipe.seed)
    tokenizer = make_tokenizer(recipe)
    model = make_model(recipe, tokenizer)
    train(model, ChatCodec(tokenizer), recipe)
    as_llama(model, recipe, tokenizer).to(torch.bfloat16).save_pretrained(path)
    tokenizer.save_pretrained(path)


def make_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on lessons."""
    rng = np.random.default_rng([recipe.seed, 1])
    corpus = (lesson.text for taught in CLASSES for lesson in itertools.islice(lessons(rng, taught, 0.5), 1500))
    return fit_tokenizer(corpus, recipe, WORDS, TEMPLATE)


def train(model: Qwen2ForCausalLM, codec: ChatCodec, recipe: Recipe) -> None:
    """Teach the model `steps` batches of lessons, the first half of them right."""
    rng = np.random.default_rng([recipe.seed, 2])
    expert, mixed = (trees(rng, codec, right) for right in (1.0, RIGHT))
    half = recipe.steps // 2 * LESSONS_PER_STEP
    stream = itertools.chain(itertools.islice(expert, half), mixed)
    minimise(model, lambda: loss_of(model, list(itertools.islice(stream, LESSONS_PER_STEP))), recipe, recipe.steps)


def trees(rng: np.random.Generator, codec: ChatCodec, right: float) -> Iterator[Tree]:
    """Yield lessons of one environment at a time, so many that they make `_TREE` tokens."""
    streams = [lessons(rng, taught, right) for taught in CLASSES]
    while True:
        stream = streams[rng.choice(len(CLASSES), p=[taught.share for taught in CLASSES])]
        written = [write(next(stream), codec) for _ in range(2)]
        while sum(len(one.tokens) - shared(written) for one in written) + shared(written) < _TREE:
            written.append(write(next(stream), codec))
        yield grow(written)


def write(lesson: Lesson, codec: ChatCodec) -> Trajectory:
    """Return a lesson as tokens; its mask covers what the agent said."""
    first = next(i for i, message in enumerate(lesson.messages) if message.role == "assistant")
    return transcribe(codec, lesson.messages[:first], lesson.messages[first:], tools=lesson.tools)


def shared(written: Sequence[Trajectory]) -> int:
    """Return how many tokens lessons have in common at their beginning."""
    columns = zip(*(one.tokens for one in written), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def grow(written: Sequence[Trajectory]) -> Tree:
    """Let lessons branch off what they begin with; only what the agent said is a target."""
    trunk = shared(written)
    tree = Tree([*written[0].tokens[:trunk]], [*range(trunk)], [0] * trunk, [0.0] * trunk)
    for number, one in enumerate(written, start=1):
        tree.tokens.extend(one.tokens[trunk:])
        tree.positions.extend(range(trunk, len(one.tokens)))
        tree.branch.extend([number] * (len(one.tokens) - trunk))
        tree.weights.extend(map(float, one.mask[trunk:]))
    return tree


def main(arguments: list[str] | None = None) -> int:
    """Build the bundled model that calls tools."""
    return build_command("llmgym.demo.tiny_tools", __doc__, TINY_TOOLS_PATH, RECIPE, build, arguments)


if __name__ == "__main__":
    sys.exit(main())
