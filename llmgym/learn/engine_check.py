"""Whether an engine samples with the learner's weights: its log-probabilities tell."""

import torch
from tensordict import TensorDict

from llmgym.errors import EngineError
from llmgym.learn.policy import Policy


@torch.no_grad()
def check_log_probs(policy: Policy, batch: TensorDict, bound: float) -> None:
    """Compare a batch's log-probabilities, which are the engine's, with the learner's.

    Args:
        policy: The learner, with the weights that the batch was sampled with.
        batch: As `collate` returns it: ``tokens``, ``mask`` and ``log_probs`` [B, T] among others.
        bound: Nats that they may differ by, as a mean of absolute differences over sampled tokens.

    Raises:
        EngineError: They differ by more.
    """
    differences = (policy.log_probs(batch) - batch["log_probs"]).abs()[batch["mask"]]
    mean = float(differences.mean()) if len(differences) else 0.0
    if mean > bound:
        raise EngineError(
            f"Expected log-probabilities within {bound} nats of the learner's (engine_check), but the engine's differ "
            f"by {mean:.4f} on average and {float(differences.max()):.4f} at the most: it samples with other weights, "
            "another precision or another distribution."
        )
