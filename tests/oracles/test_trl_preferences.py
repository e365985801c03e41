"""TRL's losses over preferences: the same values and gradients."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ragged import ALONE, WIDTH, Given, ragged, same
from tensordict import TensorDict

from llmgym.learn.losses import DPOLoss, IPOLoss, KTOLoss, ORPOLoss, SPPOLoss
from llmgym.learn.losses.bradley_terry import BradleyTerryLoss
from llmgym.learn.losses.kto import reference_point

pytest.importorskip("trl", reason="see `make oracles`")
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_trainer import RewardTrainer

seeds = pytest.mark.parametrize("seed", range(5))
betas = pytest.mark.parametrize("beta", [0.05, 0.5])


def pairs(seed: int) -> tuple[Given, TensorDict]:
    """Five pairs of answers of several turns."""
    policy, batch = ragged(seed, rows=10)
    batch["pair"] = torch.arange(10) // 2
    batch["chosen"] = torch.arange(10) % 2 == 0
    return policy, batch


def sums(log_probs: torch.Tensor, batch: TensorDict) -> torch.Tensor:
    return log_probs.masked_fill(~batch["mask"], 0.0).sum(1)


class Forward:
    """A model as TRL calls it: log-probs of all tokens but the first, 0 where none is to be learnt."""

    def __init__(self, log_probs: torch.Tensor, mask: torch.Tensor) -> None:
        nothing = torch.zeros(mask.shape)[:, 1:]
        log_probs = log_probs.masked_fill(~mask, 0.0)[:, 1:]
        self.output = SimpleNamespace(log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())

    def __call__(self, **inputs: Any) -> Any:
        return self.output


def trainer(**options: Any) -> SimpleNamespace:
    common = {
        "model": SimpleNamespace(training=True),
        "accelerator": ALONE,
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "_metrics": {"train": defaultdict(list)},
    }
    return SimpleNamespace(**{**common, **options})


def inputs(batch: TensorDict, **more: Any) -> dict[str, Any]:
    return {
        "input_ids": batch["tokens"],
        "attention_mask": torch.arange(WIDTH) < batch["length"][:, None],
        "completion_mask": batch["mask"].long(),
        **more,
    }


def dpo_loss(policy: Given, batch: TensorDict, loss_type: str, beta: float) -> torch.Tensor:
    """TRL has the chosen answers first, then the rejected ones."""
    order = torch.cat([batch["chosen"].nonzero()[:, 0], (~batch["chosen"]).nonzero()[:, 0]])
    theirs = batch[order]
    chosen, rejected = sums(theirs["ref_log_probs"], theirs).chunk(2)
    dpo = trainer(
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=0.0,
        use_weighting=False,
    )
    asked = inputs(theirs, ref_chosen_logps=chosen, ref_rejected_logps=rejected)
    loss: torch.Tensor = DPOTrainer._compute_loss(dpo, Forward(policy.log_probs[order], theirs["mask"]), asked, False)
    return loss


@seeds
@betas
def test_dpo(beta: float, seed: int) -> None:
    policy, batch = pairs(seed)
    same(DPOLoss(policy, beta=beta)(batch)["loss_dpo"], dpo_loss(policy, batch, "sigmoid", beta), policy)


@seeds
@betas
def test_ipo_per_token(beta: float, seed: int) -> None:
    policy, batch = pairs(seed)
    ours = IPOLoss(policy, tau=beta, average_tokens=True)(batch)["loss_ipo"]
    same(ours, dpo_loss(policy, batch, "ipo", beta), policy)


@seeds
@betas
def test_sppo_of_certain_winners_is_a_quarter_of_theirs(beta: float, seed: int) -> None:
    """Theirs lacks the factor one half, and sums over a pair."""
    policy, batch = pairs(seed)
    batch["win_rate"] = batch["chosen"].float()
    same(4 * SPPOLoss(policy, eta=1 / beta)(batch)["loss_sppo"], dpo_loss(policy, batch, "sppo_hard", beta), policy)


@seeds
@betas
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 0.7)])
def test_kto(weights: tuple[float, float], beta: float, seed: int) -> None:
    policy, batch = pairs(seed)
    rng = torch.Generator().manual_seed(seed)
    batch["desirable"] = torch.rand(len(batch), generator=rng) < 0.6
    mismatched, mismatched_reference = torch.randn(2, len(batch), generator=rng)
    batch["reference_point"] = reference_point(mismatched - mismatched_reference).expand(len(batch))
    ours = KTOLoss(policy, beta=beta, desirable_weight=weights[0], undesirable_weight=weights[1])(batch)["loss_kto"]
    kto = trainer(
        calculate_KL=True,
        _compute_kl_logps=lambda model, batch: mismatched,
        loss_type="kto",
        beta=beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
    )
    asked = inputs(
        batch,
        label=batch["desirable"],
        ref_logps=sums(batch["ref_log_probs"], batch),
        ref_KL_logps=mismatched_reference,
    )
    same(ours, KTOTrainer._compute_loss(kto, Forward(policy.log_probs, batch["mask"]), asked, False), policy)


@seeds
@betas
def test_orpos_odds_ratios(beta: float, seed: int) -> None:
    policy, batch = pairs(seed)
    mean = sums(policy.log_probs, batch) / batch["mask"].sum(1)
    orpo = SimpleNamespace(beta=beta, accelerator=ALONE)
    log_odds = ORPOTrainer.odds_ratio_loss(orpo, mean[batch["chosen"]], mean[~batch["chosen"]])[0]
    same(ORPOLoss(policy, beta=beta)(batch)["loss_odds_ratio"], -log_odds.mean(), policy)


@seeds
@pytest.mark.parametrize("center_coef", [0.0, 0.2])
@pytest.mark.parametrize("margins", [False, True])
def test_bradley_terry(margins: bool, center_coef: float, seed: int) -> None:
    policy, batch = pairs(seed)
    if margins:
        batch["margin"] = torch.rand(len(batch), generator=torch.Generator().manual_seed(seed))
    rewards = sums(policy.log_probs, batch)  # any function of the leaf will do

    class RewardModel(torch.nn.Module):
        def forward(self, batch: TensorDict) -> torch.Tensor:
            return rewards

    output = BradleyTerryLoss(RewardModel(), center_coef=center_coef)(batch)  # type: ignore[arg-type]
    ours = sum(value for key, value in output.items() if key.startswith("loss_"))
    reward = trainer(args=SimpleNamespace(center_rewards_coefficient=center_coef or None))
    chosen = batch["chosen"]
    asked = {"attention_mask": batch["mask"], **({"margin": batch["margin"][chosen]} if margins else {})}
    logits = torch.cat([rewards[chosen], rewards[~chosen]])[:, None]
    reward.model = type("Model", (), {"training": True, "__call__": lambda *a, **k: SimpleNamespace(logits=logits)})()
    same(ours, RewardTrainer.compute_loss(reward, reward.model, asked), policy)  # type: ignore[arg-type]
