"""The process that plays a taskset: ``python -m llmgym.envs.adapters.verifiers.worker NAME CONFIG``.

It plays episodes side by side in one event loop, in its main thread: math checkers set alarms, which other threads
cannot, and where they cannot, helpers of verifiers call every answer wrong. It reads and writes lines of JSON. It is
no sandbox.
"""

import asyncio
import contextlib
import contextvars
import functools
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from llmgym.envs.adapters.global_random import GlobalRandom, drawing_from
from llmgym.envs.splits import split_of
from llmgym.envs.waiting import awaited
from llmgym.errors import ConfigError, UnknownNameError

Json = dict[str, Any]

_random: contextvars.ContextVar[GlobalRandom] = contextvars.ContextVar("random")


async def serve(make_play: Callable[[int, Callable[[Json], None]], Any], tell: Callable[[Json], None]) -> None:
    """Play episodes until the standard input ends.

    Args:
        make_play: Returns the `Play` of a task, given its number and what to tell.
        tell: What news of episodes are told to.
    """
    loop = asyncio.get_running_loop()
    loop.set_task_factory(_with_own_random)
    plays: dict[int, tuple[Any, asyncio.Task[None]]] = {}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        number = order["episode"]
        if "task" in order:
            play = make_play(order["task"], functools.partial(_tell_of, number, tell))
            _random.set(GlobalRandom(order["seed"]))
            plays[number] = play, loop.create_task(play.run())
        elif "reply" in order:
            plays[number][0].reply(order["reply"])
        else:
            plays.pop(number)[1].cancel()


def _tell_of(number: int, tell: Callable[[Json], None], news: Json) -> None:
    tell({"episode": number, **news})


def _with_own_random(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
    """Make a task of an episode, or of what an episode starts: it draws from that episode's generators."""
    own = _random.get(None)
    return asyncio.Task(coroutine if own is None else awaited(drawing_from(own, coroutine)), loop=loop, **options)


def main(name: str, config: str) -> None:
    """Load a taskset, say which of its tasks belong to which split, and play them."""
    answers = sys.stdout

    def tell(news: Json) -> None:
        print(json.dumps(news), file=answers, flush=True)

    with contextlib.redirect_stdout(sys.stderr):  # packages print
        try:
            from llmgym.envs.adapters.verifiers.play import Play  # it prints, and what it raises is told
            from llmgym.envs.adapters.verifiers.tasks import load  # likewise

            env, tasks = load(name, json.loads(config))
        except (ConfigError, UnknownNameError) as error:
            tell({"refused": type(error).__name__, "message": str(error)})
            return
        tell({"splits": _splits(tasks)})
        asyncio.run(serve(lambda number, tell: Play(env, tasks[number], tell), tell))


def _splits(tasks: Sequence[Any]) -> dict[str, list[int]]:
    """Return the numbers of the tasks of each split; what a task is called does not count."""
    splits: dict[str, list[int]] = {"train": [], "eval": []}
    for number, task in enumerate(tasks):
        splits[split_of(task.data.model_dump_json(exclude={"idx", "id", "name"}))].append(number)
    return splits


if __name__ == "__main__":
    main(*sys.argv[1:])
