"""LoRA: low-rank adapters beside frozen weights (Hu et al. 2021, arXiv:2106.09685), by peft."""

import copy
import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmgym.errors import ModelError
from llmgym.models.shards import whole

_ADAPTER = "default"


def add_adapters(model: PreTrainedModel, rank: int, alpha: float, seed: int = 0) -> None:
    r"""Freeze a model and give every linear layer of its trunk an adapter that learns, in place.

    A layer's weight becomes :math:`W + \frac{\alpha}{r} B A`, with B = 0 at first. The head of a reward model,
    which may be new, learns as a whole; that of a language model does not learn. Experts that are fused into one
    parameter are no linear layers, and stay as they are, as do routers.

    Args:
        model: As it was loaded.
        rank: r, rows of A and columns of B.
        alpha: Scale of the adapter.
        seed: Of the values that A has at first.

    Raises:
        ModelError: peft is not installed, or the model takes no adapters.
    """
    if importlib.util.find_spec("peft") is None:
        raise ModelError("lora_rank: expected peft, which is not installed; `pip install llmgym-rl[lora]` brings it.")
    heads = [name for name, child in model.named_children() if isinstance(child, nn.Linear)]
    # By name: peft takes "all-linear" to mean routers and fused experts, too, whose models read more off them than a
    # weight, and whose adapters it multiplies out in every pass.
    linear = [name for name, module in model.named_modules() if type(module) in (nn.Linear, Conv1D)]
    lora = _peft().LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=[name for name in linear if name not in heads]
    )
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft tells of what it corrects by itself
            torch.manual_seed(seed)
            model.add_adapter(lora, adapter_name=_ADAPTER)
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad:  # what learns is small, and would lose its small steps in a narrower type
                    wide = torch.promote_types(parameter.dtype, torch.float32)
                    setattr(module, name, nn.Parameter(parameter.detach().to(wide)))
        if "score" in heads:
            model.score.requires_grad_(True)
    except ValueError as error:
        raise ModelError(
            f"lora_rank: models of type {model.config.model_type!r} take no adapters ({error})."
        ) from error


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a model by their names, adapters added to what they adapt.

    Where they are in shards, all processes have to ask for all of them.
    """
    if not has_adapters(model):
        yield from ((name, whole(parameter)) for name, parameter in model.named_parameters())
        return
    kind = _peft().tuners.lora.LoraLayer
    adapters = {  # of a layer's weight, or of a parameter that several experts share
        f"{_plain(path)}.{getattr(layer, 'parameter_name', 'weight')}": layer
        for path, layer in model.named_modules()
        if isinstance(layer, kind)
    }
    for path, parameter in model.named_parameters():
        name = _plain(path)
        if name in adapters:
            yield name, whole(parameter.detach() + adapters[name].get_delta_weight(_ADAPTER).detach())
        elif not any(part.startswith("lora_") for part in name.split(".")):
            yield name, whole(parameter)


def _peft() -> Any:
    import peft  # an extra, and a second to import

    return peft


def _plain(path: str) -> str:
    """Return the name that something in an adapted model has in the same model without adapters."""
    return path.replace(".base_layer", "")


def has_adapters(model: PreTrainedModel) -> bool:
    """Tell whether a model has adapters, its own or those of a checkpoint."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def plain_copy(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Return a copy of a model without adapters, which are merged, with frozen weights of another type.

    Its weights are made one after another, so nothing is held besides. Buffers, such as the
    frequencies of rotary embeddings, keep their type, as they do where transformers loads a model.
    """
    parameters = {_plain(path): parameter for path, parameter in model.named_parameters()}
    copies: dict[int, Any] = {
        id(parameters[name]): nn.Parameter(value.detach().to(dtype, copy=True), requires_grad=False)
        for name, value in merged_weights(model)
    }
    if has_adapters(model):
        kind = _peft().tuners.lora.LoraLayer
        for layer in model.modules():
            if isinstance(layer, kind):
                copies[id(layer)] = copy.deepcopy(layer.get_base_layer(), copies)
    plain = copy.deepcopy(model, copies)
    if has_adapters(plain):
        plain._hf_peft_config_loaded = False
        del plain.peft_config
    plain.config.dtype = dtype
    return plain
