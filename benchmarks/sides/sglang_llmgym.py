"""The same SGLang, asked through llmgym's engine protocol."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.sides.rollout import rollout
from benchmarks.sides.sglang_cpu import OPTIONS
from benchmarks.work import Work
from llmgym.engines.served.engine import ServedEngine
from llmgym.engines.sglang.in_process import InProcess


class Unending(InProcess):
    """Samples replies of just the length that is asked for."""

    async def answer(self, rid: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the engine."""
        options = {**payload["sampling_params"], "ignore_eos": True}
        return await super().answer(rid, {**payload, "sampling_params": options})


def load(model: str, dtype: str) -> Callable[[Work], list[list[list[int]]]]:
    """Start the engine and return its rollout."""
    worker = Unending(model, {"dtype": dtype, **OPTIONS})
    engine = ServedEngine([worker])

    def flushed(work: Work) -> list[list[list[int]]]:
        worker._engine.flush_cache()  # nothing is left of the repeat before
        return rollout(engine, work)

    return flushed
