"""Supervised fine-tuning: the cross-entropy of the assistant's tokens and of no others."""

import math

import pytest
import torch
from preference_table import table_pairs
from torch import nn

from llmgym.learn.losses.sft import SFTLoss


def test_value_and_gradient_are_those_of_torchs_cross_entropy_over_the_masked_tokens() -> None:
    policy, batch = table_pairs()
    output = SFTLoss(policy)(batch)
    expected = nn.functional.cross_entropy(policy.logits[batch["mask"]], batch["tokens"][batch["mask"]])
    torch.testing.assert_close(output["loss_sft"], expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, policy.logits)[0] for loss in (output["loss_sft"], expected))
    )
    probabilities = policy.logits.softmax(-1).gather(2, batch["tokens"][..., None])[..., 0]
    assert output["probability"].item() == pytest.approx(probabilities[batch["mask"]].mean().item())
    torch.testing.assert_close(batch["policy_log_probs"], probabilities.detach().log() * batch["mask"])


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_micro_batches_add_up_to_the_batch(cut: int) -> None:
    policy, batch = table_pairs()
    whole = SFTLoss(policy)(batch)["loss_sft"]
    gradient = torch.autograd.grad(whole, policy.logits)[0]
    batch["weight"] = SFTLoss(policy).weights(batch)
    split = torch.zeros(())
    for rows in (slice(0, cut), slice(cut, None)):
        table = type(policy)(policy.logits[rows])
        table._parameters["logits"] = policy.logits[rows]
        split = split + SFTLoss(table)(batch[rows])["loss_sft"]
    torch.testing.assert_close(split, whole)
    torch.testing.assert_close(torch.autograd.grad(split, policy.logits)[0], gradient)


def test_at_masked_positions_nothing_counts_and_without_tokens_there_is_no_gradient() -> None:
    policy, batch = table_pairs()
    whole = SFTLoss(policy)(batch)["loss_sft"].detach()
    with torch.no_grad():
        policy.logits[~batch["mask"]] = math.inf
    torch.testing.assert_close(SFTLoss(policy)(batch)["loss_sft"].detach(), whole)
    batch["mask"] = torch.zeros_like(batch["mask"])
    output = SFTLoss(policy)(batch)
    assert output["loss_sft"] == output["probability"] == 0
