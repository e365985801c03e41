"""How many steps per second environments take side by side: `TextVectorEnv`, Gymnasium's `SyncVectorEnv`, GEM.

``benchmarks/.peers/gem/bin/python -m benchmarks.vector_env``: one process on one thread, for all sides have the same
environment: it says what it is told, and is over after eight turns.
"""

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import llmgym
from benchmarks.results import Claim, claim_table, processor

WIDTH, TURNS = 64, 8
REPLIES = ["I have read it."] * WIDTH


class Echo:
    """Says what it is told, eight times; Gymnasium's protocol and GEM's are the same here."""

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Say nothing."""
        self.turns = 0
        return "", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Say the same."""
        self.turns += 1
        return action, 0.0, self.turns == TURNS, False, {}


class GymnasiumEcho(Echo, gymnasium.Env[str, str]):
    """Echo for Gymnasium, and so for llmgym."""

    observation_space = action_space = llmgym.UnicodeText()


class TextEcho(llmgym.TextEnv):
    """Echo as a `TextEnv`, which also keeps the conversation and scores it."""

    def begin(self) -> str:
        """Say nothing."""
        return ""

    def respond(self, action: str) -> str | llmgym.Outcome:
        """Say the same."""
        return action if len(self.episode.turns) < TURNS else llmgym.Outcome(action, over=True)

    def score(self, episode: llmgym.Episode) -> float:
        """Give nothing."""
        return 0.0


def text_vector_env() -> Any:
    """Return llmgym's."""
    return llmgym.TextVectorEnv([GymnasiumEcho] * WIDTH)


def sync_vector_env() -> Any:
    """Return Gymnasium's, with the same autoreset mode."""
    return SyncVectorEnv([GymnasiumEcho] * WIDTH, autoreset_mode=AutoresetMode.SAME_STEP)


def gem_make_vec() -> Any:
    """Return GEM's, whose autoreset mode is the same."""
    import gem  # of the peer's environment

    class GemEcho(Echo, gem.Env):  # type: ignore[misc]
        """Echo for GEM."""

        def __init__(self, seed: int) -> None:
            """Ignore the seed, which `make_vec` gives to every environment."""

    gem.register("Echo-v0", GemEcho)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it makes
        return gem.make_vec(["Echo-v0"] * WIDTH)


def text_envs() -> Any:
    """Return llmgym's over a `TextEnv`."""
    return llmgym.TextVectorEnv([TextEcho] * WIDTH)


def text_envs_in_sync() -> Any:
    """Return Gymnasium's over a `TextEnv`."""
    return SyncVectorEnv([TextEcho] * WIDTH, autoreset_mode=AutoresetMode.SAME_STEP)


SIDES: dict[str, Callable[[], Any]] = {
    "TextVectorEnv": text_vector_env,
    "Gymnasium's SyncVectorEnv": sync_vector_env,
    "GEM's make_vec": gem_make_vec,
    "TextVectorEnv of a TextEnv": text_envs,
    "Gymnasium's SyncVectorEnv of a TextEnv": text_envs_in_sync,
}


def played(envs: Any, steps: int) -> list[Any]:
    """Step all environments, and return what they said and whether they were over."""
    envs.reset(seed=0)
    return [list(map(list, envs.step(REPLIES)[:3])) for _ in range(steps)]


def steps_per_second(envs: Any, steps: int) -> float:
    """Return how many steps of single environments a second of processor time has."""
    envs.reset(seed=0)
    begun = time.process_time()
    for _ in range(steps):
        envs.step(REPLIES)
    return WIDTH * steps / (time.process_time() - begun)


def measure(sides: Sequence[str], repeats: int, steps: int) -> dict[str, list[float]]:
    """Return the steps per second of every repeat; the sides take turns.

    Raises:
        RuntimeError: A side did not do what the first one did.
    """
    made = {side: SIDES[side]() for side in sides}
    expected = played(made[sides[0]], 3 * TURNS)
    for side, envs in made.items():
        if played(envs, 3 * TURNS) != expected:
            raise RuntimeError(f"{side} has other observations, rewards or endings than {sides[0]}.")
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, envs in made.items():
            found[side].append(steps_per_second(envs, steps))
    return found


def claims(found: dict[str, list[float]]) -> list[Claim]:
    """Return what the figures say of the promises."""
    ours, *others = list(SIDES)[:3]
    ratios = {
        other: statistics.median(a / b for a, b in zip(found[ours], found[other], strict=True))
        for other in others
        if other in found
    }
    return [
        Claim(f"steps per second of {ours}, in millions", 1.0, statistics.median(found[ours]) / 1e6, True),
        *(Claim(f"steps per second of {ours} by those of {name}", 1.7, ratio, True) for name, ratio in ratios.items()),
    ]


def table(found: dict[str, list[float]]) -> str:
    """Return the figures as Markdown."""
    lines = ["| side | steps/s | slowest and fastest repeat |", "|---|---|---|"]
    lines += [
        f"| {side} | {statistics.median(rates):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} |"
        for side, rates in found.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--steps", type=int, default=500, help=f"of {WIDTH} environments each, per repeat")
    parser.add_argument("--only", help="names of sides, with commas between them", default=",".join(SIDES))
    arguments = parser.parse_args()
    sides = arguments.only.split(",")
    if unknown := [side for side in sides if side not in SIDES]:
        parser.error(f"unknown side {unknown[0]!r}; the sides are {', '.join(SIDES)}")
    found = measure(sides, arguments.repeats, arguments.steps)
    repeats = f"medians of {arguments.repeats} interleaved repeats of {arguments.steps} steps, in processor time"
    print(f"{processor()}, one thread; {WIDTH} environments; {repeats}; gymnasium {gymnasium.__version__}.\n")
    print(table(found), claim_table(claims(found)), sep="\n\n")


if __name__ == "__main__":
    main()
