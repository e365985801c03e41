"""Scorers in worker processes: episodes per second beside scoring in process, and how late calls that hang are ended.

``python -m benchmarks.scorer_workers`` scores with a trivial function in this process and in two workers, in turns, and
then has calls hang while both processors are busy with something else.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence

from llmgym import Episode, FunctionScorer, Score
from llmgym.envs.waiting import settled
from llmgym.scorers import ask, isolated
from llmgym.scorers.asking import AnyScorer
from llmgym.types import Turn

EPISODES = 3000
ROUNDS = 7
HANGING = 1000
LIMIT = 0.2


def length(episode: Episode) -> float:
    """Score an episode by the length of its reply."""
    return float(len(episode.actions[-1]))


def hangs(episode: Episode) -> float:
    """Never return where the task says so."""
    while episode.task["hangs"]:
        pass
    return 1.0


def episodes(count: int, **task: object) -> list[Episode]:
    """Return finished episodes of two turns."""
    return [Episode("Be brief.", [Turn("Why?", "Let me see."), Turn("So?", "auth")], task) for _ in range(count)]


def seconds(call: Callable[[], Sequence[Score]], expected: float) -> float:
    """Return how long a call takes, after checking what it returns."""
    begun = time.perf_counter()
    scores = call()
    took = time.perf_counter() - begun
    assert all(score.value == expected for score in scores), "every score is there and right"
    return took


def scored(scorer: AnyScorer, batch: Sequence[Episode]) -> list[Score]:
    """Have episodes scored as a rollout does."""
    scores: list[Score] = settled(ask(scorer, batch, range(len(batch))))
    return scores


def spin() -> None:
    """Keep a processor busy."""
    while True:
        pass


def main() -> None:
    """Measure and print."""
    here, batch = FunctionScorer(length), episodes(EPISODES, answer="auth")
    there = isolated(here, workers=2, timeout=60.0)
    scored(there, batch[:100])
    direct, pooled = [], []
    for _ in range(ROUNDS):
        direct.append(seconds(lambda: scored(here, batch), 4.0))
        pooled.append(seconds(lambda: scored(there, batch), 4.0))
    rates = [EPISODES / statistics.median(times) for times in (direct, pooled)]
    print(f"in process {rates[0]:,.0f} episodes/s, in 2 workers {rates[1]:,.0f}: {rates[0] / rates[1]:.1f} times less")

    busy = [multiprocessing.Process(target=spin, daemon=True) for _ in range(2)]
    for process in busy:
        process.start()
    slow = isolated(FunctionScorer(hangs), workers=2, timeout=LIMIT)
    late = []
    for nth in range(HANGING):
        begun = time.perf_counter()
        (missing,) = scored(slow, episodes(1, hangs=True))
        late.append(time.perf_counter() - begun - LIMIT)
        assert missing.value is None
        assert nth % 10 or scored(slow, episodes(1, hangs=False))[0].value == 1.0, "later scores are right"
    for process in busy:
        process.kill()
    late.sort()
    print(
        f"{HANGING} calls that hang, both processors busy: ended {1000 * late[HANGING // 2]:.0f} ms (median), "
        f"{1000 * late[HANGING * 99 // 100]:.0f} ms (99th percentile), {1000 * late[-1]:.0f} ms (latest) after their "
        "limit"
    )


if __name__ == "__main__":
    main()
