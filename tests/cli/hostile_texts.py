"""An environment and a scorer of a user's whose every text would take a terminal over."""

from collections.abc import Iterator

from odd_texts import TAKES_OVER

import llmgym
from llmgym.agents import GRPO


@llmgym.register_env("HostileTexts-v0", max_episode_steps=3)
class HostileTexts(llmgym.TextEnv):
    """Ask something, and score some of the answers."""

    system_prompt = TAKES_OVER
    top_score = 1.0

    def __init__(self, fails: bool = False, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._fails = fails

    def begin(self) -> str:
        """Ask."""
        return f"{self.np_random_seed}? {TAKES_OVER}"

    def respond(self, action: str) -> llmgym.types.Outcome:
        """Answer, or fail."""
        if self._fails and (self.np_random_seed or 0) % 2:
            raise ValueError(TAKES_OVER)
        return llmgym.types.Outcome(f"Bye. {TAKES_OVER}", over=True)

    def score(self, episode: llmgym.Episode) -> llmgym.types.Score:
        """Score every second task."""
        if (self.np_random_seed or 0) % 2:
            return llmgym.types.Score(None, error=TAKES_OVER)
        length = len(episode.actions[-1]) % 7 / 7
        return llmgym.types.Score(length, {f"part {TAKES_OVER}": length, "success": float(length > 0.5)})

    def expert(self) -> Iterator[str]:
        """Reply."""
        yield TAKES_OVER


class Mine(GRPO):
    """GRPO by another name."""


def hostile_scorer(episode: llmgym.Episode) -> llmgym.types.Score:
    """Score nothing with few words, and all else at random."""
    length = len(episode.actions[-1]) % 5 / 5
    return llmgym.types.Score(length, {f"scored {TAKES_OVER}": length})
