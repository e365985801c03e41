"""The environment: a house, a goal, and a command per turn."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from llmgym.envs.house.commands import read_command
from llmgym.envs.house.layout import LEVELS, STATIONS, Layout, draw_layout
from llmgym.envs.house.plan import plan
from llmgym.envs.house.state import State
from llmgym.envs.splits import Split, check_difficulty_and_split, draw_in_split
from llmgym.envs.text_env import TextEnv
from llmgym.types import Episode, Outcome, Score

_HELP = (
    "Commands: go to ROOM, open THING, take FOOD, put FOOD on THING, wash FOOD, slice FOOD, heat FOOD, cool FOOD, "
    "look; or finish alone, which gives up."
)


class House(TextEnv):
    """Find food in a house, wash, slice, heat or cool it, and serve it: many turns, with credit for each step.

    The goal is such as ``Put the washed and sliced tomato and the heated potato on the desk.`` The agent sees the room
    that it is in, and what is in furniture that is open. A reply is one command per turn: ``go to kitchen``, ``open
    cupboard``, ``take potato``, ``heat potato``, ``put potato on desk``, ``look``. The agent may think aloud and use
    other words for the same (``pick up``, ``cook``, ``place``); the last command counts. It can hold one thing. Food
    is held while it is treated: washed at the sink, sliced at the chopping board, heated at the stove, cooled at the
    fridge, in whichever rooms these are. What is heated is no longer cooled, and the other way round. A command that
    cannot be carried out costs its turn and nothing else; the last ``info`` counts them as ``invalid``.

    Each dish is ``found`` when it is taken, treated in one or two ways (``treated``), and ``served`` when it has been
    put where the goal says with all of its treatments. Each of these steps earns the same reward at once, and only
    once; all of them together earn 1, and end the episode. What is served cannot be taken again. ``finish`` alone
    ends the episode with what was earned.

    | difficulty | rooms | kinds of food | dishes | treatments of a dish | turns |
    |---|---|---|---|---|---|
    | 0 | 4 | 4 | 1 | 1 | 30 |
    | 1 | 5 | 6 | 2 | 1 | 50 |
    | 2 | 7 | 9 | 3 | 1 or 2 | 75 |
    | 3 | 9 | 12 | 4 | 1 or 2 | 100 |

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no house with its goal belongs to both.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    def __init__(self, difficulty: int = 1, split: Split = "train", **options: Any) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, len(LEVELS), split)
        self.level = LEVELS[difficulty]
        self.split: Split = split
        self.max_turns = self.level.turns

    def begin(self) -> str:
        """Draw a house and a goal, and show the first room."""
        layout = draw_in_split(self._draw, self.np_random, self.split)
        self.episode.task = layout
        self.state = State(layout)
        return f"{layout.goal} You have {self.level.turns} turns. {_HELP}\n{self.state.view()}"

    def _draw(self, rng: np.random.Generator) -> Layout:
        return draw_layout(rng, self.level)

    def respond(self, action: str) -> Outcome:
        """Carry out the command that comes last in the reply, and pay for the steps that it takes."""
        command = read_command(action, self.state.names)
        if command is None:
            return Outcome(f"That is no command. {_HELP}\n{self.state.view()}", parts={"invalid": 1.0})
        if command.verb == "finish":
            return Outcome("You gave up.", over=True)
        before = set(self.state.reached)
        refusal = self.state.do(command)
        if refusal is not None:
            return Outcome(f"{refusal}\n{self.state.view()}", parts={"invalid": 1.0})
        share = 1 / len(self.state.sub_goals)
        taken = Counter(_part_of(step.name) for step in self.state.reached - before)
        parts = {name: taken[name] * share for name in ("found", "treated", "served")}
        said = "The meal is served." if self.state.done else self.state.view()
        return Outcome(said, sum(parts.values()), {**parts, "invalid": 0.0}, over=self.state.done)

    def score(self, episode: Episode) -> float:
        """Return nothing on top of what the steps earned."""
        return 0.0

    def succeeded(self, score: Score) -> bool:
        """Tell whether the whole meal was served, whatever scored it."""
        return self.state.done

    def expert(self) -> Iterator[str]:
        """Follow the shortest plan, as somebody does who knows where everything is."""
        yield from plan(self.episode.task)

    def mistake(self) -> Iterator[str]:
        """Follow the plan, but forget how one dish was to be treated, and finish."""
        layout: Layout = self.episode.task
        forgotten = str(self.np_random.choice(list(layout.dishes)))
        yield from (one for one in plan(layout) if not one.startswith(tuple(f"{how} {forgotten} " for how in STATIONS)))
        yield "finish"


def _part_of(step: str) -> str:
    return step if step in ("found", "served") else "treated"
