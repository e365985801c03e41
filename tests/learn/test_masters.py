"""Weights in bfloat16 learn as those in float32 do: the optimiser steps a wide copy, which they are rounded from."""

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
from conftest import random_model
from tensordict import TensorDict
from test_clipped_policy import real_batch
from torch import nn
from transformers import PreTrainedModel

from llmgym.learn.learner import Learner
from llmgym.learn.losses import ClippedPolicyLoss
from llmgym.learn.masters import Masters
from llmgym.learn.policy import Policy


def narrow_and_wide() -> tuple[PreTrainedModel, PreTrainedModel, TensorDict]:
    """Return a model in bfloat16, the same weights in float32, and a batch that it sampled."""
    narrow = random_model("qwen2").to(torch.bfloat16)
    wide = copy.deepcopy(narrow).to(torch.float32)
    return narrow, wide, real_batch(Policy(wide))


def learner(model: PreTrainedModel, **options: float) -> Learner:
    return Learner(ClippedPolicyLoss(Policy(model)), **{"learning_rate": 1e-5, **options})  # type: ignore[arg-type]


def masters(of: Learner) -> Iterator[torch.Tensor]:
    return itertools.chain.from_iterable(group["params"] for group in of.optimiser.param_groups)


def flat(tensors: Iterator[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().float().flatten() for tensor in tensors])


def test_steps_too_small_for_bfloat16_add_up() -> None:
    narrow, _, batch = narrow_and_wide()
    one = learner(narrow, learning_rate=1e-6)
    start = flat(narrow.parameters())
    one.update(batch.copy())
    stood = flat(narrow.parameters()) == start
    moved = flat(masters(one)) != start
    assert (stood & moved).float().mean() > 0.5  # alone, these steps would have been lost
    for _ in range(30):
        one.update(batch.copy())
    large = stood & moved & ((flat(masters(one)) - start).abs() > start.abs() / 256)
    assert large.any()
    assert (flat(narrow.parameters()) != start)[large].all()


def test_the_model_has_the_values_of_its_masters_rounded() -> None:
    narrow, _, batch = narrow_and_wide()
    one = learner(narrow, learning_rate=1e-2)
    one.update(batch)
    for parameter, master in zip(narrow.parameters(), masters(one), strict=True):
        assert (parameter.dtype, master.dtype) == (torch.bfloat16, torch.float32)
        assert torch.equal(parameter, master.to(torch.bfloat16))
    assert all(parameter.grad is None for parameter in narrow.parameters())


def test_they_go_where_weights_in_float32_go() -> None:
    narrow, wide, batch = narrow_and_wide()
    start = flat(wide.parameters())
    learners = [learner(model, learning_rate=1e-3) for model in (narrow, wide)]
    for one in learners:
        for _ in range(5):
            metrics = one.update(batch.copy())
    assert metrics["updates_skipped"] == 0.0
    actual, expected = (flat(masters(one)) - start for one in learners)
    assert torch.cosine_similarity(actual, expected, dim=0) > 0.9


def test_gradients_of_micro_batches_add_up_in_float32() -> None:
    weight, masters = nn.Parameter(torch.ones(3, dtype=torch.bfloat16)), Masters()
    master = masters.of(weight)
    for _ in range(1000):
        with masters.collecting():
            weight.sum().backward()
    assert master.grad is not None
    assert master.grad.tolist() == [1000.0] * 3  # in bfloat16 256 + 1 is 256
    assert weight.grad is None


def test_two_learners_of_one_model_do_not_take_each_others_gradients() -> None:
    narrow, _, batch = narrow_and_wide()
    first, second = learner(narrow), learner(narrow)
    norms = [one.update(batch.copy())["grad_norm"] for one in (first, second)]
    assert norms[1] == pytest.approx(norms[0], rel=0.1)


def test_a_parameter_of_two_parts_has_one_master() -> None:
    narrow = random_model("qwen2", tie_word_embeddings=True).to(torch.bfloat16)
    one = learner(narrow)
    assert len(list(masters(one))) == len(list(narrow.parameters()))
    assert narrow.lm_head.weight is narrow.model.embed_tokens.weight
