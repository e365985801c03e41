"""TRL's GRPO loss in its variants: the same values and gradients."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ragged import ALONE, WIDTH, Given, ragged, same
from tensordict import TensorDict

from llmgym.learn.losses import CISPOLoss, ClippedPolicyLoss

pytest.importorskip("trl", reason="see `make oracles`")
from trl.trainer.grpo_trainer import GRPOTrainer

seeds = pytest.mark.parametrize("seed", range(5))


def grpo_loss(policy: Given, batch: TensorDict, loss_type: str, **options: Any) -> torch.Tensor:
    """TRL's loss of episodes whose environment tokens are masked as it masks those of tools."""
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (policy.log_probs * 1.0, torch.zeros(1, WIDTH), None),
        loss_type=loss_type,
        importance_sampling_level=options.get("ratio", "token"),
        epsilon_low=options.get("clip_epsilon", (0.2, 0.2))[0],
        epsilon_high=options.get("clip_epsilon", (0.2, 0.2))[1],
        beta=options.get("kl_coef", 0.0),
        args=SimpleNamespace(delta=options.get("dual_clip"), use_bias_correction_kl=False, steps_per_generation=1),
        max_completion_length=17,
        current_gradient_accumulation_steps=1,
        model=SimpleNamespace(training=True),
        accelerator=ALONE,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
    )
    rows = len(batch)
    inputs = {
        "prompt_ids": torch.zeros(rows, 1, dtype=torch.long),
        "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
        "completion_ids": batch["tokens"],
        "completion_mask": (torch.arange(WIDTH) < batch["length"][:, None]).long(),
        "tool_mask": batch["mask"].long(),
        "advantages": batch["advantage"].sum(1) / batch["mask"].sum(1),
        "old_per_token_logps": batch["log_probs"],
        "ref_per_token_logps": batch["ref_log_probs"],
        "num_items_in_batch": batch["mask"].sum(),
    }
    loss: torch.Tensor = GRPOTrainer._compute_loss(trainer, None, inputs)
    return loss


def our_loss(loss_class: Any, policy: Given, batch: TensorDict, **options: Any) -> torch.Tensor:
    output = loss_class(policy, loss_scale_factor=17.0, **options)(batch)
    return sum(value for key, value in output.items() if key.startswith("loss_"))  # type: ignore[return-value]


@seeds
@pytest.mark.parametrize(
    ("loss_type", "aggregation"),
    [
        ("grpo", "seq-mean-token-mean"),
        ("bnpo", "token-mean"),
        ("dapo", "token-mean"),
        ("dr_grpo", "seq-mean-token-sum-norm"),
        ("luspo", "seq-mean-token-sum"),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_epsilon": (0.2, 0.28)},
        {"dual_clip": 1.3},
        {"ratio": "sequence", "clip_epsilon": (0.05, 0.08)},
        {"kl_coef": 0.3},
        {"kl_coef": 0.3, "ratio": "sequence"},
    ],
    ids=["clip", "clip-higher", "two-sided clip", "GSPO", "KL", "GSPO and KL"],
)
def test_grpo(loss_type: str, aggregation: str, options: dict[str, Any], seed: int) -> None:
    policy, batch = ragged(seed)
    ours = our_loss(ClippedPolicyLoss, policy, batch, aggregation=aggregation, **options)
    same(ours, grpo_loss(policy, batch, loss_type, **options), policy)


@seeds
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_cispo_bounds_the_weight_from_above(ratio: str, seed: int) -> None:
    policy, batch = ragged(seed)
    ours = our_loss(CISPOLoss, policy, batch, clip_epsilon=(1.0, 0.3), ratio=ratio)
    same(ours, grpo_loss(policy, batch, "cispo", clip_epsilon=(0.0, 1.3), ratio=ratio), policy)
