"""Log-probabilities and entropies from hidden states are those of the whole softmax, without its memory."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llmgym.learn import sampled_tokens
from llmgym.learn.sampled_tokens import SampledTokens
from llmgym.models.causal_lm import Head

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"scale": 0.25},
    "capped": {"cap": 2.0, "scale": 1.5, "temperature": 0.7},
    "warm": {"temperature": 1.3},
}


class Memory(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, and how many there were at most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(one.untyped_storage()) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        output = func(*args, **(kwargs or {}))
        for one in tree_leaves(output):
            if isinstance(one, Tensor) and (key := one.untyped_storage()._cdata) not in self._known:
                if id(one.untyped_storage()) in given:
                    continue
                size = one.untyped_storage().nbytes()
                self._known.add(key)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(one.untyped_storage(), self._forget, key, size)
        return output


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of four tokens of the vocabulary, the last one smaller."""
    monkeypatch.setattr(sampled_tokens, "_AT_ONCE", 7 * 4)


def example(bias: bool, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor, Tensor]:
    """States [7, 5], weights [22, 5] and maybe a bias [22], a mask [3, 6] and tokens [3, 6]."""
    rng = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (22, 5), *([(22,)] if bias else [])]
    leaves = [torch.randn(shape, generator=rng, dtype=dtype).requires_grad_() for shape in shapes]
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask.view(-1)[torch.tensor([0, 2, 3, 8, 9, 16, 17])] = True
    tokens = torch.randint(22, (3, 6), generator=rng)
    tokens[0, 0], tokens[0, 2] = 0, 21
    return leaves, mask, tokens


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_whole_softmax(shape: str, bias: bool) -> None:
    leaves, mask, tokens = example(bias)
    weights = torch.randn(2, *mask.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def both(states: Tensor, *head: Tensor) -> Tensor:
        dist = SampledTokens(states, Head(*head, **SHAPES[shape]), mask)
        return torch.stack([dist.log_prob(tokens), dist.entropy()])

    def expected(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        options = {"scale": 1.0, "cap": None, "temperature": 1.0, **SHAPES[shape]}
        logits = torch.nn.functional.linear(states, weight, bias) * options["scale"]
        if options["cap"]:
            logits = options["cap"] * torch.tanh(logits / options["cap"])
        dist = torch.distributions.Categorical(logits=logits / options["temperature"])
        found = torch.zeros(2, *mask.shape, dtype=torch.float64)
        found[:, mask] = torch.stack([dist.log_prob(tokens[mask]), dist.entropy()])
        return found

    actual, wanted = both(*leaves), expected(*leaves)
    torch.testing.assert_close(actual, wanted)
    for one, other in zip(
        torch.autograd.grad((actual * weights).sum(), leaves),
        torch.autograd.grad((wanted * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("shape", SHAPES)
def test_entropies_come_with_log_probabilities_unless_gradients_are_off(shape: str) -> None:
    leaves, mask, tokens = example(bias=True)
    dist = SampledTokens(leaves[0], Head(*leaves[1:], **SHAPES[shape]), mask)
    with torch.no_grad():
        alone = dist.log_prob(tokens)
    assert dist.entropies is None
    torch.testing.assert_close(dist.log_prob(tokens), alone)
    assert dist.entropies is not None
    assert not dist.entropies.requires_grad
    torch.testing.assert_close(dist.entropies, dist.entropy())


@pytest.mark.usefixtures("parts")
def test_frozen_weights_get_no_gradient_and_states_the_same() -> None:
    (states, weight), mask, tokens = example(bias=False)
    SampledTokens(states, Head(weight), mask).log_prob(tokens).sum().backward()
    expected, states.grad = states.grad, None
    SampledTokens(states, Head(weight.detach()), mask).log_prob(tokens).sum().backward()
    torch.testing.assert_close(states.grad, expected)


@pytest.mark.usefixtures("parts")
def test_products_in_bfloat16_add_up_in_float32() -> None:
    leaves, mask, tokens = example(bias=True, dtype=torch.float32)
    with torch.no_grad():
        for leaf in leaves:
            leaf.copy_(leaf.bfloat16())
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        states, *head = (leaf.to(dtype) for leaf in leaves)
        value = SampledTokens(states, Head(*head), mask).log_prob(tokens)
        assert value.dtype == torch.float32
        results.append((value, *torch.autograd.grad(value.sum(), leaves)))
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=0.05, rtol=0.02)
        assert not torch.equal(one, other)


@pytest.mark.parametrize("shape", ["plain", "capped"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vocabulary_of_150000_at_8192_tokens_takes_at_most_300_mib(dtype: torch.dtype, shape: str) -> None:
    count, width, vocabulary = 8192, 1024, 150_000  # on the meta device, which counts and does not compute
    states = torch.empty(count, width, dtype=dtype, device="meta", requires_grad=True)
    weight = torch.empty(vocabulary, width, dtype=dtype, device="meta", requires_grad=True)
    mask = torch.ones(1, count, dtype=torch.bool, device="meta")
    dist = SampledTokens(states, Head(weight, **SHAPES[shape]), mask)
    chosen = torch.zeros(count, dtype=torch.long, device="meta")
    for of in (chosen, None):
        with Memory() as memory:
            value, _ = sampled_tokens._OfLogits.apply(states, weight, None, of, dist.head, True)
            of_states, of_weight = torch.autograd.grad(value.sum(), (states, weight))
        gradients = of_states.nbytes + of_weight.nbytes
        assert gradients < memory.peak < gradients + 300 * 2**20


@pytest.mark.usefixtures("parts")
def test_tokens_that_a_head_rules_out_change_nothing_for_the_others() -> None:
    leaves, mask, tokens = example(bias=True)
    with torch.no_grad():
        leaves[2][4:9] = -torch.inf  # a whole part of the vocabulary, and one token more
    tokens = torch.where((tokens >= 4) & (tokens < 9), 9, tokens)
    kept = [i for i in range(22) if not 4 <= i < 9]
    dist = SampledTokens(leaves[0], Head(*leaves[1:]), mask)
    logits = torch.nn.functional.linear(leaves[0], leaves[1][kept], leaves[2][kept])
    expected = torch.distributions.Categorical(logits=logits)
    place = {token: i for i, token in enumerate(kept)}
    chosen = torch.tensor([place[token] for token in tokens[mask].tolist()])
    torch.testing.assert_close(dist.log_prob(tokens)[mask], expected.log_prob(chosen))
    torch.testing.assert_close(dist.entropy()[mask], expected.entropy())
    found, wanted = (torch.autograd.grad(one.sum(), leaves[0])[0] for one in (dist.entropy(), expected.entropy()))
    torch.testing.assert_close(found, wanted)
