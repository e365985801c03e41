"""A self-test: whether another way through a model computes the function that the model itself computes.

Both ways run in float64, where rounding is far below any fault, so the verdict depends neither on the processor nor
on the precision of the weights. The weights stay as they are: each is widened where it is used, and dropped again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from llmgym.errors import ModelError
from llmgym.models.attention import Causal, attending
from llmgym.models.context import longest_context

_TOLERANCE = 1e-6  # of logits in float64, which agree to about 1e-12 where nothing is wrong
_WORK = 2**33  # parameters times tokens of a test: about a second per pass on one core
_TOKENS = 30, 150  # of a test, at least and at most
_WIDENED = 2**18  # weights of a matrix that are widened at once: 2 MiB, which stay in a processor's cache

_STATEFUL = "it has layers that carry a state from token to token, which packed and cached rows would mix"

_NARROW = torch.float32, torch.bfloat16, torch.float16
_VIEWS = Tensor.__getitem__, Tensor.transpose, Tensor.t, Tensor.split, torch.split, Tensor.chunk, Tensor.size


@dataclass(frozen=True)
class Probe:
    """Conversations to compare: two siblings with a common prompt, and a stranger with one of its own.

    Attributes:
        conversations: The tokens of each, prompt included; of different lengths.
        prompt: How many tokens each prompt has.
    """

    conversations: Sequence[Sequence[int]]
    prompt: int


def self_test(model: PreTrainedModel, run: Callable[[Probe], Sequence[Tensor]], refusal: str) -> None:
    """Run some conversations another way, and compare with the model's own forward pass over each alone.

    Args:
        model: With a head; in evaluation mode.
        run: The other way: the logits of the last tokens of each conversation, at least one.  [n, V] each
        refusal: How an error begins, such as "Models of type 'mamba' cannot ...".

    Raises:
        ModelError: The other way fails, or computes something else; or what the model computes itself is no number.
    """
    if model._is_stateful:  # and needs very much memory for long rows
        raise ModelError(f"{refusal}: {_STATEFUL}")
    probe = _probe(model)
    try:
        with torch.no_grad(), float64():
            actual = run(probe)
            expected = _own(model, probe.conversations)
    except ModelError as error:
        raise ModelError(f"{refusal}: {error}") from error
    except Exception as error:  # a model that is driven in a way it was not written for can raise anything
        what = str(error).splitlines() or [type(error).__name__]
        raise ModelError(f"{refusal}: {_reason(model, what[0])} ({what[0]:.200})") from error
    if any(bool(e.isnan().any()) for e in expected):
        raise ModelError(f"The logits of the model are not numbers: {reason_for_nan(model)}.")
    differences = [_difference(a, e[-len(a) :]) for a, e in zip(actual, expected, strict=True)]
    largest = max(1.0, *(float(e.where(e.isfinite(), 0.0).abs().max()) for e in expected))
    if not sum(differences) <= _TOLERANCE * largest:  # a sum, so that NaN is noticed
        raise ModelError(
            f"{refusal}: {_reason(model)} (in a self-test in float64 the logits differed from the model's own by "
            f"{max(differences, key=lambda d: (d != d, d)):.2g}, expected less than {_TOLERANCE * largest:.1g})"
        )


def reason_for_nan(model: PreTrainedModel) -> str:
    """Return the likely reason for logits that are not numbers, which the weights know or do not."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return f"expected finite weights, but {name} has values that are NaN or infinite"
    return f"its weights are finite, so some of its states must be beyond the largest {model.dtype} or NaN"


def _difference(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference of logits, those aside that both rule out by -inf."""
    return float((actual - expected).where(actual != expected, 0.0).abs().max())


def _reason(model: PreTrainedModel, error: str = "") -> str:
    """Return the likely reason for a model that does something else or raises, when it is driven another way."""
    if Causal.__name__ in error:
        return "it does more with its attention masks than hand them to its attention"
    if not model._supports_attention_backend:
        return "its layers attend in a way of their own, which transformers lets nobody replace"
    if {"conv", "linear_attention", "mamba", "hybrid"} & set(getattr(model.config, "layer_types", None) or []):
        return _STATEFUL
    return "it computes something else than causal attention of tokens at their positions"


def _probe(model: PreTrainedModel) -> Probe:
    """Return conversations as long as they can be in about a second, of tokens that mean nothing special."""
    embeddings = model.get_input_embeddings().num_embeddings
    settings = model.config.get_text_config(decoder=True).to_dict() | model.config.to_dict()
    named = [value for name, value in settings.items() if name.endswith("token_id")]
    special = {i for value in named for i in (value if isinstance(value, list) else [value])}
    usable = [i for i in range(embeddings) if i not in special] or [0]
    total = min(max(_WORK // max(1, model.num_parameters()), _TOKENS[0]), _TOKENS[1])
    length = max(8, min(total // 3, longest_context(model.config) - 3))
    prompt = length // 2
    random = torch.Generator().manual_seed(0)
    choice = torch.randint(len(usable), (3, length + 3), generator=random).tolist()
    first, second, stranger = ([usable[i] for i in row] for row in choice)
    second[:prompt] = first[:prompt]
    return Probe([first[:length], second[: length + 3], stranger[: length + 1]], prompt)


def _own(model: PreTrainedModel, conversations: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return what the model makes of conversations, by the attention that its authors wrote out.  [T or 1, V] each"""
    eager = attending(model, "eager")
    if model.get_output_embeddings() is None:  # one value each, where the model takes its last token to be
        return [_logits(eager, [tokens]) for tokens in conversations]
    width = max(map(len, conversations))
    padded = [[*tokens, *[tokens[0]] * (width - len(tokens))] for tokens in conversations]  # which no token before sees
    return [logits[: len(tokens)] for tokens, logits in zip(conversations, _logits(eager, padded), strict=True)]


def _logits(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Tensor:
    logits: Tensor = model(torch.tensor(rows, device=model.device), use_cache=False).logits
    return logits


class float64(TorchFunctionMode):  # noqa: N801  # as torch names what changes how operations run
    """Computes everything in float64, for the time of a ``with`` block; parameters are widened as they are used.

    What is asked for in a narrower type, as models do for norms and softmax, is float64, too.
    """

    def __enter__(self) -> "float64":
        """Begin, with float64 for new tensors, too."""
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        super().__enter__()  # type: ignore[no-untyped-call]  # torch does not say
        return self

    def __exit__(self, *error: Any) -> None:
        """End."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch.set_default_dtype(self._default)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation on widened arguments, and widen what it returns."""
        kwargs = kwargs or {}
        if func is F.linear:
            return _linear(*args, **kwargs)
        if func is torch._grouped_mm:
            return _grouped_mm(*args, **kwargs)
        if func is F.embedding:
            return _wide(func(*args, **kwargs))
        if func in _VIEWS or getattr(func, "__name__", "") == "__get__":  # of what is widened when it is used
            value = func(*args, **kwargs)
            return _wide(value) if isinstance(value, torch.dtype) else value
        if func is Tensor.float or func is Tensor.bfloat16 or func is Tensor.half:
            func = Tensor.double
        return _wide(func(*_wide(tuple(args)), **_wide(dict(kwargs))))


def _linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` in float64, of a weight that may be too large to be widened as a whole."""
    hidden = _wide(hidden)
    rows = max(1, _WIDENED // weight.shape[1])
    product = torch.cat([F.linear(hidden, _wide(part)) for part in torch.split(weight, rows)], dim=-1)
    return product if bias is None else product + _wide(bias)


def _grouped_mm(hidden: Tensor, weights: Tensor, *, offs: Tensor, bias: None = None, out_dtype: Any = None) -> Tensor:
    """`F.grouped_mm` in float64, which torch does not have: the matrix of one expert after another."""
    assert bias is None  # transformers adds it afterwards
    groups = torch.tensor_split(_wide(hidden), offs[:-1].long().cpu())
    return torch.cat([group @ _wide(weight) for group, weight in zip(groups, weights, strict=True)])


def _wide(value: Any) -> Any:
    """Return tensors and types of tensors, and what holds them, in float64 if they are narrower."""
    if isinstance(value, Tensor):
        return value.double() if value.dtype in _NARROW else value
    if isinstance(value, torch.dtype):
        return torch.float64 if value in _NARROW else value
    if type(value) is list or type(value) is tuple:
        return type(value)(_wide(item) for item in value)
    if type(value) is dict:
        return {key: _wide(item) for key, item in value.items()}
    return value
