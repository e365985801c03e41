"""The model and the prompts of the benchmarks: made here, from nothing but a seed."""

import random
from pathlib import Path

import gymnasium
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

import llmgym  # noqa: F401  # registers the environments
from benchmarks.work import Work
from llmgym.demo import TINY_PATH
from llmgym.rollout.chat import ChatCodec
from llmgym.types import Message

ENV = "llmgym/AIOpsTriage-v0"
CUT = ", prompts of 100 tokens"


def write_model(directory: Path) -> int:
    """Write a random Qwen2 with the bundled tokenizer as `transformers` reads it; return its parameters."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_PATH)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return sum(parameter.numel() for parameter in model.parameters())


def prepare(source: Path | None, directory: Path) -> tuple[int, str]:
    """Make a directory of links to a model's files, or of a random model; return its parameters and what it is.

    Peers write into it, and must not write where the model is.
    """
    if source is None:
        return write_model(directory), "a random Qwen2"
    directory.mkdir()
    for file in source.expanduser().resolve(strict=True).iterdir():
        (directory / file.name).symlink_to(file)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    return model.num_parameters(), f"{type(model).__name__} from {source.name!r}"


def codec(tokenizer: Path = TINY_PATH) -> ChatCodec:
    """Return a tokenizer's codec; that of the bundled one, from a Qwen2's directory, transformers reads as another."""
    return ChatCodec(AutoTokenizer.from_pretrained(tokenizer))


def triage(
    name: str, lengths: tuple[int, int], prompts: int = 16, siblings: int = 8, tokenizer: Path = TINY_PATH
) -> Work:
    """Return the work of AIOpsTriage: its first observations, two turns, its second message between them.

    Args:
        name: What a table calls it.
        lengths: The shortest and the longest reply; every length between them is equally likely.
        prompts: Distinct incidents.
        siblings: Episodes of each.
        tokenizer: The directory of what makes tokens of it.
    """
    chat = codec(tokenizer)
    env = gymnasium.make(ENV)
    first = []
    for seed in range(prompts):
        observation, _ = env.reset(seed=seed)
        messages = [Message("system", env.unwrapped.system_prompt), Message("user", observation)]
        first.append(chat.prompt(messages))
    answer = env.step("It looks like [M1].")[0]
    draw = random.Random(0)
    return Work(
        name,
        prompts=[prompt for prompt in first for _ in range(siblings)],
        bridge=chat.bridge(
            [Message("user", answer)], last_token=chat.tokenizer.encode(".", add_special_tokens=False)[-1]
        ),
        lengths=[[draw.randint(*lengths) for _ in range(2)] for _ in range(prompts * siblings)],
        seed=0,
    )


def cut(work: Work) -> Work:
    """Return the same work with the last 100 tokens of every prompt: the less of it, the less sharing it saves."""
    return Work(work.name + CUT, [prompt[-100:] for prompt in work.prompts], work.bridge, work.lengths, work.seed)


def many_turns(turns: int) -> Work:
    """Return episodes of `turns` turns of 8 sampled and 8 observed tokens each."""
    work = triage(f"{turns} turns", (8, 8))
    return Work(work.name, work.prompts, work.bridge[:8], [[8] * turns for _ in work.prompts], seed=0)
