"""The recipe of the bundled model: ``python -m llmgym.demo.tiny build``.

A Llama of under a million parameters with a byte-level tokenizer of its own, trained from
nothing on the lessons of `llmgym.demo.teacher`, for whoever has neither a network nor a
GPU. It can do nothing but triage, and does that right about a third of the time when
sampled at temperature 1. The same seed gives the same weights on the same machine. It is
trained in bfloat16, which takes longer on a processor that has no instructions for it.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from llmgym.demo import TINY_PATH
from llmgym.demo.teacher import ROUNDS, Lesson, batches, lessons
from llmgym.rollout.chat import ChatCodec
from llmgym.types import Message

WORDS = r" ?\[[A-Z]\d+\]| ?[A-Z]\d+\b| [a-z]+ (?:high|normal)\b| ?[A-Za-z_]+| ?\p{Han}+| ?\d{1,2}| ?[^\sA-Za-z\d]+|\s"
"""How text is cut before its bytes are merged: a tag is one piece, a snake_case name, and a gauge with its state."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """What the bundled model is made with."""

    seed: int = 0
    steps: int = sum(stage.steps for stages in ROUNDS for stage in stages)
    answers_per_lesson: int = 8
    vocabulary: int = 1280
    hidden: int = 128
    layers: int = 4
    heads: int = 2
    kv_heads: int = 2
    rope_theta: float = 1e6
    intermediate: int = 384
    context: int = 2048
    muon_rate: float = 0.02
    adamw_rate: float = 3e-3
    warmup_steps: int = 60
    prompt_weight: float = 0.02
    reasoning_weight: float = 2.0
    answer_weight: float = 0.5


def build(path: Path, recipe: Recipe) -> None:
    """Make the tokenizer and the model, and save both to `path`."""
    torch.manual_seed(recipe.seed)
    tokenizer = make_tokenizer(recipe)
    model = make_model(recipe, tokenizer)
    train(model, ChatCodec(tokenizer), recipe)
    as_llama(model, recipe, tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)


def make_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on whole lessons: no byte of any text fails to encode."""
    taught = lessons(np.random.default_rng([recipe.seed, 1]), 1, ROUNDS[-1][-1])
    return fit_tokenizer([plain_text(lesson) for lesson in itertools.islice(taught, 3000)], recipe, WORDS, CHATML)


def fit_tokenizer(corpus: Iterable[str], recipe: Recipe, words: str, template: str) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on texts, which are cut by the expression `words` first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=recipe.vocabulary,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=template,
        model_max_length=recipe.context,
    )


def plain_text(lesson: Lesson) -> str:
    """Return a lesson as text, which a tokenizer is made of."""
    said = [f"{message.role}\n{message.content}" for message in lesson.prompt]
    return "\n".join([*said, f"assistant\n{lesson.reasoning}", lesson.question, *lesson.answers])


def make_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Return the untrained model."""
    return Qwen2ForCausalLM(Qwen2Config(**_shape(recipe, tokenizer)))


def as_llama(model: Qwen2ForCausalLM, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return the same function in Llama's architecture.

    transformers 5 gives every Qwen2 the pre-tokenizer of Qwen2, whatever lies beside it; a
    Llama keeps its own. The two differ in one bias, which is 0 here.
    """
    llama = LlamaForCausalLM(LlamaConfig(**_shape(recipe, tokenizer), attention_bias=True))
    weights = model.state_dict()
    for name, parameter in llama.named_parameters():
        with torch.no_grad():
            parameter.zero_() if name.endswith("o_proj.bias") else parameter.copy_(weights[name])
    return llama


def _shape(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": recipe.hidden,
        "intermediate_size": recipe.intermediate,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.kv_heads,
        "rope_parameters": {"rope_type": "default", "rope_theta": recipe.rope_theta},
        "max_position_embeddings": recipe.context,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


@dataclass(frozen=True)
class Tree:
    """A lesson as tokens: a trunk, and the answers that branch off its end.

    Attributes:
        tokens: Trunk and branches, one after another.  [T]
        positions: Each token's position in its own conversation.  [T]
        branch: 0 on the trunk, the number of its answer on a branch.  [T]
        weights: What each token counts as a target; 0 for the template's own.  [T]
    """

    tokens: list[int]
    positions: list[int]
    branch: list[int]
    weights: list[float]


def grow(lesson: Lesson, codec: ChatCodec, recipe: Recipe) -> Tree:
    """Encode a lesson so that all its answers share one pass over the trunk."""
    end = codec.tokenizer.eos_token_id
    prompt = codec.prompt(lesson.prompt)
    reasoning = [*codec.tokenizer(lesson.reasoning)["input_ids"], end]
    bridge = codec.bridge([Message("user", lesson.question)], end)
    trunk = len(prompt) + len(reasoning) + len(bridge)
    tree = Tree(
        tokens=[*prompt, *reasoning, *bridge],
        positions=[*range(trunk)],
        branch=[0] * trunk,
        weights=[recipe.prompt_weight] * len(prompt) + [recipe.reasoning_weight] * len(reasoning) + [0.0] * len(bridge),
    )
    for number, answer in enumerate(lesson.answers, start=1):
        tokens = [*codec.tokenizer(answer)["input_ids"], end]
        tree.tokens.extend(tokens)
        tree.positions.extend(range(trunk, trunk + len(tokens)))
        tree.branch.extend([number] * len(tokens))
        tree.weights.extend([recipe.answer_weight] * len(tokens))
    return tree


def loss_of(model: Qwen2ForCausalLM, trees: list[Tree]) -> Tensor:
    """Return the weighted mean cross-entropy of a batch of lessons, those of like length in one pass.

    A branch's first token is predicted from the trunk's last, every other from the one before it.
    """
    total, weight = torch.zeros(()), 0.0
    for alike in _by_length(trees):
        losses, counted = _losses(model, alike)
        total, weight = total + (losses * counted).sum(), weight + float(counted.sum())
    return total / weight


def _by_length(trees: list[Tree]) -> list[list[Tree]]:
    """Sort lessons into groups in which the longest has at most 1.5 times the tokens of the shortest."""
    groups: list[list[Tree]] = []
    for tree in sorted(trees, key=lambda tree: len(tree.tokens)):
        if groups and len(tree.tokens) <= 1.5 * len(groups[-1][0].tokens):
            groups[-1].append(tree)
        else:
            groups.append([tree])
    return groups


def _losses(model: Qwen2ForCausalLM, trees: list[Tree]) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of every token that counts, and what it counts.  [N], [N]"""
    width = max(len(tree.tokens) for tree in trees)
    tokens = _padded([tree.tokens for tree in trees], width, 0)  # [B, T]
    positions = _padded([tree.positions for tree in trees], width, 0)  # [B, T]
    branch = _padded([tree.branch for tree in trees], width, -1)  # [B, T]
    weights = _padded([tree.weights for tree in trees], width, 0.0)  # [B, T]
    same = branch[:, :, None] == branch[:, None, :]  # [B, T, T]
    sees = (same | (branch == 0)[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril()
    hidden = model.model(tokens, attention_mask=sees[:, None], position_ids=positions, use_cache=False)[0]
    before = torch.arange(width).repeat(len(trees), 1) - 1  # the position each token is predicted from  [B, T]
    first = (branch > 0) & (branch != branch.roll(1, 1))
    trunk_end = (branch == 0).sum(1, keepdim=True) - 1
    before = torch.where(first, trunk_end, before).clamp(min=0)
    rows, columns = weights[:, 1:].nonzero(as_tuple=True)
    columns = columns + 1
    logits = model.lm_head(hidden[rows, before[rows, columns]])  # [N, V]
    losses = torch.nn.functional.cross_entropy(logits, tokens[rows, columns], reduction="none")
    return losses, weights[rows, columns]


def _padded(rows: list[list[int]] | list[list[float]], width: int, fill: float) -> Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def train(model: Qwen2ForCausalLM, codec: ChatCodec, recipe: Recipe) -> None:
    """Teach the model all rounds of lessons; of each round at most the first `steps` batches."""
    for number, stages in enumerate(ROUNDS, start=2):
        stream = batches(np.random.default_rng([recipe.seed, number]), stages, recipe.answers_per_lesson)
        steps = min(recipe.steps, sum(stage.steps for stage in stages))
        _teach(model, codec, recipe, stream, steps)


def _teach(
    model: Qwen2ForCausalLM, codec: ChatCodec, recipe: Recipe, stream: Iterator[list[Lesson]], steps: int
) -> None:
    minimise(model, lambda: loss_of(model, [grow(lesson, codec, recipe) for lesson in next(stream)]), recipe, steps)


def minimise(model: Qwen2ForCausalLM, next_loss: Callable[[], Tensor], recipe: Recipe, steps: int) -> None:
    """Take `steps` steps, each on a new loss: Muon for the matrices, AdamW for the rest, a linear decay."""
    named = list(model.named_parameters())
    matrices = [parameter for name, parameter in named if parameter.ndim == 2 and "embed" not in name]
    others = [parameter for name, parameter in named if parameter.ndim != 2 or "embed" in name]
    optimisers = [
        torch.optim.Muon(matrices, lr=recipe.muon_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=recipe.adamw_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / recipe.warmup_steps, (steps - step) / (steps - recipe.warmup_steps))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, rate) for optimiser in optimisers]
    begun = time.monotonic()
    for step in range(1, steps + 1):
        with torch.autocast("cpu", torch.bfloat16):
            loss = next_loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        model.zero_grad()
        if step % 100 == 0:
            print(f"step {step}/{steps}  loss {loss.item():.4f}  {time.monotonic() - begun:.0f} s", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Build the bundled model."""
    return build_command("llmgym.demo.tiny", __doc__, TINY_PATH, Recipe(), build, arguments)


def build_command(
    module: str,
    about: str | None,
    path: Path,
    recipe: Recipe,
    build: Callable[[Path, Recipe], None],
    arguments: list[str] | None,
) -> int:
    """Run the command of a module that makes a model, with its recipe and to its path unless others are asked for."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("command", choices=["build"])
    parser.add_argument("--out", type=Path, default=path, help="directory to write; default: the package's own")
    parser.add_argument("--seed", type=int, default=recipe.seed)
    parser.add_argument("--steps", type=int, default=recipe.steps)
    options = parser.parse_args(arguments)
    build(options.out, replace(recipe, seed=options.seed, steps=options.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
