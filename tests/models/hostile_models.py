"""Model directories as somebody may write them who means harm, or whose disk was full: sound ones, each spoilt once."""

import json
import os
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Spoil = Callable[[Path], object]

RAN = "it ran"
"""What code prints that must not be run."""

DEEP = "[" * 100_000 + "]" * 100_000

NOT_OBJECTS: dict[str, bytes] = {
    "empty": b"",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "deep": DEEP.encode(),
    "deep inside": b'{"a": ' + DEEP.encode() + b"}",
    "cut": b'{"a": {"b": 1',
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "a number of many digits": b'{"a": ' + b"9" * 5000 + b"}",
    "an empty object": b"{}",
}
FILES = "config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"

CONFIGS: dict[str, list[Any]] = {
    "hidden_size": [10**9, 0, -8, "x", 1.5, None, [32], True],
    "vocab_size": [10**10, 10**7, 1, 0, "x"],
    "num_hidden_layers": [10**6, 4000, 0, -1, "x"],
    "num_attention_heads": [0, 3, -4, 10**9, None],
    "num_key_value_heads": [0, 3, -2, 10**9],
    "intermediate_size": [10**9, 0],
    "head_dim": [0, 10**9, 7],
    "max_position_embeddings": [0, -1, "x", None, 10**30],
    "rms_norm_eps": [float("nan"), float("inf"), -1.0, "x", None],
    "rope_parameters": [7, [], {"rope_type": "x"}, {"rope_type": "linear", "factor": 0}, {"rope_theta": 0}],
    "hidden_act": ["os.system", 7, None, "../x"],
    "model_type": ["nothing", 7, None, ["llama"], "bert"],
    "architectures": [7, ["os.system"], [], "LlamaForCausalLM"],
    "dtype": ["os.system", "int8", 7],
    "quantization_config": [7, {}, {"quant_method": "nothing"}, {"quant_method": "gptq", "bits": 4}],
    "attn_implementation": ["evil/kernels", "flash_attention_2", 7],
    "pad_token_id": [10**12, "x", -1],
    "eos_token_id": ["x", [None], 10**12],
    "initializer_range": [float("nan"), "x"],
    "attention_dropout": [2.0, "x"],
    "tie_word_embeddings": ["x", True],
    "base_model_config": ["../x"],
}
GENERATION: dict[str, list[Any]] = {
    "eos_token_id": ["x", [None], [[2]], -1, 10**12, True, 2.5, {"a": 1}],
    "temperature": ["x", -1, float("nan")],
    "max_length": ["x", -1],
    "transformers_version": [7],
}
TOKENIZER: dict[str, list[Any]] = {
    "tokenizer_class": ["os.system", 7, "BertTokenizer", "LlamaTokenizer"],
    "chat_template": [
        7,
        [],
        {},
        [{"name": "a", "template": "x"}],
        [{"name": "default"}],
        "{{ 1 / 0 }}",
        "{% if %}",
        "",
    ],
    "eos_token": [7, "", None, {"content": 7}, {"__type": "AddedToken", "content": ""}, ["a"]],
    "model_max_length": ["x", -1, 0, float("nan"), None, []],
    "added_tokens_decoder": [7, {"x": {}}, {"0": 7}, {"99999999999": {"content": "a"}}, {"-1": {"content": "a"}}],
    "additional_special_tokens": [7, [7], "a", [""]],
    "extra_special_tokens": [7, ["a"], {"a": 7}],
    "auto_map": [7, {"AutoTokenizer": 7}, {"AutoTokenizer": [None, "evil.T"]}],
    "padding_side": ["up", 7],
}
ADAPTERS: dict[str, list[Any]] = {
    "r": [10**9, 0, -1, "x", None],
    "rank_pattern": [7, {"q_proj": 10**9}],
    "lora_alpha": ["x", None],
    "peft_type": ["nothing", 7, "PROMPT_TUNING", None],
    "base_model_name_or_path": [7, None, "", "/no/such/directory"],
    "target_modules": [7, ["nothing"], "(((", None],
    "auto_mapping": [{"base_model_class": "system", "parent_library": "os"}],
    "layer_replication": [[[0, 10**9]], 7],
}


def spoilt_models(seed: int, chances: int) -> Iterator[tuple[str, Spoil]]:
    """Yield what spoils a copy of a sound model, with a name for each.

    Args:
        seed: Of what is drawn.
        chances: How many of the kinds that are drawn.
    """
    for file in FILES:
        for what, content in NOT_OBJECTS.items():
            yield f"{file}: {what}", lambda path, file=file, content=content: (path / file).write_bytes(content)
        yield f"{file}: a directory", lambda path, file=file: _in_place_of(path / file).mkdir()
        yield f"{file}: a pipe", lambda path, file=file: os.mkfifo(_in_place_of(path / file))
        yield f"{file}: a link to nothing", lambda path, file=file: _in_place_of(path / file).symlink_to("nothing")
    for file, values in ("config.json", CONFIGS), ("generation_config.json", GENERATION), (FILES[2], TOKENIZER):
        for key, choice in values.items():
            for value in choice:
                name = f"{file}: {key} = {value!r:.60}"
                yield name, lambda path, file=file, key=key, value=value: set_value(path / file, [key], value)
    yield from _weights()
    yield from _drawn(random.Random(seed), chances)


def spoilt_adapters() -> Iterator[tuple[str, Spoil]]:
    """Yield what spoils a copy of sound adapters, with a name for each."""
    file = "adapter_config.json"
    for what, content in NOT_OBJECTS.items():
        yield f"{file}: {what}", lambda path, content=content: (path / file).write_bytes(content)
    for key, choice in ADAPTERS.items():
        for value in choice:
            name = f"{file}: {key} = {value!r:.60}"
            yield name, lambda path, key=key, value=value: set_value(path / file, [key], value)
    weights = "adapter_model.safetensors"
    yield "adapters: none", lambda path: (path / weights).unlink()
    yield "adapters: cut", lambda path: (path / weights).write_bytes((path / weights).read_bytes()[:-100])
    yield "adapters: pickled", lambda path: write_pickle((path / weights).rename(path / "adapter_model.bin"))


def code_in_models() -> Iterator[tuple[str, Spoil]]:
    """Yield what brings code into a copy of a sound model that cannot do without it, with a name for each."""
    classes = {
        "config.json": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        "tokenizer_config.json": {"AutoTokenizer": [None, "evil.Tokenizer"]},
    }
    for file, auto_map in classes.items():
        kind = {"config.json": "model_type", "tokenizer_config.json": "tokenizer_class"}[file]
        yield (
            file,
            lambda path, file=file, kind=kind, auto_map=auto_map: with_code(path, file, auto_map, {kind: "Evil"}),
        )


def with_code(path: Path, file: str, auto_map: dict[str, Any], more: dict[str, Any]) -> None:
    """Put code beside a model, and name it in one of its files."""
    (path / "evil.py").write_text(f"print({RAN!r})\n")
    for key, value in {"auto_map": auto_map, **more}.items():
        set_value(path / file, [key], value)


def _weights() -> Iterator[tuple[str, Spoil]]:
    file = "model.safetensors"
    lies: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda _: b"",
        "cut in its header": lambda data: data[:100],
        "cut in its numbers": lambda data: data[:-100],
        "longer than it says": lambda data: data + b"\0" * 100,
        "a header of 2**62 bytes": lambda data: struct.pack("<Q", 2**62) + data[8:],
        "a header that is a list": lambda _: struct.pack("<Q", 2) + b"[]",
        "a deep header": lambda _: struct.pack("<Q", len(DEEP)) + DEEP.encode(),
        "no tensors": lambda _: struct.pack("<Q", 2) + b"{}",
        "offsets beyond its end": lambda data: _with_header(data, lambda one: one["data_offsets"].append(2**60)),
        "a negative shape": lambda data: _with_header(data, lambda one: one.update(shape=[-1])),
        "a large shape": lambda data: _with_header(data, lambda one: one.update(shape=[2**40, 2**40])),
        "another type": lambda data: _with_header(data, lambda one: one.update(dtype="F64")),
        "no type": lambda data: _with_header(data, lambda one: one.update(dtype="os.system")),
        "noise": lambda data: random.Random(1).randbytes(len(data)),
    }
    for what, lie in lies.items():
        yield f"{file}: {what}", lambda path, lie=lie: (path / file).write_bytes(lie((path / file).read_bytes()))
    yield f"{file}: a pipe", lambda path: os.mkfifo(_in_place_of(path / file))
    yield f"{file}: none", lambda path: (path / file).unlink()
    for name in ("pytorch_model.bin", "model.pt", "model.ckpt"):
        yield f"{name}: a pickle", lambda path, name=name: write_pickle((path / file).rename(path / name))
    index = "model.safetensors.index.json"
    for what, where in {"a list": [], "a number": 7, "out of the directory": "../../x.safetensors"}.items():
        map_ = {"lm_head.weight": where} if isinstance(where, str) else where
        yield (
            f"{index}: {what}",
            lambda path, map_=map_: (
                (path / file).unlink(),
                (path / index).write_text(json.dumps({"metadata": {}, "weight_map": map_})),
            ),
        )


def _drawn(chance: random.Random, count: int) -> Iterator[tuple[str, Spoil]]:
    """Yield random values in random places of random files, and flipped bytes."""
    for number in range(count):
        seed, file = chance.random(), chance.choice([*FILES, "tokenizer.json"])
        yield f"draw {number}, {file}: a value", lambda path, file=file, seed=seed: _set_any(path / file, seed)
        yield f"draw {number}, {file}: bytes", lambda path, file=file, seed=seed: _flip(path / file, seed)


def _set_any(file: Path, seed: float) -> None:
    chance = random.Random(seed)
    found: Any = json.loads(file.read_text())
    keys: list[Any] = []
    while isinstance(found, dict | list) and found and (not keys or chance.random() < 0.8):
        keys.append(chance.choice(list(found) if isinstance(found, dict) else range(len(found))))
        found = found[keys[-1]]
    values: list[Any] = [None, [], {}, "", "x", -1, 0, 2**31, 10**12, float("nan"), True, [[]], {"type": "x"}, "\0"]
    set_value(file, keys, chance.choice(values))


def _flip(file: Path, seed: float) -> None:
    chance, data = random.Random(seed), bytearray(file.read_bytes())
    for _ in range(3):
        data[chance.randrange(len(data))] = chance.randrange(256)
    file.write_bytes(data)


def set_value(file: Path, keys: list[Any], value: Any) -> None:
    """Set a value somewhere in a file of JSON."""
    whole = json.loads(file.read_text())
    found = whole
    for key in keys[:-1]:
        found = found[key]
    found[keys[-1]] = value
    file.write_text(json.dumps(whole))


def write_pickle(file: Path) -> None:
    """Write a pickle that runs code where it is read."""

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, (RAN,)

    file.write_bytes(pickle.dumps(Runs()))


def _with_header(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    change(header[next(key for key in header if key != "__metadata__")])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def _in_place_of(file: Path) -> Path:
    file.unlink()
    return file
