"""What the environment itself says of an episode, as a scorer: the whole of it, or a part."""

from typing import ClassVar

from llmgym.errors import did_you_mean
from llmgym.types import Episode, Score

_NONE = "the environment has not scored it"


def env(episode: Episode) -> Score:
    """Return the environment's own score, apart from rewards of turns, which count anyway."""
    return Score(None, error=_NONE) if episode.scored is None else Score(episode.scored.value)


class Part:
    """A part of the environment's own score.

    Args:
        name: The part, such as ``json_ok``.

    Example:
        >>> episode = Episode(scored=Score(0.3, {"json_ok": 1.0}))
        >>> Part("json_ok").score([episode])
        [Score(value=1.0, parts={}, error=None, rewards=None, kind='reward')]
    """

    per: ClassVar[str] = "episode"

    def __init__(self, name: str) -> None:
        self.part = name

    def score(self, episodes: list[Episode]) -> list[Score]:
        """Look the part up; the score is missing where the environment reports none."""
        return [self._of(episode.scored) for episode in episodes]

    def _of(self, scored: Score | None) -> Score:
        if scored is None:
            return Score(None, error=_NONE)
        if self.part not in scored.parts:
            known = f"{did_you_mean(self.part, scored.parts)} Parts: {', '.join(scored.parts) or 'none'}."
            return Score(None, error=f"the environment reports no part {self.part!r}.{known}")
        return Score(scored.parts[self.part])
