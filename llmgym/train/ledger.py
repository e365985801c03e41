"""What became of every episode of a step: it was trained on, or it was not, for one reason.

- *trained*: a token of it is in the loss.
- *masked*: it was to be trained on, and could not be. ``env_error``, ``env_timeout``: its environment failed.
  ``overlong``: its first observation leaves no room for a reply. ``context``, ``max_tokens``: it was cut off.
  ``no_score``: nobody could score it. ``no_turn``: its seat had no turn. ``filtered``: the algorithm takes no token of
  it.
- *dropped*: it was not to be trained on. ``no_signal``: the scores of its group do not differ, and another group was
  played in its place. ``surplus``: there are enough without it. ``unused``: the algorithm chose others, as those that
  learn from pairs do.

What is masked votes nowhere: not in baselines, deviations, win rates, losses, or what they are divided by.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from tensordict import TensorDict

from llmgym.errors import TrainingError
from llmgym.rollout.trajectory import Trajectory


def account(
    played: Sequence[Trajectory],
    kept: Sequence[Trajectory],
    batch: TensorDict | None,
    teaches: Callable[[Trajectory], bool],
) -> dict[str, float]:
    """Return metrics that say what became of a step's episodes.

    Args:
        played: All of them, numbered from 0 on.
        kept: Those that the algorithm was given.
        batch: What it made of them.
        teaches: Tells whether the group of an episode has something to teach.

    Returns:
        ``episodes/asked``, ``episodes/trained``, and ``episodes/masked/<reason>`` and ``episodes/dropped/<reason>`` for
        each reason that there is; ``untrained``, the share that was not trained on; ``episode_tokens`` and
        ``episode_tokens_trained``, the tokens sampled per episode, of all and of those that were trained on, since
        leaving out what is long or slow would teach to be short.

    Raises:
        TrainingError: An episode was lost, or counted twice.
    """
    in_batch = set[int]() if batch is None else set(batch["number"].tolist())
    in_loss = set[int]() if batch is None else set(batch["number"][batch["mask"].any(dim=1)].tolist())
    given = {trajectory.number for trajectory in kept}
    fates = Counter(
        "trained"
        if trajectory.number in in_loss
        else _masked(trajectory, trajectory.number in in_batch)
        if trajectory.number in given
        else f"dropped/{'surplus' if teaches(trajectory) else 'no_signal'}"
        for trajectory in played
    )
    if fates.total() != len({trajectory.number for trajectory in played}) or not in_loss <= {*range(-1, len(played))}:
        raise TrainingError(f"Of {len(played)} episodes some were lost or counted twice: {dict(fates)}. This is a bug.")
    trained = [trajectory.sampled_tokens for trajectory in played if trajectory.number in in_loss]
    sampled = [trajectory.sampled_tokens for trajectory in played]
    return {
        "episodes/asked": len(played),
        "episodes/trained": 0,
        **{f"episodes/{fate}": count for fate, count in sorted(fates.items())},
        "untrained": 1 - len(trained) / max(1, len(played)),
        "episode_tokens": sum(sampled) / max(1, len(sampled)),
        "episode_tokens_trained": sum(trained) / max(1, len(trained)),
    }


def _masked(trajectory: Trajectory, in_batch: bool) -> str:
    """Return why an episode that the algorithm was given is not in the loss."""
    if trajectory.overlong:
        return "masked/overlong"
    if not trajectory.replies and not trajectory.failed:
        return "masked/no_turn"
    if trajectory.score is not None:
        return "masked/filtered" if in_batch else "dropped/unused"
    ended = trajectory.ending in ("env_error", "env_timeout", "context", "max_tokens")
    return f"masked/{trajectory.ending if ended else 'no_score'}"
