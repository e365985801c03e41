r"""ORPO: Odds Ratio Preference Optimisation (Hong et al. 2024, arXiv:2403.07691)."""

import math

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.nn.functional import logsigmoid

from llmgym.learn.losses.pairs import PairLoss, answer_lengths, by_answer, reward_metrics
from llmgym.learn.policy import Policy

_CERTAIN = -1e-7  # the log-probability beyond which odds would overflow in float32


def odds_ratio_loss(chosen_log_prob: Tensor, rejected_log_prob: Tensor) -> Tensor:
    r"""Return the odds ratio loss of each pair (equation 7).

    .. math:: -\log \sigma\left(\log \frac{\mathrm{odds}(y_w|x)}{\mathrm{odds}(y_l|x)}\right),\quad
              \mathrm{odds}(y|x) = \frac{P(y|x)}{1 - P(y|x)}

    Args:
        chosen_log_prob: :math:`\log P(y_w|x)`, the mean log-probability of the chosen answer's tokens.  [P]
        rejected_log_prob: The same of the rejected answer.  [P]

    Returns:
        Losses.  [P]
    """
    return -logsigmoid(_log_odds(chosen_log_prob) - _log_odds(rejected_log_prob))


class ORPOLoss(PairLoss):
    r"""Cross-entropy of the chosen answer plus the odds ratio loss, as a TorchRL module (equation 6).

    .. math:: L = -\log P(y_w|x) + \beta\, L_\mathrm{OR}

    P is the geometric mean of the probabilities of an answer's tokens. There is no reference.

    Args:
        policy: What learns.
        beta: Weight of the odds ratio loss; the paper's lambda.

    The batch is that of `PairLoss`. A pair of which one answer has no tokens has no odds
    ratio: its loss is the cross-entropy alone. The metrics take beta times log P for rewards.
    """

    def __init__(self, policy: Policy, *, beta: float = 0.1) -> None:
        super().__init__(policy)
        self.beta = beta

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Return ``loss_cross_entropy`` and ``loss_odds_ratio``, weighted sums over pairs, and the metrics."""
        sums = by_answer(self.log_probs(tensordict).sum(dim=1), tensordict)
        lengths = answer_lengths(tensordict)
        chosen, rejected = (of / length.clamp(min=1) for of, length in zip(sums, lengths, strict=True))  # [P] each
        both = (lengths[0] > 0) & (lengths[1] > 0)
        odds = torch.where(both, odds_ratio_loss(chosen, rejected), 0.0)
        output = reward_metrics(self.beta * chosen, self.beta * rejected)
        output["loss_cross_entropy"] = self.weigh(tensordict, -chosen)
        return output.set("loss_odds_ratio", self.beta * self.weigh(tensordict, odds))


def _log_odds(log_prob: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of log p, in the form that is accurate on either side of one half."""
    log_prob = log_prob.clamp(max=_CERTAIN)
    likely = log_prob > -math.log(2)
    # The branch not taken gets a harmless value, because an infinite gradient times 0 is NaN.
    near_1 = torch.log(-torch.expm1(torch.where(likely, log_prob, -1.0)))
    near_0 = torch.log1p(-torch.exp(torch.where(likely, -1.0, log_prob)))
    return log_prob - torch.where(likely, near_1, near_0)
