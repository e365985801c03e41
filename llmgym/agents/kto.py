r"""KTO: Kahneman-Tversky Optimisation (Ethayarajh et al. 2024, arXiv:2402.01306).

Learns from single answers that were marked good or bad; no pairs are needed. The value of an
answer is measured from a reference point, and changes less and less far from it, as people
are known to judge gains and losses:

.. math::

    L = \begin{cases} \lambda_D (1 - \sigma(\beta (r - z_0))) & \text{if } y \text{ is desirable} \\
                      \lambda_U (1 - \sigma(\beta (z_0 - r))) & \text{if it is not} \end{cases}
    \qquad r = \log \frac{\pi(y|x)}{\pi_\mathrm{ref}(y|x)}

    z_0 = \max\left(0, \mathrm{mean}_i \log \frac{\pi(y_j|x_i)}{\pi_\mathrm{ref}(y_j|x_i)}\right)

with :math:`y_j` the answer to another prompt than :math:`x_i` in the same optimiser batch.

    python -m llmgym.agents.kto --data feedback.parquet
"""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from llmgym import learn
from llmgym.config.sections import Data, OfflineConfig
from llmgym.data.feedback import Feedback, feedback_of, read_feedback
from llmgym.data.preferences import generate_preferences
from llmgym.errors import DataError
from llmgym.train.agent import OfflineAgent, run_command

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.rollout.trajectory import Trajectory
    from llmgym.rollout.transcript import Scribe


class KTOConfig(OfflineConfig):
    """Train a language model with KTO on answers that were marked good or bad."""

    data: Data = Data(examples=2000, batch_size=64)  # answers, every other one of those made a mistake

    beta: Annotated[float, Field(gt=0)] = 0.1
    """How close the policy stays to the reference: the larger, the closer."""

    desirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of good answers. Times their number, it should be 1 to 1.33 times that of bad ones."""

    undesirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of bad answers."""


class KTO(OfflineAgent):
    """Kahneman-Tversky Optimisation; see the module for the equation."""

    name = "kto"
    config_class = KTOConfig
    config: KTOConfig

    needs_reference = True

    def examples(self, skipped: list[str] | None = None) -> Sequence[Feedback]:
        """Return the answers of ``data``; those of a pair are a good one and a bad one."""
        data, task = self.config.data, self.config.environment
        if data.path is not None:
            return read_feedback(data.path, skipped)
        pairs = generate_preferences(
            task.required, math.ceil(data.examples / 2), self.config.run.seed, **task.env_kwargs
        )
        return feedback_of(pairs)[: data.examples]

    def prepare(self, examples: Sequence[Feedback], writer: Scribe) -> TensorDict:
        """Collate the answers, and also each prompt with the next answer to another prompt."""
        batch = learn.collate([writer.write(one.prompt, one.completion, tools=one.tools) for one in examples])
        batch["desirable"] = batch["scored"].new_tensor([one.desirable for one in examples])[batch["episode"]]
        return batch.set_non_tensor("mismatched", list(_mismatched(examples, writer)))

    def complete(self, batch: TensorDict, learner: learn.Learner) -> None:
        """Measure z_0, once for the whole optimiser batch, however it is cut."""
        log_ratio = learner.reference.log_ratios(batch.pop("mismatched").data)  # [M]
        batch["reference_point"] = learn.reference_point(log_ratio).expand(len(batch))

    def loss(self, policy: learn.Policy) -> learn.KTOLoss:
        """Return the loss of answers by their distance from the reference point."""
        return learn.KTOLoss(
            policy,
            beta=self.config.beta,
            desirable_weight=self.config.desirable_weight,
            undesirable_weight=self.config.undesirable_weight,
        )


def _mismatched(examples: Sequence[Feedback], writer: Scribe) -> Iterator[Trajectory]:
    """Yield each prompt with the next answer to another one, as far as there is one and both fit the context."""
    for i, one in enumerate(examples):
        others = (other for other in [*examples[i + 1 :], *examples[:i]] if other.prompt != one.prompt)
        if (other := next(others, None)) is not None:
            with contextlib.suppress(DataError):  # too long together
                yield writer.write(one.prompt, other.completion, tools=one.tools)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.kto``."""
    return run_command(KTO, arguments)


if __name__ == "__main__":
    sys.exit(main())
