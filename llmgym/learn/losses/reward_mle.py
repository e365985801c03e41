r"""Cross-entropy minus a reward; some texts call this ORPO, which is another loss (`llmgym.learn.losses.orpo`)."""

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from llmgym.learn.losses.pairs import PairLoss, answer_lengths, by_answer, reward_metrics
from llmgym.learn.policy import Policy


def expected_reward(
    chosen_log_prob: Tensor, rejected_log_prob: Tensor, chosen_reward: Tensor, rejected_reward: Tensor
) -> Tensor:
    r"""Return the reward that the policy can expect if it has to give one of a pair's two answers.

    .. math:: R = \frac{\pi(y_w|x)\, r_w + \pi(y_l|x)\, r_l}{\pi(y_w|x) + \pi(y_l|x)}

    (minimum risk training, Shen et al. 2016, arXiv:1512.02433, with minus the
    reward as the risk, and the pair as the candidates).

    Args:
        chosen_log_prob: Log-probability of the whole chosen answer.  [P]
        rejected_log_prob: The same of the rejected answer.  [P]
        chosen_reward: What the chosen answer is worth.  [P]
        rejected_reward: What the rejected answer is worth.  [P]

    Returns:
        Expected rewards.  [P]
    """
    preferred = torch.sigmoid(chosen_log_prob - rejected_log_prob)
    return preferred * chosen_reward + (1 - preferred) * rejected_reward


class RewardMLELoss(PairLoss):
    r"""Cross-entropy of the chosen answer minus the expected reward, as a TorchRL module.

    .. math:: L = -\frac{1}{|y_w|} \sum_t \log \pi(y_{w,t}) - \lambda R

    The reward of a text in a file is a number, which has no gradient. What depends on the
    policy is how much of it the policy can expect: `expected_reward`. It is bounded by the
    rewards, unlike a log-likelihood that is weighed by a negative reward. There is no reference.

    Args:
        policy: What learns.
        reward_coef: :math:`\lambda`; 0 is the likelihood of the chosen answers alone.

    The batch is that of `PairLoss`, with ``reward`` [B], that of the row's answer. The metrics
    take the log-probabilities of whole answers for rewards; ``expected_reward`` is R.
    """

    def __init__(self, policy: Policy, *, reward_coef: float = 1.0) -> None:
        super().__init__(policy)
        self.reward_coef = reward_coef

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Return ``loss_cross_entropy`` and ``loss_reward``, weighted sums over pairs, and the metrics."""
        chosen, rejected = by_answer(self.log_probs(tensordict).sum(dim=1), tensordict)  # [P] each
        rows = by_answer(torch.ones_like(tensordict["reward"]), tensordict)
        rewards = [of / n for of, n in zip(by_answer(tensordict["reward"], tensordict), rows, strict=True)]
        expected = expected_reward(chosen, rejected, *rewards)
        output = reward_metrics(chosen, rejected)
        output["expected_reward"] = expected.detach().mean()
        cross_entropy = -chosen / answer_lengths(tensordict)[0].clamp(min=1)
        output["loss_cross_entropy"] = self.weigh(tensordict, cross_entropy)
        return output.set("loss_reward", -self.reward_coef * self.weigh(tensordict, expected))
