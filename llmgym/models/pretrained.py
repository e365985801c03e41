"""The one door to what transformers loads: a model directory is data, and anybody may have written it.

Code that comes with a model is never run, pickles are never read, and what a configuration describes is looked at
before anything of its size is made.
"""

import importlib.util
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.utils import cached_file, logging

from llmgym.errors import ModelError
from llmgym.files import require_file

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_ADAPTER = "adapter_config.json"
_OBJECTS = (
    "config.json",
    "generation_config.json",
    _ADAPTER,
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors.index.json",
)
_LARGEST = {  # well above any model that was ever published
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "vocab_size": 2**25,
    "num_hidden_layers": 2**12,
    "num_attention_heads": 2**16,
    "num_key_value_heads": 2**16,
    "head_dim": 2**16,
    "num_experts": 2**16,
    "num_experts_per_tok": 2**16,
    "max_position_embeddings": 2**40,
}
_LARGEST_RANK = 2**12  # of an adapter
_SPARE = 8  # parameters that one stored number may stand for, as packed ones of 4 bits do
_SMALL = 2**24  # parameters that nobody minds


def pretrained(kind: Any, name: str, what: str, options: Mapping[str, Any]) -> Any:
    """Load something of a model with transformers.

    Args:
        kind: The class whose `from_pretrained` does it.
        name: A directory or a name on the hub, as `find_model` returned it.
        what: What is expected there.
        options: Of `from_pretrained`.

    Raises:
        ModelError: It does not load, or not without running code that comes with it.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what transformers warns of, such as a missing head, is for us to say
    try:
        return kind.from_pretrained(name, trust_remote_code=False, **options)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a foreign file can make transformers raise anything, and tokenizers panic
        raise ModelError(f"--model {name!r}: expected {what}, found none that loads ({_reason(error)})") from error
    finally:
        logging.set_verbosity(verbosity)


def _reason(error: BaseException) -> str:
    said = str(error).strip()
    if "trust_remote_code" in said or "custom code" in said:
        return "it brings code of its own, which is never run: expected a kind of model that transformers has itself"
    return f"{' '.join(said.split()) or type(error).__name__:.300}"


def check_objects(directory: str) -> None:
    """Refuse a model directory in which a file that has to hold a JSON object holds something else, or has no end.

    Raises:
        ModelError: One does.
    """
    for inner in Path(directory).iterdir():
        try:
            require_file(inner)
        except OSError as error:
            raise ModelError(f"--model {directory!r}: {inner.name}: {error}.") from None
    for file in _OBJECTS:
        path = os.path.join(directory, file)
        if os.path.lexists(path):
            _object(path, f"--model {directory!r}: {file}")


def _object(path: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_bytes())
    except RecursionError:
        raise ModelError(f"{where}: expected a JSON object, got one with values too deep within one another.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{where}: expected a JSON object ({error!s:.200}).") from None
    if not isinstance(found, dict):
        raise ModelError(f"{where}: expected a JSON object, got {json.dumps(found)[:40]}.")
    return found


def check_model(kind: Any, name: str, options: Mapping[str, Any]) -> None:
    """Refuse a model whose weights are pickled, or whose configuration describes what its files do not hold.

    Args:
        kind: The class that is to load it, such as `AutoModelForCausalLM`.
        name: As `find_model` returned it.
        options: The same.

    Raises:
        ModelError: It is such a one.
    """
    _check_pickles(name)
    base = _checked_adapters(name, options)
    if base is not None:
        _check_pickles(base)
        name = base
    config = load_config(name, options)
    if not os.path.isdir(name):
        return  # its files are not here yet
    files = list(Path(name).glob("*.safetensors"))
    if not files:
        raise ModelError(f"--model {name!r}: expected weights in files of safetensors, found none.")
    shapes = [shape for file in files for shape in _shapes(file)]
    layers = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None) or 0
    if layers > len(shapes):
        raise ModelError(f"--model {name!r}: config.json describes {layers:,} layers, its weights are {len(shapes):,}.")
    stored = sum(map(math.prod, shapes))
    try:
        with torch.device("meta"):
            described = kind.from_config(config, trust_remote_code=False).num_parameters()
    except Exception as error:
        raise ModelError(f"--model {name!r}: config.json describes no model ({_reason(error)})") from error
    if described > _SMALL + _SPARE * stored:
        raise ModelError(
            f"--model {name!r}: config.json describes {described:,} parameters, expected about as many as its weights "
            f"have: {stored:,}."
        )


def _check_pickles(name: str) -> None:
    if not os.path.isdir(name) or list(Path(name).glob("*.safetensors")):
        return
    if pickles := sorted(one.name for one in Path(name).iterdir() if one.suffix in _PICKLES):
        raise ModelError(
            f"--model {name!r}: its weights are pickled ({pickles[0]}), and a pickle can run code where it is read: "
            "expected safetensors. Where you trust its authors, convert it: load it with `from_pretrained(path)` of "
            "transformers, or of peft for adapters, and write it with `save_pretrained(other_path)`."
        )


def _checked_adapters(name: str, options: Mapping[str, Any]) -> str | None:
    """Check adapters, if a model is some, and return the model that they were trained on; None if it is no other."""
    path = _file(name, _ADAPTER, options)
    if path is None:
        return None
    where = f"--model {name!r}: {_ADAPTER}"
    if importlib.util.find_spec("peft") is None:
        raise ModelError(f"{where}: expected peft, which is not installed; `pip install llmgym-rl[lora]` brings it.")
    settings = _object(path, where)
    if settings.get("peft_type") != "LORA":
        raise ModelError(f"{where}: expected adapters of peft_type 'LORA', got {settings.get('peft_type')!r:.80}.")
    patterns = settings.get("rank_pattern") or {}
    ranks = [settings.get("r"), *(patterns.values() if isinstance(patterns, dict) else [patterns])]
    if wrong := [rank for rank in ranks if type(rank) is not int or not 1 <= rank <= _LARGEST_RANK]:
        raise ModelError(f"{where}: expected a rank r between 1 and {_LARGEST_RANK:,}, got {wrong[0]!r:.80}.")
    weights = _file(name, "adapter_model.safetensors", options)
    if weights is None:
        raise ModelError(f"{where}: expected its weights in adapter_model.safetensors, which is not there.")
    base = settings.get("base_model_name_or_path")
    if _file(name, "config.json", options) is not None:
        return None  # the model is beside its adapters
    if not isinstance(base, str) or not base:
        raise ModelError(f"{where}: expected the model of the adapters in base_model_name_or_path, got {base!r:.80}.")
    if os.path.isdir(base):
        check_objects(base)
    elif base.startswith((".", "/", "~")):
        raise ModelError(f"{where}: its base_model_name_or_path {base!r} is no directory.")
    return base


def _file(name: str, file: str, options: Mapping[str, Any]) -> str | None:
    """Return where a file of a model is, if it has it."""
    if os.path.isdir(name):
        path = os.path.join(name, file)
        return path if os.path.lexists(path) else None
    found: str | None = cached_file(
        name,
        file,
        local_files_only=options.get("local_files_only", False),
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found


def _shapes(file: Path) -> list[list[int]]:
    """Return the shapes of the tensors in a file of weights, by its header."""
    try:
        with safe_open(file, framework="pt") as opened:
            return [opened.get_slice(key).get_shape() for key in opened.keys()]  # noqa: SIM118  # it is no mapping
    except Exception as error:
        raise ModelError(f"--model {str(file)!r}: expected weights as safetensors ({error!s:.200}).") from error


def load_config(name: str, options: Mapping[str, Any]) -> PreTrainedConfig:
    """Load a model's configuration.

    Args:
        name: As `find_model` returned it.
        options: The same.

    Raises:
        ModelError: There is none, or it has values that no model has.
    """
    config: PreTrainedConfig = pretrained(AutoConfig, name, "a config.json of a kind of model", options)
    where = f"--model {name!r}: config.json"
    for key, value in _values(config.to_dict()):
        if isinstance(value, float) and math.isnan(value):
            raise ModelError(f"{where}: expected a number for {key}, got NaN.")
        if key.endswith(("_eps", "_epsilon")) and not (isinstance(value, int | float) and 0 <= value < 1):
            raise ModelError(f"{where}: expected {key} to be a number between 0 and 1, got {value!r:.80}.")
        if key in ("rope_theta", "factor") and not (isinstance(value, int | float) and 0 < value < math.inf):
            raise ModelError(f"{where}: expected {key} to be a number above 0, got {value!r:.80}.")
        if key.endswith("_implementation") and isinstance(value, str) and "/" in value:
            raise ModelError(f"{where}: expected no code from elsewhere, got {value!r:.80} for {key}.")
    settings = config.get_text_config(decoder=True)
    for key, most in _LARGEST.items():
        found = getattr(settings, key, None)
        for value in found if isinstance(found, list | tuple) else [found]:
            if value is not None and not (type(value) is int and 1 <= value <= most):
                raise ModelError(f"{where}: expected {key} to be an integer from 1 to {most:,}, got {value!r:.80}.")
    return config


def _values(found: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all values of a configuration that hold no others, with their names."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from _values(value, str(name))
    elif isinstance(found, list | tuple):
        for value in found:
            yield from _values(value, key)
    else:
        yield key, found


def stop_tokens(settings: GenerationConfig | None, name: str) -> list[int]:
    """Return the tokens that generation settings stop at.

    Args:
        settings: As transformers loaded them; None if the model has none.
        name: Of the model.

    Raises:
        ModelError: They are no tokens.
    """
    found = getattr(settings, "eos_token_id", None)
    tokens = found if isinstance(found, list) else [] if found is None else [found]
    if wrong := [token for token in tokens if type(token) is not int or token < 0]:
        raise ModelError(
            f"--model {name!r}: generation_config.json: expected the numbers of tokens for eos_token_id, got "
            f"{wrong[0]!r:.80}."
        )
    return tokens
