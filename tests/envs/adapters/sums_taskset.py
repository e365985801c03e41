"""A taskset of one turn, as verifiers writes its own: an answer in a box, judged by the package's math checker."""

import random
from collections.abc import Iterator
from typing import Literal

import verifiers.v1 as vf


class SumsData(vf.TaskData):
    answer: str


class SumsTask(vf.Task[SumsData]):
    @vf.reward(weight=1.0)
    async def correct(self, trace: vf.Trace) -> float:
        return vf.verify_boxed_math_answer(trace.last_reply, self.data.answer)

    @vf.metric
    async def length(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply))


class SumsConfig(vf.TasksetConfig):
    num_tasks: int = 100
    split: Literal["train", "test"] = "train"


class SumsTaskset(vf.Taskset[SumsTask, SumsConfig]):
    def load(self) -> Iterator[SumsTask]:
        rng = random.Random(self.config.split)
        for _ in range(self.config.num_tasks):
            a, b = rng.randrange(1000), rng.randrange(1000)
            prompt = f"What is {a} + {b}?"
            yield SumsTask(SumsData(prompt=prompt, system_prompt="Answer in \\boxed{}.", answer=str(a + b)))


__all__ = ["SumsTaskset"]
