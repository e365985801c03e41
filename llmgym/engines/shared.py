"""`SharedEngine`: the embedded engine, which a second thread may give other weights between two of its steps."""

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from torch import Tensor

from llmgym.engines.base import Completion, GenerationRequest
from llmgym.engines.local.engine import LocalEngine


class SharedEngine:
    """An engine that goes on with other weights in the middle of replies.

    What was sampled stays as it is, and what was cached is computed again under the new weights. Each token has the
    version of the weights that sampled it, and its log-probability under them.

    Args:
        engine: Which nobody else uses.
    """

    counts_log_probs: Literal[True] = True
    changes_in_flight: Literal[True] = True

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._turn, self._step = threading.Lock(), threading.Lock()

    @contextlib.contextmanager
    def between_steps(self) -> Iterator[LocalEngine]:
        """Have the engine for oneself, with nothing under way; what was goes on afterwards."""
        with self._turn, self._step, self._engine.set_aside():  # who has the turn is the next to have the engine
            yield self._engine

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[LocalEngine]:
        """Have the engine for a step, after whoever asks for it between steps."""
        with self._turn:
            pass
        with self._step:
            yield self._engine

    @property
    def weight_version(self) -> int:
        """The version of the weights that sample now."""
        return self._engine.weight_version

    @property
    def context_length(self) -> int:
        """Tokens of prompt and reply together that fit."""
        return self._engine.context_length

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Take requests; see `LocalEngine.submit`."""
        with self._in_turn() as engine:
            engine.submit(requests)

    def wait(self) -> list[Completion]:
        """Decode until at least one request is finished; see `LocalEngine.wait`."""
        with self._in_turn() as engine:
            return engine.wait()

    def poll(self) -> list[Completion]:
        """Take a step; see `LocalEngine.poll`."""
        with self._in_turn() as engine:
            return engine.poll()

    def abort(self) -> None:
        """Drop every request and forget every episode."""
        with self._in_turn() as engine:
            engine.abort()

    def release(self, episode_ids: Iterable[int]) -> None:
        """Free the rows of episodes that are over."""
        with self._in_turn() as engine:
            engine.release(episode_ids)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Sample with other weights; see `LocalEngine.load_weights`."""
        with self.between_steps() as engine:
            engine.load_weights(weights, version)

    def close(self) -> None:
        """Give the cache back."""
        with self._in_turn() as engine:
            engine.close()
