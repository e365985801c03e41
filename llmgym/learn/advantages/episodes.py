"""Advantages of episodes: what an episode earned, compared with its siblings or with the batch.

Every estimator maps, over the episodes of a batch,

- ``reward`` [E], the total reward of each;
- ``group`` [E], any integer: episodes of one group tried the same task;
- ``scored`` [E], whether the reward is there;
- ``length`` [E], how many tokens were sampled in it

to advantages [E]. An episode without a score has advantage 0 and no part in any mean or
deviation. A group in which fewer than two episodes are scored, or all earned the same up to rounding
(`llmgym.learn.signal`), says nothing about which of its episodes was better: its advantages are 0,
never the raw reward.
"""

import math
from collections.abc import Callable

from torch import Tensor

from llmgym.config.choices import Estimator
from llmgym.learn.signal import rounding_of


class _Groups:
    """Sums over the scored episodes of each group, in double precision: equal rewards must give equal means."""

    def __init__(self, reward: Tensor, group: Tensor, scored: Tensor) -> None:
        self.scored, self.reward = scored, reward.double().masked_fill(~scored, 0.0)
        self._member = group.unique(return_inverse=True)[1]  # type: ignore[no-untyped-call]  # [E], 0 to G-1
        self.count = self.sum(scored.double())
        self.mean = self.sum(self.reward) / self.count.clamp(min=1)
        self.centred = (self.reward - self.mean).masked_fill(~scored, 0.0)
        self.std = (self.sum(self.centred**2) / (self.count - 1).clamp(min=1)).sqrt()
        self.informative = scored & self._differ()

    def sum(self, values: Tensor) -> Tensor:
        """Return for each episode the sum over its group.  [E] -> [E]"""
        sums: Tensor = values.new_zeros(len(values)).index_add_(0, self._member, values)[self._member]
        return sums

    def _differ(self) -> Tensor:
        """Return for each episode whether the rewards of its group differ by more than rounding.  [E]"""
        largest = self._extreme(self.reward.abs().masked_fill(~self.scored, 0.0))
        spread = self._extreme(self.reward.masked_fill(~self.scored, -math.inf)) + self._extreme(
            (-self.reward).masked_fill(~self.scored, -math.inf)
        )
        return spread > rounding_of(largest)

    def _extreme(self, values: Tensor) -> Tensor:
        """Return for each episode the largest value in its group.  [E] -> [E]"""
        start = values.new_full((len(values),), -math.inf)
        return start.scatter_reduce(0, self._member, values, "amax")[self._member]

    def where_informative(self, advantage: Tensor, like: Tensor) -> Tensor:
        """Return an advantage as `like`'s type, 0 where the group carries no signal.  [E]"""
        return advantage.masked_fill(~self.informative, 0.0).to(like.dtype)


def group_std(reward: Tensor, group: Tensor, scored: Tensor, length: Tensor) -> Tensor:
    r"""Standardise within the group: GRPO (arXiv:2402.03300, section 4.1.2).

    .. math:: A_i = (r_i - \mathrm{mean}_g(r)) / \mathrm{std}_g(r)
    """
    groups = _Groups(reward, group, scored)
    return groups.where_informative(groups.centred / groups.std, reward)


def dr_grpo(reward: Tensor, group: Tensor, scored: Tensor, length: Tensor) -> Tensor:
    r"""Subtract the group's mean and do not divide: Dr. GRPO (arXiv:2503.20783).

    .. math:: A_i = r_i - \mathrm{mean}_g(r)

    The division makes tasks that are nearly always or nearly never solved count more.
    """
    groups = _Groups(reward, group, scored)
    return groups.where_informative(groups.centred, reward)


def rloo(reward: Tensor, group: Tensor, scored: Tensor, length: Tensor) -> Tensor:
    r"""Subtract the mean of the others, which leaves no bias: RLOO (arXiv:2402.14740).

    .. math:: A_i = r_i - \frac{1}{n-1} \sum_{j \ne i} r_j = \frac{n}{n-1} (r_i - \mathrm{mean}_g(r))
    """
    groups = _Groups(reward, group, scored)
    return groups.where_informative(groups.centred * groups.count / (groups.count - 1), reward)


def optimal_baseline(reward: Tensor, group: Tensor, scored: Tensor, length: Tensor) -> Tensor:
    r"""Subtract the mean weighted by length: the baseline of on-policy RL (OPO, arXiv:2505.23585).

    .. math:: A_i = r_i - \frac{\sum_{j \in g} l_j r_j}{\sum_{j \in g} l_j}

    It has the least variance if the gradients of tokens are orthogonal and of one size.
    """
    groups = _Groups(reward, group, scored)
    weight = length.double().masked_fill(~scored, 0.0)
    tokens = groups.sum(weight)
    baseline = groups.sum(weight * groups.reward) / tokens.clamp(min=1)
    return groups.where_informative((groups.reward - baseline).masked_fill(tokens == 0, 0.0), reward)


def batch_std(reward: Tensor, group: Tensor, scored: Tensor, length: Tensor) -> Tensor:
    r"""Subtract the group's mean and divide by the deviation of the batch's rewards (arXiv:2508.08221).

    .. math:: A_i = (r_i - \mathrm{mean}_g(r)) / \mathrm{std}_\mathrm{batch}(r)
    """
    groups = _Groups(reward, group, scored)
    _, std = _moments(groups.reward, scored.double())
    return groups.where_informative(groups.centred / std, reward)


def reinforce_plus_plus(reward: Tensor, group: Tensor, scored: Tensor, length: Tensor) -> Tensor:
    r"""Standardise over all sampled tokens of the batch, whatever the group: REINFORCE++ (arXiv:2501.03262).

    .. math:: A_i = (r_i - m) / s, \qquad m = \frac{\sum_j l_j r_j}{\sum_j l_j}, \qquad
        s^2 = \frac{\sum_j l_j (r_j - m)^2}{\sum_j l_j - 1}

    The whole batch is what an episode is compared with, so a group may have one member.
    """
    batch = _Groups(reward, group.new_zeros(len(group)), scored & (length > 0))  # one group
    standard = _standardised(batch.reward, length.double().masked_fill(~scored, 0.0))
    return batch.where_informative(standard, reward)


def reinforce_plus_plus_baseline(reward: Tensor, group: Tensor, scored: Tensor, length: Tensor) -> Tensor:
    r"""Subtract the group's mean, then standardise over all sampled tokens (REINFORCE++-baseline, arXiv:2501.03262).

    .. math:: A_i = (c_i - m) / s, \qquad c_i = r_i - \mathrm{mean}_g(r)

    with m and s as in `reinforce_plus_plus`, of c instead of r.
    """
    groups = _Groups(reward, group, scored)
    weight = length.double().masked_fill(~(scored & (groups.count > 1)), 0.0)
    return groups.where_informative(_standardised(groups.centred, weight), reward)


def _standardised(values: Tensor, weight: Tensor) -> Tensor:
    """Return values less their mean, by their deviation; 0 if that is 0.  [E], [E] -> [E]"""
    mean, std = _moments(values, weight)
    return ((values - mean) / std).masked_fill(std == 0, 0.0)


def _moments(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of values that count `weight` times each.  [E], [E] -> [], []"""
    total = weight.sum()
    mean = (weight * values).sum() / total.clamp(min=1)
    return mean, ((weight * (values - mean) ** 2).sum() / (total - 1).clamp(min=1)).sqrt()


ESTIMATORS: dict[Estimator, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "group_std": group_std,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "optimal_baseline": optimal_baseline,
    "batch_std": batch_std,
    "reinforce_plus_plus": reinforce_plus_plus,
    "reinforce_plus_plus_baseline": reinforce_plus_plus_baseline,
}
"""Every estimator by its name."""
