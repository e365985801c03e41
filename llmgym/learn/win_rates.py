r"""Win rates: how often a response beats the policy's other responses to the same prompt.

SPPO (arXiv:2405.00675, section 4.1) needs :math:`P(y \succ \pi_t \mid x)`, the probability that a
response beats one drawn from the policy, and estimates it by the K responses of a group:

.. math:: \hat P(y_i \succ \pi_t) = \frac{1}{K-1} \sum_{k \ne i} P(y_i \succ y_k)

The authors' code averages over all K, the response itself among them, with :math:`P(y_i \succ y_i) =
1/2`. Here it is left out. The siblings are independent draws from the policy, so their mean is an
unbiased estimate for this response; the response itself is not, and pulls the estimate to one half
by the factor :math:`(K-1)/K`. In a complete group this only amounts to another eta. If scores are
missing, the factor would differ from group to group, and siblings without a score would weaken the
targets of the others.
"""

import torch
from torch import Tensor

from llmgym.config.choices import Preference
from llmgym.learn.signal import rounding_of


def win_rates(score: Tensor, group: Tensor, scored: Tensor, preference: Preference = "strict") -> Tensor:
    """Return how often each response beats its scored siblings, on average.

    Args:
        score: Score of each response, as a floating-point number.  [E]
        group: The group of each response, as any integer.  [E]
        scored: Whether the response's score is there.  [E]
        preference: What a difference of scores says.

    Returns:
        Win rates in [0, 1], one half on average over a group; NaN for a response that has no
        score or no scored sibling.  [E]
    """
    rates = torch.full_like(score, torch.nan)
    for members in ((group == one) & scored for one in torch.unique(group[scored])):
        own = score[members]
        difference = own[:, None] - own  # [K, K]
        if preference == "logistic":
            wins = difference.sigmoid()
        else:
            tied = difference.abs() <= rounding_of(own.abs().amax())
            wins = (1 + difference.sign().masked_fill(tied, 0.0)) / 2  # against itself: one half
        rates[members] = (wins.sum(dim=1) - 0.5) / (len(own) - 1)  # 0 / 0 is NaN
    return rates


def is_clear(win_rate: Tensor, threshold: float) -> Tensor:
    """Tell whether a win rate is at least `threshold`, or at most its complement.

    Args:
        win_rate: As `win_rates` returns them.  [E]
        threshold: Between 0.5, which takes all, and 1, which takes those that beat all others or none.

    Returns:
        False where the win rate is NaN.  [E]
    """
    slack = 1e-6  # 2 of 3 siblings are not quite two thirds in floating point
    return (win_rate >= threshold - slack) | (win_rate <= 1 - threshold + slack)
