"""A check, from its log-probabilities, that an engine samples with the learner's weights."""

from tensordict import TensorDict
from torch import Tensor

from llmgym.errors import EngineError


def check_log_probs(log_probs: Tensor, batch: TensorDict, bound: float) -> None:
    """Compare a batch's log-probabilities, which are the engine's, with the learner's.

    Rows that no engine sampled, such as demonstrations, have none and are left out.

    Args:
        log_probs: The learner's, with the weights that the batch was sampled with.  [B, T]
        batch: ``mask`` and ``log_probs`` [B, T], the engine's, as `collate` returns them.
        bound: Nats that they may differ by, as a mean of absolute differences over sampled tokens.

    Raises:
        EngineError: They differ by more.
    """
    sampled = batch["mask"] & ~(batch["log_probs"].isnan() | ~batch["mask"]).all(dim=1, keepdim=True)
    differences = (log_probs - batch["log_probs"]).abs()[sampled]
    mean = float(differences.mean()) if len(differences) else 0.0
    if not mean <= bound:
        raise EngineError(
            f"Expected log-probabilities within {bound} nats of the learner's (engine_check), but the engine's differ "
            f"by {mean:.4f} on average and {float(differences.max()):.4f} at most: it samples with other weights, "
            "another precision or another distribution."
        )
