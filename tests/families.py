"""Chat templates of well-known families, as their documentation publishes them, with small tokenizers of their kind.

The templates in ``templates/`` render the messages of a conversation as the published ones do; of declaring
tools they have the branch and the tokens, not the whole prose. A tokenizer has its family's kind, special tokens and
names for them, and a vocabulary trained on a few lines.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_TEXTS = [
    "You are a helpful assistant. The user asked one question, and another one after that; answer in one sentence.",
    "second first third reply answer thinking because the services of the cluster are down since 12:30, see the log.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))  # 3\n\n\n{'name': 'search', 'arguments': {'query': 'x'}}",
    "Hm, why? Oh. Let me think about that again: the trace names the database, the gauge of its memory is at 97 %.",
    "日志显示数据库内存不足。问题出在数据库。 Über größere Fehler: ärgerlich, aber möglich. é è ê 🙂",
] * 4

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What Qwen and Llama 3 regard as a word: white space that ends with line breaks is one."""

Kind = Literal["bytes", "prepend", "first", "plain"]
"""What cuts text into tokens: byte-level BPE, or BPE with byte fallback whose spaces are ``▁``. One more is put
before the text between any two added tokens (``prepend``), before the first text only (``first``), or nowhere
(``plain``)."""


@dataclass(frozen=True)
class Family:
    """How a family turns a conversation into tokens.

    Attributes:
        template: File in ``templates/``.
        kind: Of its tokenizer.
        end: The token that ends a reply.
        names: What the tokenizer calls by name: eos, and bos and pad if it has any.
        special: Tokens marked special; a name is not needed for that.
        ordinary: Added tokens that are not.
        rewrites: What the notice has to say, a few words of it each; nothing if conversations only grow.
        swallows: Whether its special tokens swallow white space after them.
    """

    template: str
    kind: Kind
    end: str
    names: dict[str, str]
    special: tuple[str, ...] = ()
    ordinary: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = ()
    swallows: bool = False

    @property
    def control(self) -> tuple[str, ...]:
        """The spelling of every token that text must not become."""
        source = (Path(__file__).parent / "templates" / f"{self.template}.jinja").read_text(encoding="utf-8")
        emitted = tuple(token for token in self.ordinary if token in source)
        return tuple(dict.fromkeys([*self.names.values(), *self.special, *emitted]))


SPACE, THINKING, OTHER, JOINS = (
    "white space around replies",
    "the thinking of earlier replies",
    "earlier messages in another way",
    "joins a reply with the text around it",
)
_QWEN = ("<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|vision_start|>", "<|image_pad|>")
_TOOLS = ("<tool_call>", "</tool_call>")
_THINK = ("<tool_response>", "</tool_response>", "<think>", "</think>")
_LLAMA3 = (
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
_MISTRAL = ("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]")
_GEMMA = ("<start_of_turn>", "<end_of_turn>", "<mask>")
_PHI = ("<|assistant|>", "<|user|>", "<|system|>", "<|end|>")
_GLM = ("[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
_SPM = {"eos": "</s>", "bos": "<s>", "unk": "<unk>"}

FAMILIES = {
    "Qwen2.5": Family(
        "qwen2_5",
        "bytes",
        "<|im_end|>",
        {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
        _QWEN,
        (*_TOOLS, "<|fim_prefix|>"),
    ),
    "Qwen3": Family(
        "qwen3",
        "bytes",
        "<|im_end|>",
        {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
        _QWEN,
        (*_TOOLS, *_THINK),
        rewrites=(THINKING, OTHER),
    ),
    "Qwen3.5": Family(
        "qwen3_5",
        "bytes",
        "<|im_end|>",
        {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
        _QWEN,
        (*_TOOLS, *_THINK),
        rewrites=(SPACE, THINKING, OTHER),
    ),
    "Llama 2": Family("llama2", "prepend", "</s>", _SPM, rewrites=(SPACE,)),
    "Llama 3": Family(
        "llama3",
        "bytes",
        "<|eot_id|>",
        {"eos": "<|end_of_text|>", "bos": "<|begin_of_text|>"},
        _LLAMA3,
        rewrites=(SPACE,),
    ),
    "Llama 3.1": Family(
        "llama3_1", "bytes", "<|eot_id|>", {"eos": "<|eot_id|>", "bos": "<|begin_of_text|>"}, _LLAMA3, rewrites=(SPACE,)
    ),
    "Llama 3.2": Family(
        "llama3_2", "bytes", "<|eot_id|>", {"eos": "<|eot_id|>", "bos": "<|begin_of_text|>"}, _LLAMA3, rewrites=(SPACE,)
    ),
    "Mistral": Family("mistral", "first", "</s>", _SPM, _MISTRAL, rewrites=(SPACE, OTHER)),
    "Gemma 2": Family(
        "gemma2",
        "plain",
        "<end_of_turn>",
        {"eos": "<eos>", "bos": "<bos>", "pad": "<pad>", "unk": "<unk>"},
        _GEMMA,
        ("\n\n", "\n\n\n", "<table>", "▁▁"),
        rewrites=(SPACE,),
    ),
    "Gemma 3": Family(
        "gemma3",
        "plain",
        "<end_of_turn>",
        {"eos": "<eos>", "bos": "<bos>", "pad": "<pad>", "unk": "<unk>"},
        (*_GEMMA, "<start_of_image>"),
        ("\n\n", "\n\n\n", "<table>", "▁▁"),
        rewrites=(SPACE,),
    ),
    "Phi-3": Family(
        "phi3",
        "prepend",
        "<|end|>",
        {"eos": "<|endoftext|>", "bos": "<s>", "pad": "<|endoftext|>", "unk": "<unk>"},
        (*_PHI, "<|placeholder1|>"),
        swallows=True,
    ),
    "Phi-4-mini": Family(
        "phi4_mini",
        "bytes",
        "<|end|>",
        {"eos": "<|endoftext|>", "bos": "<|endoftext|>", "pad": "<|endoftext|>"},
        (*_PHI, "<|tool|>", "<|/tool|>", "<|tool_call|>"),
    ),
    "DeepSeek-R1 distil": Family(
        "deepseek_r1",
        "bytes",
        "<｜end▁of▁sentence｜>",
        {"eos": "<｜end▁of▁sentence｜>", "bos": "<｜begin▁of▁sentence｜>"},
        (),
        ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        rewrites=(THINKING, OTHER),
    ),
    "GLM-4": Family("glm4", "bytes", "<|user|>", {"eos": "<|endoftext|>", "pad": "<|endoftext|>"}, _GLM),
    "GLM-4.5": Family(
        "glm4_5",
        "bytes",
        "<|user|>",
        {"eos": "<|endoftext|>", "pad": "<|endoftext|>"},
        _GLM,
        (*_TOOLS, *_THINK),
        rewrites=(SPACE, THINKING),
    ),
    "SmolLM2": Family(
        "smollm2",
        "bytes",
        "<|im_end|>",
        {"eos": "<|im_end|>", "bos": "<|im_start|>", "pad": "<|im_end|>"},
        ("<|endoftext|>", "<repo_name>", "<file_sep>"),
    ),
    "SmolLM2, its end without a name": Family(
        "smollm2", "bytes", "<|im_end|>", {"eos": "<|im_start|>"}, ("<|endoftext|>", "<|im_end|>", "<repo_name>")
    ),
    "SmolLM3": Family(
        "smollm3",
        "bytes",
        "<|im_end|>",
        {"eos": "<|im_end|>", "pad": "<|im_end|>", "bos": "<|begin_of_text|>"},
        ("<|end_of_text|>", "<|im_start|>", "<|python_tag|>"),
        (*_TOOLS, *_THINK),
        rewrites=(SPACE,),
    ),
    "Zephyr": Family("zephyr", "prepend", "</s>", {**_SPM, "pad": "</s>"}),
    "TinyLlama": Family("zephyr", "first", "</s>", {**_SPM, "pad": "</s>"}),
}
"""By name. What a tokenizer calls special without a name, and what is no special token at all, is as published."""


@functools.cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """Return a family's small tokenizer with its chat template."""
    family = FAMILIES[name]
    template = Path(__file__).parent / "templates" / f"{family.template}.jinja"
    inner = _byte_level() if family.kind == "bytes" else _spaces_marked(family.kind)
    special = dict.fromkeys([*family.names.values(), *family.special])
    inner.add_special_tokens(
        [AddedToken(token, special=True, normalized=False, rstrip=family.swallows) for token in special]
    )
    inner.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.ordinary])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        chat_template=template.read_text(encoding="utf-8"),
        name_or_path=name,
        **{f"{what}_token": token for what, token in family.names.items()},
    )


def _byte_level() -> Tokenizer:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(_TEXTS, trainer)
    return inner


def _spaces_marked(kind: Kind) -> Tokenizer:
    """Make a tokenizer that marks spaces and spells what it has no token for in bytes."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trained.train_from_iterator(
        [text.replace("日", "").replace("🙂", "").replace("\n", "") for text in _TEXTS],
        trainers.BpeTrainer(vocab_size=500, show_progress=False, special_tokens=["<unk>"]),
    )
    model = json.loads(trained.to_str())["model"]
    vocabulary = dict(model["vocab"])
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    merges = [tuple(merge) for merge in model["merges"]]
    inner = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    start = [decoders.Strip(" ", 1, 0)] if kind != "plain" else []
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *start])
    if kind == "first":
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif kind == "prepend":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        inner.normalizer = normalizers.Replace(" ", "▁")
    return inner
