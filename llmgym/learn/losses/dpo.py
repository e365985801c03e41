r"""DPO: Direct Preference Optimisation (Rafailov et al. 2023, arXiv:2305.18290)."""

from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.nn.functional import logsigmoid

from llmgym.learn.losses.pairs import PairLoss, log_ratios, reward_metrics
from llmgym.learn.policy import Policy


def dpo_loss(chosen_log_ratio: Tensor, rejected_log_ratio: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    r"""Return the loss of each pair (equation 7).

    .. math:: -\log \sigma\left(\beta \log \frac{\pi(y_w|x)}{\pi_\mathrm{ref}(y_w|x)}
              - \beta \log \frac{\pi(y_l|x)}{\pi_\mathrm{ref}(y_l|x)}\right)

    Args:
        chosen_log_ratio: Log-probability of the whole chosen answer under the policy, minus
            that under the reference.  [P]
        rejected_log_ratio: The same of the rejected answer.  [P]
        beta: How close the policy stays to the reference: the larger, the closer.
        label_smoothing: The share of pairs that are believed to be labelled the wrong way
            round: the loss is the mean over both ways (conservative DPO, Mitchell 2023).

    Returns:
        Losses.  [P]
    """
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


class DPOLoss(PairLoss):
    """`dpo_loss` as a TorchRL module.

    Args:
        policy: What learns.
        beta: How close the policy stays to the reference.
        label_smoothing: The share of pairs that are believed to be labelled the wrong way round.

    The batch is that of `PairLoss`, with ``ref_log_probs`` [B, T]. The metrics are about the
    implicit rewards, beta times the log-ratios.
    """

    reads = (*PairLoss.reads, "ref_log_probs")

    def __init__(self, policy: Policy, *, beta: float = 0.1, label_smoothing: float = 0.0) -> None:
        super().__init__(policy)
        self.beta = beta
        self.label_smoothing = label_smoothing

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Return ``loss_dpo``, the weighted sum over pairs, and the metrics."""
        chosen, rejected = log_ratios(self.log_probs(tensordict), tensordict)  # [P] each
        losses = dpo_loss(chosen, rejected, self.beta, self.label_smoothing)
        output = reward_metrics(self.beta * chosen, self.beta * rejected)
        return output.set("loss_dpo", self.weigh(tensordict, losses))
