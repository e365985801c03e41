"""`Limits`: how long, how often and how much, whatever a server does."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from llmgym.engines.served.dialect import TransientError

T = TypeVar("T")

_chance = random.Random()  # nobody else's stream


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server may take. Times are in seconds.

    Attributes:
        answer: For a reply, and for new weights.
        call: For any other call that is waited for, such as what it says about itself.
        farewell: For calls that a run that ends makes, or one whose requests are dropped.
        health: For a look at its health; longer than servers try it themselves.
        health_every: Between two looks.
        health_misses: Looks in a row that find it unwell, and it counts as lost.
        attempts: Times that a request is sent, besides those that a lost server had.
        call_attempts: Times that a call is made whose answer says what the server is.
        first_pause: Before something is tried again; each further pause is twice as long.
        longest_pause: At most, also if a server asks for more.
        faults: Faulty answers in a row, and a server counts as lost.
        answer_bytes: Of an answer.
    """

    answer: float = 1800.0
    call: float = 120.0
    farewell: float = 2.0
    health: float = 30.0
    health_every: float = 10.0
    health_misses: int = 3
    attempts: int = 10
    call_attempts: int = 4
    first_pause: float = 0.5
    longest_pause: float = 60.0
    faults: int = 16
    answer_bytes: int = 2**24

    async def pause(self, attempt: int, wished: float | None = None) -> None:
        """Wait before another attempt: longer each time, with chance in it, and as long as a server wishes.

        Args:
            attempt: The one that failed, from 1.
            wished: Seconds that the server asked for, if it did.
        """
        growing = self.first_pause * 2.0 ** min(attempt - 1, 30)
        seconds = min(max(growing, wished or 0.0), self.longest_pause)
        await asyncio.sleep(seconds * _chance.uniform(1.0, 1.25))  # so that not all come back at once

    async def patiently(self, make: Callable[[], Awaitable[T]]) -> T:
        """Make a call again if it comes to nothing, `call_attempts` times in all.

        Raises:
            TransientError: It came to nothing every time.
        """
        attempt = 1
        while True:
            try:
                return await make()
            except TransientError as error:
                if attempt >= self.call_attempts:
                    raise
                await self.pause(attempt, error.retry_after)
                attempt += 1
