"""An environment of Gymnasium's own, played in words: a frozen lake with a new map for every seed.

python examples/gymnasium_text.py
"""

import gymnasium
from gymnasium.envs.toy_text.frozen_lake import generate_random_map

import llmgym
from llmgym.agents import GRPO
from llmgym.envs.tabular import shortest_plan

ACTIONS = {"left": 0, "down": 1, "right": 2, "up": 3}


@llmgym.register_env("FrozenLakeText-v0")
class FrozenLakeText(llmgym.TextWrapper):
    """FrozenLake-v1, whose own map is the same for every seed."""

    def __init__(self, **options):
        rules = "You (A) are on a frozen lake. Reach G, avoid holes (H). Reply with left, down, right or up."
        super().__init__(self.make, self.draw, ACTIONS, rules=rules, max_turns=20, top_score=1.0, **options)

    def make(self, rng):
        desc = generate_random_map(size=4, seed=int(rng.integers(2**31)))
        return gymnasium.make("FrozenLake-v1", desc=desc, is_slippery=False)

    def draw(self, env, state):
        cells = env.unwrapped.desc.astype(str)
        cells[divmod(state, 4)] = "A"
        return "\n".join(" ".join(row) for row in cells)

    def expert(self):
        yield from (list(ACTIONS)[action] for action in shortest_plan(self.inner))


if __name__ == "__main__":
    GRPO(env="FrozenLakeText-v0", steps=20, eval_episodes=50, max_tokens=16).train()
