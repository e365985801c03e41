"""Attention over cached keys, and over two parts of a cache at once without copying either.

Query heads that share a key head are treated as further queries of that head, so keys are
never repeated.
"""

import os

import numpy as np
import torch
from torch import Tensor

_ONE_THREAD = os.environ.get("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS")) == "1"  # for NumPy's BLAS
_NARROW = 16  # queries of a head: with fewer, NumPy multiplies them with keys faster than torch


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, softcap: float | None) -> tuple[Tensor, Tensor]:
    """Plain attention that also says how much the keys weigh together.

    Args:
        query: Scaled already.  [B, K, Q, D]
        keys: [B, K, L, D]
        values: [B, K, L, D]
        mask: Added to the scores; broadcast to [B, K, Q, L].
        softcap: Bound of the scores, if the model has one.

    Returns:
        The attended values [B, K, Q, D], and the logarithm of the sum of the exponentials of
        the scores [B, K, Q, 1].
    """
    on_cpu = query.device.type == "cpu"
    numpy = on_cpu and query.dtype == torch.float32 and _ONE_THREAD and torch.get_num_threads() == 1
    scores = _product(query, keys.transpose(2, 3), numpy=numpy and query.shape[2] < _NARROW).float()  # [B, K, Q, L]
    if softcap is not None:
        scores = scores.div_(softcap).tanh_().mul_(softcap)
    largest = scores.add_(mask).amax(dim=-1, keepdim=True)
    weights = torch.softmax(scores, dim=-1, out=scores if on_cpu else None)
    # exp(score - logsumexp) is the weight; read at the largest, where it is most exact.
    log_sum = largest - weights.amax(dim=-1, keepdim=True).log()
    return _product(weights.to(values.dtype), values, numpy=numpy), log_sum


def _product(left: Tensor, right: Tensor, *, numpy: bool) -> Tensor:
    """Return the product of batches of matrices.

    With `numpy`, on one thread: of many small products NumPy's BLAS takes half to three quarters
    of the time of torch's. On several threads torch shares the products among them, NumPy does not.
    """
    return torch.from_numpy(np.matmul(left.numpy(), right.numpy())) if numpy else left @ right


def merge(one: Tensor, one_log_sum: Tensor, other: Tensor, other_log_sum: Tensor) -> Tensor:
    """Join attention over two disjoint sets of keys into attention over both.

    The softmax over a union is the mean of the softmaxes over its parts, weighted by their
    sums of exponentials (Flash-Decoding; Hydragen, arXiv:2402.05099, section 3.1).

    Args:
        one: Attended values of one part.  [..., D]
        one_log_sum: As `attend` returns it.  [..., 1]
        other: Attended values of the other part.  [..., D]
        other_log_sum: As `attend` returns it; -inf where that part has no keys.  [..., 1]
    """
    return torch.lerp(one, other, torch.sigmoid(other_log_sum - one_log_sum).to(one.dtype))
