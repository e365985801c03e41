"""An environment of a user's, which goes wrong on one seed, in the way that its argument names."""

import threading
from typing import Any

from faulty_calls import DISTURBS, ENDS, HANGS, RAISES

import llmgym

FAULTY_SEED = 7


@llmgym.register_env("FaultyCounting-v0", max_episode_steps=5)
class Counting(llmgym.TextEnv):
    """Three turns; what it says depends on its seed and on what it is told."""

    max_turns = 3
    system_prompt = "Count."

    def __init__(self, fault: str | None = None, method: str = "respond", **options: Any) -> None:
        super().__init__(**options)
        self._fault, self._method = fault, method

    def begin(self) -> str:
        """Say a number."""
        self.number = int(self.np_random.integers(1000))
        self.episode.task = {"number": self.number}
        self.commit("begin")
        return f"{self.number}"

    def respond(self, action: str) -> llmgym.Outcome:
        """Say another one."""
        self.commit("respond")
        return llmgym.Outcome(f"{self.number + len(action)}", 0.25, {"seen": 1.0})

    def score(self, episode: llmgym.Episode) -> dict[str, float]:
        """Score what was said."""
        self.commit("score")
        return {"even": float(self.number % 2 == 0), "length": float(len(episode.actions[-1])) / 10}

    def commit(self, method: str) -> None:
        """Commit the fault, if this is where."""
        if self._fault and method == self._method and self.np_random_seed == FAULTY_SEED:
            (HANGS | ENDS | RAISES | DISTURBS)[self._fault]()


@llmgym.register_env("FaultyJudged-v0")
class Judged(llmgym.TextEnv):
    """It has no score, and says what a success is by what it alone knows."""

    def begin(self) -> str:
        """Say a number."""
        self.number = int(self.np_random.integers(1000))
        self.episode.task = {"number": self.number}
        return str(self.number)

    def succeeded(self, score: llmgym.Score) -> bool:
        """Tell whether the number was even, and the score is above zero."""
        return score.value is not None and score.value > 0 and self.number % 2 == 0


class Unsendable(Counting):
    """Its task is what no process can be given."""

    def begin(self) -> str:
        """Say a number."""
        said = super().begin()
        self.episode.task = threading.Lock()
        return said
