"""A taskset of several turns without an end, whose environment plays the user, and draws from the global generator."""

import itertools
import random
from collections.abc import Iterator

import verifiers.v1 as vf


class GuessData(vf.TaskData):
    number: int


class GuessTask(vf.Task[GuessData]):
    @vf.reward
    async def guessed(self, trace: vf.Trace) -> float:
        return float(trace.last_reply == str(self.data.number))

    @vf.reward(weight=-0.1)
    async def turns(self, trace: vf.Trace) -> float:
        return float(trace.num_turns - 1)

    @vf.metric
    async def noise(self, trace: vf.Trace) -> float:
        return random.random()

    @vf.stop
    async def gave_up(self, trace: vf.Trace) -> bool:
        return trace.last_reply == "I give up"


class GuessEnv(vf.SingleAgentEnv):
    async def run(self, task: GuessTask, agents: vf.Agents) -> None:
        async with agents.agent.interaction(task) as interaction:
            segment = await interaction.turn(f"Guess a number below 100. My mood is {random.random()}.")
            while not segment.terminated and segment.last_reply != str(task.data.number):
                guess = int(segment.last_reply[:3]) if segment.last_reply.isdecimal() else -1
                hint = "higher" if guess < task.data.number else "lower"
                segment = await interaction.turn([{"role": "user", "content": f"{hint}, mood {random.random()}"}])

    async def finalize(self, task: GuessTask, episode: vf.Episode) -> None:
        episode.traces[0].record_metric("finalized", 1.0)


class GuessTaskset(vf.Taskset[GuessTask, vf.TasksetConfig]):
    INFINITE = True

    def load(self) -> Iterator[GuessTask]:
        for number in itertools.count():
            yield GuessTask(GuessData(system_prompt="Say a number.", number=number * 37 % 100, name=f"guess#{number}"))


__all__ = ["GuessEnv", "GuessTaskset"]
