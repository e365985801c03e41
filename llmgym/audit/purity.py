"""Whether an episode depends on its seed and its replies, and on nothing else."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from gymnasium.utils.env_checker import data_equivalence

from llmgym.audit.findings import Finding
from llmgym.audit.playing import Played, Stage, global_seeds
from llmgym.audit.probes import saying

_ADDRESS = re.compile(r"0x[0-9a-f]+")


def one_task(episodes: Sequence[Played]) -> Iterator[Finding]:
    """Yield a finding if all seeds give the same task: what is said of it, its answer, and what only its scorer knows.

    Args:
        episodes: One of each seed, by the expert if there is one.
    """
    tasks = {(one.transcript[:1], one.replies, _ADDRESS.sub("", repr(one.task))) for one in episodes}
    if len(episodes) > 1 and len(tasks) == 1:
        sentence = f"All of {len(episodes)} seeds give the same task: draw it from self.np_random."
        yield Finding("seeds", sentence, None, *_of(episodes[0]))


def impurities(stage: Stage, played: Sequence[Played]) -> Iterator[Finding]:
    """Yield what an episode depends on besides its seed and its replies; at most one finding of a kind.

    Args:
        stage: Where to play.
        played: Episodes that were played in new environments, with the global generators seeded with 0.
    """
    sound = [one for one in played if one.replies and one.failure not in ("raises", "hangs", "speechless")]
    for before in sound:
        with global_seeds(0):
            again = _replayed(stage, before)
        with global_seeds(1):
            otherwise = _replayed(stage, before)
        if not _equal(before, again):
            sentence = "depends on what was played before it, in another environment, or on a clock"
            yield Finding("leak", f"An episode {sentence}{_siblings(before, again)}.", None, *_of(before))
            return
        if not _equal(before, otherwise):
            sentence = "gives different episodes for the same replies: use self.np_random and no global generator"
            yield Finding("random", f"A seed {sentence}{_siblings(before, otherwise)}.", None, *_of(before))
            return
    yield from _leaks(stage, sound)
    yield from _shares(stage, sound)


def _leaks(stage: Stage, sound: Sequence[Played]) -> Iterator[Finding]:
    """An environment is used again after an episode that ended, and after one that was left."""
    with global_seeds(0):
        env = stage.fresh()
        for before, then in zip(sound, [*sound[1:], *sound[:1]], strict=True):
            stage.play(before.seed, saying(before.replies), env=env)
            stage.abandon(env, before.seed, saying(before.replies))
            after = stage.play(then.seed, saying(then.replies), env=env)
            if not _equal(then, after):
                sentence = "in an environment that was played in before differs from one in a new environment"
                yield Finding("leak", f"An episode {sentence}{_siblings(then, after)}.", None, *_of(then))
                return


def _shares(stage: Stage, sound: Sequence[Played]) -> Iterator[Finding]:
    if len(sound) < 2:
        return
    with global_seeds(0):
        side_by_side = stage.alternate([one.seed for one in sound], [saying(one.replies) for one in sound])
    for alone, beside in zip(sound, side_by_side, strict=True):
        if not _equal(alone, beside):
            sentence = "differs while other environments are played in: they share something, such as a class attribute"
            yield Finding("shared", f"An episode {sentence}.", None, *_of(alone))
            return


def _replayed(stage: Stage, played: Played) -> Played:
    return stage.play(played.seed, saying(played.replies), env=stage.fresh())


def _equal(first: Played, second: Played) -> bool:
    said = _without_costs(first.transcript), _without_costs(second.transcript)
    return data_equivalence(*said, exact=True) and first.failure == second.failure


def _without_costs(value: Any) -> Any:
    """Return what an environment returned without what a judge cost, which depends on what it was asked before."""
    if isinstance(value, tuple):
        return tuple(map(_without_costs, value))
    if isinstance(value, dict):
        return {key: one for key, one in value.items() if not str(key).startswith("judge/")}
    return value


def _siblings(first: Played, second: Played) -> str:
    return "" if first.transcript[:1] == second.transcript[:1] else "; siblings do not start equal"


def _of(played: Played) -> tuple[int, tuple[str, ...]]:
    return played.seed, played.replies
