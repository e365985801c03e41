"""An environment of a user's, which goes wrong on one seed, in the way that its argument names."""

import asyncio
import os
import re
import sys
import threading
import types
from typing import Any

import numpy as np
from faulty_calls import DISTURBS, ENDS, HANGS, RAISES

import llmgym
from llmgym.errors import InfrastructureError

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

    def close(self) -> None:
        """Close."""
        if hasattr(self, "number"):
            self.commit("close")

    def commit(self, method: str) -> None:
        """Commit the fault, if this is where."""
        if self._fault and method == self._method and self.np_random_seed == FAULTY_SEED:
            (HANGS | ENDS | RAISES | DISTURBS | {"loses_its_sandbox": loses_its_sandbox})[self._fault]()


def loses_its_sandbox() -> None:
    """Fail whatever the agent did."""
    raise InfrastructureError("the sandbox is gone")


@llmgym.register_env("FaultyJudged-v0")
class Judged(llmgym.TextEnv):
    """It has no score, and says what a success is by what it alone knows."""

    def __init__(self, leaves: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._leaves = leaves

    def begin(self) -> str:
        """Say a number."""
        self.number = int(self.np_random.integers(1000))
        self.episode.task = {"number": self.number}
        if self.np_random_seed == self._leaves:
            print(f"seed {self._leaves} leaves")  # noqa: T201  # it is kept
            os._exit(9)
        return str(self.number)

    def succeeded(self, score: llmgym.Score) -> bool:
        """Tell whether the number was even, and the score is above zero."""
        return score.value is not None and score.value > 0 and self.number % 2 == 0


class Leaving(llmgym.TextEnv):
    """It ends the process that makes it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        os._exit(3)


class Connected(llmgym.TextEnv):
    """It keeps something of the loop in which it began."""

    async def begin(self) -> str:
        """Begin something that goes on meanwhile."""
        self.number = asyncio.ensure_future(asyncio.sleep(0.01, 1.0))
        return "Wait."

    async def respond(self, action: str) -> None:
        """Wait for it."""
        self.worth = await self.number

    def score(self, episode: llmgym.Episode) -> float:
        """Return what came of it."""
        return self.worth


class Mapping(llmgym.TextEnv):
    """It reads a large file as memory."""

    def __init__(self, index: str, **options: Any) -> None:
        super().__init__(**options)
        self.index = np.memmap(index, dtype=np.uint8, mode="r")

    def begin(self) -> str:
        """Read something."""
        return str(self.index[-1])

    def score(self, episode: llmgym.Episode) -> float:
        """Pay for anything."""
        return 1.0


class Unsendable(Counting):
    """Its task is what no process can be given."""

    def begin(self) -> str:
        """Say a number."""
        said = super().begin()
        self.episode.task = threading.Lock()
        return said


class Patient(Counting):
    """It has a limit of its own."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.step_timeout = limit


class Flagged(Counting):
    """Its task holds several flags at once, which have no name together."""

    def begin(self) -> str:
        """Say a number."""
        said = super().begin()
        self.episode.task = {"flags": re.IGNORECASE | re.MULTILINE, "none": re.RegexFlag(0)}
        return said


class Unreadable(Counting):
    """Its task is of a class that only its own process can import."""

    def begin(self) -> str:
        """Say a number."""
        said = super().begin()
        module = types.ModuleType("only_here")
        exec("class Task: pass", vars(module))
        sys.modules["only_here"] = module
        self.episode.task = module.Task()
        return said


class Unreleasable(Counting):
    """It cannot give back what an episode holds."""

    def release_episode(self) -> None:
        """Fail where the episode was cut off."""
        if self.under_way and len(self.episode.turns) < 3:
            super().release_episode()
            raise OSError("gone")
        super().release_episode()
