r"""DPO with a KL penalty; some texts call this KTO, which is another loss (`llmgym.learn.losses.kto`)."""

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from llmgym.learn.kl import kl_estimate
from llmgym.learn.losses.dpo import dpo_loss
from llmgym.learn.losses.pairs import PairLoss, answer_lengths, by_answer, log_ratios, reward_metrics
from llmgym.learn.policy import Policy


class KLDPOLoss(PairLoss):
    r"""DPO plus a penalty for leaving the reference, as a TorchRL module.

    .. math:: L = L_\mathrm{DPO} + \lambda\, \hat D_\mathrm{KL}(\pi \,\|\, \pi_\mathrm{ref}),\quad
              \hat D_\mathrm{KL} = \mathrm{mean}_t\ \tfrac{1}{2}
              \left(\log \frac{\pi(a_t)}{\pi_\mathrm{ref}(a_t)}\right)^2

    The divergence is estimated on the tokens of the pair's two answers, by k2: on samples of
    the policy its gradient is that of the divergence, and on any answers it is never
    negative and 0 only where the policy agrees with the reference. The estimate k1 would
    only make all answers less likely, and k3 grows exponentially for tokens that the
    policy unlearns, as DPO makes it do. See `llmgym.learn.kl`.

    Args:
        policy: What learns.
        beta: DPO's: how close the policy stays to the reference on the difference of the answers.
        kl_coef: :math:`\lambda`; 0 is DPO.

    The batch is that of `PairLoss`, with ``ref_log_probs`` [B, T]. The metrics are DPO's, and
    ``kl_to_ref``, the mean penalty in nats per token.
    """

    reads = (*PairLoss.reads, "ref_log_probs")

    def __init__(self, policy: Policy, *, beta: float = 0.1, kl_coef: float = 1.0) -> None:
        super().__init__(policy)
        self.beta = beta
        self.kl_coef = kl_coef

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Return ``loss_dpo`` and ``loss_kl_to_ref``, weighted sums over pairs, and the metrics."""
        log_probs = self.log_probs(tensordict)
        chosen, rejected = log_ratios(log_probs, tensordict)  # [P] each
        penalty = _mean_k2(log_probs, tensordict)  # [P]
        output = reward_metrics(self.beta * chosen, self.beta * rejected)
        output["kl_to_ref"] = penalty.detach().mean()
        output["loss_dpo"] = self.weigh(tensordict, dpo_loss(chosen, rejected, self.beta))
        return output.set("loss_kl_to_ref", self.kl_coef * self.weigh(tensordict, penalty))


def _mean_k2(log_probs: Tensor, batch: TensorDictBase) -> Tensor:
    """Return the mean estimate over the tokens of each pair's two answers.  [P]"""
    log_ratio = torch.where(batch["mask"], log_probs - batch["ref_log_probs"], 0.0)  # [B, T]
    (chosen, rejected), lengths = by_answer(kl_estimate(log_ratio, "k2").sum(dim=1), batch), answer_lengths(batch)
    return (chosen + rejected) / (lengths[0] + lengths[1]).clamp(min=1)
