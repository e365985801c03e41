r"""SFT: supervised fine-tuning, what the other algorithms start from.

Makes the assistant's tokens in given conversations likelier, each with the same weight:

.. math::

    L = -\frac{1}{N} \sum_{i,t} \log \pi(a_{i,t})

where t runs over the tokens of all the assistant's replies in conversation i, end tokens
included; N is their number in the optimiser batch.

    python -m llmgym.agents.sft --data conversations.parquet
"""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from llmgym import learn
from llmgym.config.sections import OfflineConfig
from llmgym.data.demonstrations import Conversation, read_conversations
from llmgym.envs.splits import training_seeds
from llmgym.registry import make_env
from llmgym.rollout.demonstrate import demonstrate
from llmgym.train.agent import OfflineAgent, run_command

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.rollout.transcript import Scribe


class SFTConfig(OfflineConfig):
    """Fine-tune a language model on conversations: those of a file, or of the environment's expert."""

    usual_learning_rate: ClassVar[float] = 1e-5


class SFT(OfflineAgent):
    """Supervised fine-tuning; see the module for the equation."""

    name = "sft"
    config_class = SFTConfig
    config: SFTConfig

    def examples(self, skipped: list[str] | None = None) -> Sequence[Conversation]:
        """Return the conversations of ``data``, or ``examples`` conversations of the environment's expert."""
        data, task = self.config.data, self.config.environment
        if data.path is not None:
            return read_conversations(data.path, skipped)
        seeds = training_seeds(np.random.default_rng(self.config.run.seed), data.examples)
        played = demonstrate(make_env(task.required, **task.env_kwargs), seeds)
        return [Conversation(one.prompt, one.completion, one.tools) for one in played]

    def prepare(self, examples: Sequence[Conversation], writer: Scribe) -> TensorDict:
        """Collate the conversations; the mask covers the assistant's part."""
        return learn.collate([writer.write(one.prompt, one.completion, tools=one.tools) for one in examples])

    def loss(self, policy: learn.Policy) -> learn.SFTLoss:
        """Return the cross-entropy."""
        return learn.SFTLoss(policy)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.sft``."""
    return run_command(SFT, arguments)


if __name__ == "__main__":
    sys.exit(main())
