"""A new environment with its own scorer, and a few steps of training in it.

python examples/custom_env.py
"""

import llmgym
from llmgym.agents import GRPO

MOVES = {"J": "check", "Q": "check", "K": "bet"}


@llmgym.register_env("HighCard-v0")
class HighCard(llmgym.TextEnv):
    """Bet on a king and check on a lower card; a wrong move may be mended once."""

    def begin(self) -> str:
        card = str(self.np_random.choice(list(MOVES)))
        self.episode.task = MOVES[card]
        return f"You hold {card}. Reply with check or bet."

    def respond(self, action: str) -> str | None:
        over = action == self.episode.task or len(self.episode.turns) == 2
        return None if over else "No. Which is it?"

    def score(self, episode: llmgym.Episode) -> float:
        return float(episode.actions[-1] == episode.task) / len(episode.turns)


if __name__ == "__main__":
    GRPO(env="HighCard-v0", model="tiny-tools", steps=20, eval_episodes=200).train()
