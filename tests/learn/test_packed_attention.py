"""Attention over packed tokens equals attention over each row alone, values and gradients."""

import pytest
import torch
from torch import Tensor

from llmgym.learn import packed_attention
from llmgym.learn.packed_attention import in_blocks, in_padded_rows
from llmgym.learn.packing import Segment

SEGMENTS = [
    Segment(0, 20, 0, 0),
    Segment(20, 37, 0, 20),
    Segment(37, 38, 0, 20),
    Segment(38, 61, 38, 38),
    Segment(61, 70, 38, 61),
]


def inputs() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, heads, 70, 8, requires_grad=True) for heads in (6, 2, 2)]


def one_by_one(query: Tensor, key: Tensor, value: Tensor, window: int | None, softcap: float | None) -> Tensor:
    """Every query by itself: the definition.  [1, N, H, D]"""
    rows = torch.zeros(70, 6, 8)
    for segment in SEGMENTS:
        for index in range(segment.start, segment.stop):
            seen = [*range(segment.context_start, segment.context_stop), *range(segment.start, index + 1)][
                -(window or 99) :
            ]
            for head in range(6):
                scores = key[0, head // 3, seen] @ query[0, head, index] * 0.3
                if softcap is not None:
                    scores = softcap * torch.tanh(scores / softcap)
                rows[index, head] = scores.softmax(0) @ value[0, head // 3, seen]
    return rows[None]


@pytest.mark.parametrize("window", [None, 5, 22])
@pytest.mark.parametrize(
    ("way", "softcap"),
    [
        ("blocks", None),
        ("blocks", 0.7),
        ("small blocks", None),
        ("small blocks", 0.7),
        ("blocks computed again", None),
        ("padded rows", None),  # PyTorch's attention has no softcap
    ],
)
def test_values_and_gradients_are_those_of_each_query_by_itself(
    way: str, window: int | None, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "small blocks":
        monkeypatch.setattr(packed_attention, "_BLOCK", 1)
    if way == "blocks computed again":
        monkeypatch.setattr(packed_attention, "_KEPT", 0)
    tensors = inputs()
    weight = torch.randn(1, 70, 6, 8)
    expected = one_by_one(*tensors, window, softcap)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), tensors)
    if way == "padded rows":
        actual = in_padded_rows(*tensors, 0.3, SEGMENTS, window)
    else:
        actual = in_blocks(*tensors, 0.3, SEGMENTS, window, softcap)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(torch.autograd.grad((actual * weight).sum(), tensors), expected_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
