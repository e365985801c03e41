r"""IPO: Identity Preference Optimisation (Azar et al. 2023, arXiv:2310.12036)."""

from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from llmgym.learn.losses.pairs import PairLoss, answer_lengths, log_ratios, reward_metrics
from llmgym.learn.policy import Policy


def ipo_loss(chosen_log_ratio: Tensor, rejected_log_ratio: Tensor, tau: float) -> Tensor:
    r"""Return the loss of each pair (equation 17).

    .. math:: \left(\log \frac{\pi(y_w|x)\, \pi_\mathrm{ref}(y_l|x)}{\pi(y_l|x)\, \pi_\mathrm{ref}(y_w|x)}
              - \frac{1}{2\tau}\right)^2

    Where DPO would part the answers ever further, this stops at :math:`1 / 2\tau` nats.

    Args:
        chosen_log_ratio: Log-probability of the whole chosen answer under the policy, minus
            that under the reference.  [P]
        rejected_log_ratio: The same of the rejected answer.  [P]
        tau: How close the policy stays to the reference: the larger, the closer.

    Returns:
        Losses.  [P]
    """
    return (chosen_log_ratio - rejected_log_ratio - 1 / (2 * tau)) ** 2


class IPOLoss(PairLoss):
    """`ipo_loss` as a TorchRL module.

    Args:
        policy: What learns.
        tau: How close the policy stays to the reference.
        average_tokens: Divide each answer's log-ratio by its number of tokens, as TRL does;
            `tau` is then in nats per token. The paper's equation has whole answers.

    The batch is that of `PairLoss`, with ``ref_log_probs`` [B, T]. The metrics are about the
    implicit rewards, `tau` times the log-ratios.
    """

    reads = (*PairLoss.reads, "ref_log_probs")

    def __init__(self, policy: Policy, *, tau: float = 0.1, average_tokens: bool = False) -> None:
        super().__init__(policy)
        self.tau = tau
        self.average_tokens = average_tokens

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Return ``loss_ipo``, the weighted sum over pairs, and the metrics."""
        chosen, rejected = log_ratios(self.log_probs(tensordict), tensordict)  # [P] each
        if self.average_tokens:
            lengths = answer_lengths(tensordict)
            chosen, rejected = chosen / lengths[0].clamp(min=1), rejected / lengths[1].clamp(min=1)
        output = reward_metrics(self.tau * chosen, self.tau * rejected)
        return output.set("loss_ipo", self.weigh(tensordict, ipo_loss(chosen, rejected, self.tau)))
