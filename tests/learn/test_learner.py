"""The learner takes the same step however the batch is cut, and warms up."""

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_model
from safetensors.torch import load_file
from tensordict import TensorDict
from test_clipped_policy import real_batch

from llmgym.config.choices import Decay
from llmgym.errors import TrainingError
from llmgym.learn.batch import collate, micro_batches, split_by_group
from llmgym.learn.learner import MAX_SKIPPED_IN_A_ROW, Learner
from llmgym.learn.losses import ClippedPolicyLoss, KTOLoss, SPPOLoss
from llmgym.learn.mismatch import measure
from llmgym.learn.policy import Policy
from llmgym.learn.reference import Reference, kl_from
from llmgym.rollout.trajectory import Reply, Trajectory


def learner(model: torch.nn.Module, **options: float | str) -> Learner:
    policy = Policy(model)  # type: ignore[arg-type]
    defaults: dict[str, float | str] = {
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1e9,
    }
    return Learner(
        ClippedPolicyLoss(policy),
        **{**defaults, "micro_batch_tokens": 10**6, **options},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("micro_batch_tokens", [1, 80])
def test_micro_batches_change_neither_the_metrics_nor_the_gradient(micro_batch_tokens: int) -> None:
    models = [random_model("qwen2"), random_model("qwen2")]
    batch = real_batch(Policy(models[0]))
    whole, cut = (learner(m, micro_batch_tokens=n) for m, n in zip(models, (10**6, micro_batch_tokens), strict=True))
    metrics = [one.update(batch) for one in (whole, cut)]
    for key in ("loss_objective", "clip_fraction", "grad_norm"):
        assert metrics[1][key] == pytest.approx(metrics[0][key], rel=1e-3, abs=1e-6)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("loss_class", [KTOLoss, SPPOLoss])
def test_an_answer_without_a_sampled_token_counts_however_the_batch_is_cut(loss_class: Any) -> None:
    batch = real_batch(Policy(random_model("llama")))
    batch["mask"][1] = False
    count = torch.arange(len(batch))
    batch["desirable"], batch["win_rate"] = count % 2 == 0, count / len(batch)
    batch["ref_log_probs"] = (batch["log_probs"] - 0.1) * batch["mask"]
    batch["reference_point"] = torch.full((len(batch),), 0.1)
    found = []
    for tokens in (10**6, 1):
        one = Learner(loss_class(Policy(random_model("llama"))), learning_rate=1e-3, micro_batch_tokens=tokens)
        found.append(one.update(batch.copy()))
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_a_model_in_float64_learns() -> None:
    model = random_model("llama").double()
    batch = real_batch(Policy(model))
    assert learner(model).update(batch)["updates_skipped"] == 0.0


def test_a_step_makes_what_was_better_than_expected_likelier() -> None:
    model = random_model("llama")
    policy = Policy(model)
    batch = real_batch(policy)
    before = copy.deepcopy(batch["log_probs"])
    learner(model, learning_rate=1e-4).update(batch)
    with torch.no_grad():
        change = policy.log_probs(batch) - before
    assert (change * batch["advantage"]).sum() > 0


def test_an_environment_that_switches_gradients_off_keeps_nobody_from_learning() -> None:
    model = random_model("llama")
    batch = real_batch(Policy(model))
    before = [parameter.clone() for parameter in model.parameters()]
    with torch.no_grad():
        assert learner(model, learning_rate=1e-4).update(batch)["grad_norm"] > 0
    assert any(not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_the_learning_rate_rises_linearly_and_gradients_are_clipped() -> None:
    model = random_model("qwen2")
    one = learner(model, warmup_steps=4, max_grad_norm=0.01)
    batch = real_batch(Policy(model))
    metrics = [one.update(batch) for _ in range(6)]
    rates = [m["learning_rate"] for m in metrics]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])
    assert metrics[0]["grad_norm"] > 0.01
    total = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    assert total == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("decay", "shares"), [("none", [1.0, 1.0, 1.0]), ("linear", [1.0, 0.5, 0.25]), ("cosine", [1.0, 0.5, 0.1464466])]
)
def test_the_learning_rate_falls_with_progress(decay: Decay, shares: list[float]) -> None:
    model = random_model("qwen2")
    one, batch = learner(model, decay=decay), real_batch(Policy(model))
    rates = []
    for progress in (0.0, 0.5, 0.75):
        one.progress = progress
        rates.append(one.update(batch)["learning_rate"] / 0.01)
    assert rates == pytest.approx(shares)


def test_the_reference_stays_where_training_started() -> None:
    model = random_model("qwen2")
    policy = Policy(model)
    reference = Reference(policy, micro_batch_tokens=50)
    batch = real_batch(policy)
    before = reference.log_probs(batch)
    assert kl_from(policy.log_probs(batch), before, batch) == pytest.approx(0.0, abs=1e-6)
    learner(model).update(batch)
    after = policy.log_probs(batch).detach()
    torch.testing.assert_close(reference.log_probs(batch), before)
    log_ratio = (before - after)[batch["mask"]].double()
    expected = (log_ratio.exp() - 1 - log_ratio).mean()
    assert kl_from(after, before, batch) == pytest.approx(float(expected), rel=1e-5)
    assert expected > 1e-3


def test_tokens_that_no_policy_sampled_say_nothing_of_a_divergence() -> None:
    batch = real_batch(Policy(random_model("qwen2")))
    batch["log_probs"][1:] = math.nan
    log_probs = torch.zeros_like(batch["log_probs"])
    far = log_probs.clone()
    far[1:] = -5.0
    assert kl_from(log_probs, far, batch) == 0.0


def trajectory(group: int, length: int, *, score: float | None = 1.0) -> Trajectory:
    return Trajectory(
        seed=group,
        group=group,
        tokens=list(range(length)),
        mask=[False] * 2 + [True] * (length - 2),
        log_probs=[0.0] * 2 + [-1.0] * (length - 2),
        replies=[Reply(2, length, "stop", 0)],
        score=score,
    )


def test_collating_pads_on_the_right_and_leaves_missing_scores_out_of_the_mask() -> None:
    batch = collate([trajectory(0, 5, score=0.5), trajectory(0, 3, score=None)])
    assert batch["tokens"].tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 0]]
    assert batch["mask"].tolist() == [[False, False, True, True, True], [False] * 5]
    assert batch["length"].tolist() == [5, 3]
    assert batch["prompt_length"].tolist() == [2, 2]
    assert batch["scored"].tolist() == [True, False]
    assert batch["reward"].tolist() == [0.5, 0.0]


@pytest.mark.parametrize(("parts", "sizes"), [(1, [6]), (2, [2, 4]), (3, [2, 1, 3]), (9, [2, 1, 3])])
def test_a_batch_is_split_between_groups_and_never_within(parts: int, sizes: list[int]) -> None:
    batch = collate([trajectory(group, 4) for group in (7, 7, 2, 5, 5, 5)])
    assert [len(part) for part in split_by_group(batch, parts)] == sizes


def steps_apart(batch: TensorDict, unit: str, sizes: list[int]) -> TensorDict:
    """Give consecutive rows the same unit."""
    units = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return batch.clone().set(unit, units)


@pytest.mark.parametrize("max_tokens", [1, 30, 60, 150, 10**6])
def test_a_micro_batch_never_splits_a_unit_and_together_they_are_the_batch(max_tokens: int) -> None:
    batch = real_batch(Policy(random_model("qwen2")))
    sizes = [2, 1, *[2] * ((len(batch) - 3) // 2), *[1] * ((len(batch) - 3) % 2)]
    batch = steps_apart(batch, "pair", sizes)
    parts = list(micro_batches(batch, max_tokens, "pair"))
    units = [part["pair"].unique().tolist() for part in parts]
    assert sum(units, []) == list(range(len(sizes)))  # noqa: RUF017  # few
    rows = [row[:length].tolist() for part in parts for row, length in zip(part["tokens"], part["length"], strict=True)]
    assert rows == [row[:length].tolist() for row, length in zip(batch["tokens"], batch["length"], strict=True)]
    if max_tokens == 1:
        assert [len(part) for part in parts] == sizes


@pytest.mark.parametrize("unit", ["row", "pair"])
@pytest.mark.parametrize("max_tokens", [40, 90])
def test_a_micro_batch_holds_no_more_tokens_than_it_may_unless_it_is_one_unit(unit: str, max_tokens: int) -> None:
    batch = real_batch(Policy(random_model("qwen2")))
    batch = steps_apart(batch, "pair", [2] * (len(batch) // 2) + [1] * (len(batch) % 2))
    for part in micro_batches(batch, max_tokens, unit):
        prompts = {tuple(row[:n].tolist()) for row, n in zip(part["tokens"], part["prompt_length"], strict=True)}
        size = sum(map(len, prompts)) + int((part["length"] - part["prompt_length"]).sum())
        assert size <= max_tokens or len(part if unit == "row" else part["pair"].unique()) == 1


def test_shuffling_groups_keeps_each_together_and_loses_none() -> None:
    batch = collate([trajectory(group, 4 + group) for group in (7, 7, 2, 5, 5, 5)])
    order = np.random.default_rng(1)
    seen = set()
    for _ in range(20):
        groups = [g for part in split_by_group(batch, 2, order) for g in part["group"].tolist()]
        assert sorted(groups) == [2, 5, 5, 5, 7, 7]
        assert sum(a != b for a, b in itertools.pairwise(groups)) == 2
        seen.add(tuple(dict.fromkeys(groups)))
    assert len(seen) == 6  # every order of three groups


def test_a_refreshed_reference_is_the_policy_and_leaves_it_alone() -> None:
    model = random_model("llama")
    policy = Policy(model)
    reference = Reference(policy, micro_batch_tokens=50)
    batch = real_batch(policy)
    start = batch["log_probs"].clone()
    learner(model).update(batch)
    with torch.no_grad():
        learnt = policy.log_probs(batch)
    torch.testing.assert_close(reference.log_probs(batch), start)
    with torch.no_grad():
        torch.testing.assert_close(policy.log_probs(batch), learnt, atol=0, rtol=0)
    reference.refresh()
    torch.testing.assert_close(reference.log_probs(batch), learnt)


# Steps that are not finite.


def poisoned(batch: TensorDict) -> TensorDict:
    batch = batch.clone()
    batch["advantage"][batch["mask"]] = math.inf
    return batch


def test_a_step_that_is_not_finite_leaves_its_batch_behind(tmp_path: Path) -> None:
    model = random_model("qwen2")
    batch = real_batch(Policy(model))
    one = learner(model)
    one.skipped_batches = tmp_path / "skipped"
    one.update(batch)
    assert not one.skipped_batches.exists()
    bad = poisoned(batch)
    one.update(bad)
    (file,) = one.skipped_batches.iterdir()
    saved = load_file(file)
    for key in ("tokens", "mask", "advantage", "log_probs"):
        torch.testing.assert_close(saved[key], bad[key])


def test_several_steps_in_a_row_that_are_not_finite_stop_training_and_name_the_file(tmp_path: Path) -> None:
    model = random_model("qwen2")
    batch = real_batch(Policy(model))
    one = learner(model)
    one.skipped_batches = tmp_path
    for _ in range(3):  # a finite step in between starts the count again
        for _ in range(MAX_SKIPPED_IN_A_ROW - 1):
            assert one.update(poisoned(batch))["updates_skipped"] == 1.0
        assert one.update(batch)["updates_skipped"] == 0.0
    before = copy.deepcopy(model.state_dict())
    for _ in range(MAX_SKIPPED_IN_A_ROW - 1):
        one.update(poisoned(batch))
    with pytest.raises(TrainingError, match="in a row") as caught:
        one.update(poisoned(batch))
    assert str(sorted(tmp_path.iterdir())[-1]) in str(caught.value)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)


def test_a_loss_that_is_not_finite_is_a_reason_too(tmp_path: Path) -> None:
    model = random_model("qwen2")
    batch = real_batch(Policy(model))
    one = learner(model)
    one.skipped_batches = tmp_path
    constant = batch.clone()
    constant["advantage"][constant["mask"]] = math.nan
    metrics = one.update(constant)
    assert math.isnan(metrics["loss_objective"])
    assert metrics["updates_skipped"] == 1.0


def test_rows_without_an_advantage_are_not_run_and_nothing_else_changes() -> None:
    models = [random_model("qwen2"), random_model("qwen2")]
    batch = real_batch(Policy(models[0]))
    batch["advantage"][::2] = 0.0
    batch["advantage"][1::2] += 0.1 * batch["mask"][1::2]
    everything, some = (learner(model) for model in models)
    everything.loss.teaches = lambda batch: torch.ones(len(batch), dtype=torch.bool)  # type: ignore[method-assign]
    run = []
    models[1].model.register_forward_hook(lambda module, inputs, kwargs, output: run.append(output), with_kwargs=True)
    whole, cut = batch.clone(), batch.clone()
    metrics = [everything.update(whole), some.update(cut)]
    assert metrics[0]["loss_objective"] == pytest.approx(metrics[1]["loss_objective"], abs=1e-6)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-4)
    assert cut["policy_log_probs"][::2][batch["mask"][::2]].isnan().all()
    torch.testing.assert_close(cut["policy_log_probs"][1::2], whole["policy_log_probs"][1::2])
    assert measure(cut["policy_log_probs"], cut)["mismatch/kl"] == pytest.approx(0.0, abs=1e-6)
    assert len(run) == 1
    assert run[0][0].shape[1] < batch["length"].sum()
