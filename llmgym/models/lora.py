"""LoRA: low-rank adapters beside frozen weights (Hu et al. 2021, arXiv:2106.09685), by peft."""

import copy
import importlib.util
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from llmgym.errors import ModelError

_ADAPTER = "default"


def add_adapters(model: PreTrainedModel, rank: int, alpha: float, seed: int = 0) -> None:
    r"""Freeze a model and give every linear layer of its trunk an adapter that learns, in place.

    A layer's weight becomes :math:`W + \frac{\alpha}{r} B A`, with B = 0 at first. The head of a reward model,
    which may be new, learns as a whole; that of a language model does not learn.

    Args:
        model: As it was loaded.
        rank: r, rows of A and columns of B.
        alpha: Scale of the adapter.
        seed: Of the values that A has at first.

    Raises:
        ModelError: peft is not installed, or the model takes no adapters.
    """
    if importlib.util.find_spec("peft") is None:
        raise ModelError("lora_rank: expected peft, which is not installed; `pip install llmgym[lora]` brings it.")
    from peft import LoraConfig

    heads = [name for name, child in model.named_children() if isinstance(child, nn.Linear)]
    lora = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", exclude_modules=heads or None
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model.add_adapter(lora, adapter_name=_ADAPTER)
        if "score" in heads:
            model.score.requires_grad_(True)
    except ValueError as error:
        raise ModelError(
            f"lora_rank: models of type {model.config.model_type!r} take no adapters ({error})."
        ) from error


def adapt(model: PreTrainedModel, rank: int, alpha: float, seed: int) -> PreTrainedModel:
    """Give a model adapters, and return a plain copy that takes their merged weights; with rank 0 the model itself."""
    if not rank:
        return model
    plain = copy.deepcopy(model).requires_grad_(False)
    add_adapters(model, rank, alpha, seed)
    return plain


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a model by their names, adapters added to what they adapt."""
    if not has_adapters(model):
        yield from model.named_parameters()
        return
    from peft.tuners.lora import LoraLayer

    adapters = {  # of a layer's weight, or of a parameter that several experts share
        f"{_plain(path)}.{getattr(layer, 'parameter_name', 'weight')}": layer
        for path, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }
    for path, parameter in model.named_parameters():
        name = _plain(path)
        if name in adapters:
            yield name, parameter.detach() + adapters[name].get_delta_weight(_ADAPTER).detach()
        elif not any(part.startswith("lora_") for part in name.split(".")):
            yield name, parameter


def _plain(path: str) -> str:
    """Return the name that something in an adapted model has in the same model without adapters."""
    return path.replace(".base_layer", "")


def has_adapters(model: PreTrainedModel) -> bool:
    """Tell whether a model has adapters, its own or those of a checkpoint."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def base_of(model: PreTrainedModel) -> str:
    """Return the directory or hub name of the model that adapters were trained on."""
    return str(model.peft_config[_ADAPTER].base_model_name_or_path)


def load_merged(plain: PreTrainedModel, model: PreTrainedModel) -> None:
    """Give a model without adapters the merged weights of the same model with them."""
    missing, unexpected = plain.load_state_dict(dict(merged_weights(model)), strict=False)
    tied = set(plain.state_dict()) - {name for name, _ in plain.named_parameters()}
    assert not unexpected, unexpected
    assert set(missing) <= tied, missing
