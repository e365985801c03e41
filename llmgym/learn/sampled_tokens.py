"""`SampledTokens`: log-probabilities and entropies of sampled tokens, without ever holding all logits at once."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Distribution

from llmgym.models.causal_lm import Head

_AT_ONCE = 2**22  # numbers: 16 MiB in float32, which stay near a processor
_NEVER = -1e30  # a logit so low that its token is never drawn, and of which a vocabulary's sum is still finite


class SampledTokens(Distribution):
    """Categorical distributions over the vocabulary, at the sampled tokens of a batch.

    Logits are computed when something is asked of them, and again in the backward pass, for one
    part of the vocabulary after another. So the head's weights are read once, the gradient of
    each is written once, and what is held besides does not grow with the vocabulary.

    Attributes:
        entropies: Of each distribution, in nats, without a gradient; 0 where nothing was sampled. They come with
            log-probabilities, unless these are computed without gradients; None before that.  [B, T]

    Args:
        states: The hidden state before each sampled token, in the order of `mask`.  [N, D]
        head: Makes logits of them.
        mask: Where tokens were sampled.  [B, T]
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, states: Tensor, head: Head, mask: Tensor) -> None:
        super().__init__(batch_shape=mask.shape, validate_args=False)
        self.states, self.head, self.mask = states, head, mask
        self.entropies: Tensor | None = None

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of tokens [B, T]; 0 where none was sampled.  [B, T]"""
        log_probs, entropies = self._of_logits(value[self.mask])
        if torch.is_grad_enabled():
            self.entropies = self._spread(entropies)
        return self._spread(log_probs)

    def entropy(self) -> Tensor:
        """Return the entropy in nats; 0 where nothing was sampled.  [B, T]"""
        return self._spread(self._of_logits(None)[0])

    def _of_logits(self, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `_OfLogits.forward`."""
        with_entropies = chosen is None or torch.is_grad_enabled()
        given = self.states, self.head.weight, self.head.bias, chosen, self.head, with_entropies
        values: tuple[Tensor, Tensor] = _OfLogits.apply(*given)  # type: ignore[no-untyped-call]
        return values

    def _spread(self, values: Tensor) -> Tensor:
        """Put a number for each sampled token where that is; 0 elsewhere.  [N] -> [B, T]"""
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask, values)


class _OfLogits(torch.autograd.Function):
    r"""The log-probability of a chosen token, or the entropy, of logits :math:`z` in parts.

    .. math:: \frac{\partial \log p_a}{\partial z_i} = \delta_{ai} - p_i, \qquad
        \frac{\partial H}{\partial z_i} = -p_i (\log p_i + H)
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        chosen: Tensor | None,
        head: Head,
        with_entropies: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return a number for each state, and entropies without a gradient, 0 if not wanted.  [N, D] -> [N], [N]"""
        wide = torch.promote_types(states.dtype, torch.float32)
        normaliser = states.new_full((len(states),), -torch.inf, dtype=wide)  # log sum exp z so far  [N]
        mean, picked = torch.zeros_like(normaliser), torch.zeros_like(normaliser)  # of z, and the chosen z  [N]
        exps = None
        for start, logits in _parts(states, head):
            if chosen is not None:
                index, inside = _place(chosen, start, logits)
                picked += torch.where(inside, logits.gather(1, index)[:, 0], 0.0)
            largest = logits.amax(dim=1, keepdim=True)
            shifted = logits.sub_(largest)
            if with_entropies:
                exps = torch.empty_like(shifted) if exps is None else exps
                weights = torch.exp(shifted, out=exps[:, : shifted.shape[1]])
            else:
                weights = shifted.exp_()
            total = weights.sum(dim=1)
            part = total.log() + largest[:, 0]
            both = torch.logaddexp(normaliser, part)
            if with_entropies:
                part_mean = weights.mul_(shifted).sum(dim=1) / total + largest[:, 0]
                mean = mean * (normaliser - both).exp() + part_mean * (part - both).exp()
            normaliser = both
        entropies = normaliser - mean if with_entropies else mean
        values = entropies if chosen is None else picked - normaliser
        ctx.save_for_backward(states, weight, bias, chosen, normaliser, values)
        ctx.head = head
        noted = entropies.clone() if chosen is None else entropies
        ctx.mark_non_differentiable(noted)
        return values, noted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of states, weight and bias."""
        states, weight, bias, chosen, normaliser, values = ctx.saved_tensors
        needs_states, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        # A state's gradient adds up over the parts, a weight's is there at once.
        to_states = torch.zeros_like(states, dtype=normaliser.dtype) if needs_states else None
        to_weight = torch.zeros_like(weight) if needs_weight else None
        to_bias = torch.zeros_like(bias) if needs_bias else None
        for start, logits in _parts(states, ctx.head):
            part = slice(start, start + logits.shape[1])
            slope = ctx.head.slope(logits)
            log_p = logits.sub_(normaliser[:, None])
            if chosen is not None:
                index, inside = _place(chosen, start, logits)
                steps = log_p.exp_().mul_(-gradient[:, None])
                steps.scatter_add_(1, index, (gradient * inside)[:, None])
            else:
                steps = log_p.exp().mul_(log_p.add_(values[:, None])).mul_(-gradient[:, None])
            steps = steps.mul_(slope).to(weight.dtype)  # what a logit before scale and cap should change by  [N, v]
            if to_states is not None:
                _add_product(to_states, steps, weight[part])
            if to_weight is not None:
                _add_product(to_weight[part], steps.T, states)
            if to_bias is not None:
                to_bias[part] = steps.sum(dim=0)
        return to_states, to_weight, to_bias, None, None, None


def _parts(states: Tensor, head: Head) -> Iterator[tuple[int, Tensor]]:
    """Yield where a part of the vocabulary begins, and its logits in at least float32, to be overwritten.  [N, v]"""
    count, width = states.shape
    vocabulary = len(head.weight)
    size = max(1, min(vocabulary, _AT_ONCE // max(1, count, width)))
    products = states.new_empty(count * size)  # the same memory for every part: new pages are expensive
    wide = products if states.dtype.itemsize >= 4 else torch.empty_like(products, dtype=torch.float32)
    for start in range(0, vocabulary, size):
        weight = head.weight.detach()[start : start + size]
        shape = (count, len(weight))
        raw = torch.mm(states.detach(), weight.T, out=products[: count * len(weight)].view(shape))
        if head.bias is not None:
            raw += head.bias.detach()[start : start + size]
        if wide is not products:
            raw = wide[: raw.numel()].view(shape).copy_(raw)
        logits = head.shaped(raw)
        if head.bias is not None:  # which may rule tokens out by -inf
            logits = logits.clamp_(min=_NEVER)
        yield start, logits


def _place(chosen: Tensor, start: int, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return columns of a part for chosen tokens [N, 1], and which of them are in this part.  [N]"""
    column = (chosen - start).clamp(0, logits.shape[1] - 1)
    return column[:, None], column == chosen - start


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a matrix product to a total that may be of a wider type, in place."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
