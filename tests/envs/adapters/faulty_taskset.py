"""A taskset of one turn, whose tasks say what goes wrong in them."""

import asyncio
import sys
import time

import verifiers.v1 as vf

FAULTS = ["none", "raises", "nan", "exits", "hangs", "environment", "twice", "deadline", "image"]


class FaultyData(vf.TaskData):
    fault: str


class FaultyTask(vf.Task[FaultyData]):
    @vf.reward
    async def right(self, trace: vf.Trace) -> float:
        return 1.0

    @vf.reward
    async def faulty(self, trace: vf.Trace) -> float:
        fault = self.data.fault
        if fault == "raises":
            raise ZeroDivisionError("the judge is away")
        if fault == "exits":
            sys.exit(3)
        if fault == "hangs":
            time.sleep(60)
        if fault == "deadline":
            await asyncio.sleep(60)
        return float("nan") if fault == "nan" else 0.0


class FaultyEnv(vf.SingleAgentEnv):
    async def run(self, task: FaultyTask, agents: vf.Agents) -> None:
        await agents.agent.run(task)
        if task.data.fault == "environment":
            raise ZeroDivisionError("the game is broken")
        if task.data.fault == "twice":
            await agents.agent.run(task)


class FaultyTaskset(vf.Taskset[FaultyTask, vf.TasksetConfig]):
    def load(self) -> list[FaultyTask]:
        parts = [{"type": "image_url", "image_url": {"url": "data:,"}}]
        return [
            FaultyTask(
                FaultyData(
                    prompt=[{"role": "user", "content": parts if fault == "image" else f"Go, number {number}."}],
                    fault=fault,
                    timeout={"scoring": 0.1 if fault == "deadline" else None},
                )
            )
            for fault in FAULTS
            for number in range(9)
        ]


__all__ = ["FaultyEnv", "FaultyTaskset"]
