"""Packages that draw from the global generators disturb nobody, and nobody disturbs them."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from llmgym.envs.adapters.global_random import GlobalRandom, drawing_from


def drawn(own: GlobalRandom) -> tuple[float, float]:
    with own:
        return random.random(), float(np.random.random())


def test_two_states_that_take_turns_draw_what_each_would_alone() -> None:
    alone = GlobalRandom(1)
    expected = [drawn(alone) for _ in range(3)]
    one, two = GlobalRandom(1), GlobalRandom(2)
    found = []
    for _ in range(3):
        found.append(drawn(one))
        drawn(two)
    assert found == expected


def test_the_global_generators_go_on_as_if_nothing_had_been_drawn() -> None:
    random.seed(3)
    np.random.seed(3)
    expected = [(random.random(), np.random.random()) for _ in range(2)]
    random.seed(3)
    np.random.seed(3)
    found = []
    for _ in range(2):
        found.append((random.random(), np.random.random()))
        drawn(GlobalRandom(0))
    assert found == expected


def test_they_do_so_after_an_exception() -> None:
    random.seed(3)
    before = random.getstate()
    try:
        with GlobalRandom(0):
            random.random()
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert random.getstate() == before


def test_threads_take_turns() -> None:
    alone = [[drawn(own) for _ in range(50)] for own in map(GlobalRandom, range(4))]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda own: [drawn(own) for _ in range(50)], map(GlobalRandom, range(4))))
    assert found == alone


async def drawing(count: int) -> list[float]:
    found = []
    for _ in range(count):
        found.append(random.random())
        await asyncio.sleep(0)
    return found


def test_coroutines_that_wait_for_each_other_draw_what_each_would_alone() -> None:
    async def side_by_side() -> list[list[float]]:
        return await asyncio.gather(*(drawing_from(GlobalRandom(seed), drawing(5)) for seed in range(3)))

    alone = [asyncio.run(drawing_from(GlobalRandom(seed), drawing(5))) for seed in range(3)]
    random.seed(3)
    assert asyncio.run(side_by_side()) == alone
    assert random.random() == random.Random(3).random()


def test_a_coroutine_that_draws_can_be_cancelled_and_clean_up() -> None:
    ended = []

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(random.random())

    async def cancelled() -> None:
        task = asyncio.create_task(drawing_from(GlobalRandom(1), waiting()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(cancelled())
    assert ended == [random.Random(1).random()]
