"""`Finding`: something that should not be so, with what it takes to see it again."""

from dataclasses import dataclass
from typing import Literal

FindingKind = Literal[
    "expert", "mistake", "raises", "hangs", "no_score", "speechless",
    "above_top", "undeserved", "constant", "beats_mistake", "repetition", "hedging", "fooled",
    "seeds", "random", "leak", "shared",
]  # fmt: skip
"""What is wrong.

- ``expert``: the expert does not earn the top score. ``mistake``: the environment's own mistake does.
- ``raises``, ``hangs``, ``no_score``: a reply makes the environment fail, or leaves the episode without a score.
- ``speechless``: the expert or the mistake runs out of replies before the episode is over.
- ``above_top``: an episode earns more than the top score.
- ``undeserved``: replies that know nothing of the task earn the top, more often than by luck.
- ``constant``: one reply is right for nearly all tasks.
- ``beats_mistake``: replies that know nothing earn more than a plausible mistake.
- ``repetition``: the answer twice, or padded, earns more than the answer.
- ``hedging``: a list of all answers earns more than one of them.
- ``fooled``: a trick that is known to work with judges earns at least half of what a judge can give.
- ``seeds``: all seeds give the same task. ``random``: a seed gives different episodes, by a global generator.
- ``leak``: an episode depends on earlier ones. ``shared``: environments that play at the same time disturb one another.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: Which of the things that are looked for.
        sentence: What is wrong, for people.
        probe: Who played; None where it is no matter of rewards.
        seed: A task that shows it.
        replies: What was said there.
    """

    kind: FindingKind
    sentence: str
    probe: str | None
    seed: int
    replies: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The seed and the replies on one line; long ones are shortened."""
        return (
            f"seed {self.seed}, replies: "
            + ", ".join(map(_short, self.replies[:3]))
            + ", ..." * (len(self.replies) > 3)
        )


def _short(reply: str, most: int = 120) -> str:
    return repr(reply) if len(reply) <= most else f"{reply[:most]!r}... ({len(reply):,} characters)"
