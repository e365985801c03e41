"""An environment that rewards single replies, and PPO, which credits each reward to its own reply.

python examples/turn_rewards.py
"""

import llmgym
from llmgym.agents import PPO

MOVES = {"J": "check", "Q": "check", "K": "bet"}


@llmgym.register_env("ThreeHands-v0")
class ThreeHands(llmgym.TextEnv):
    """Bet on a king and check on a lower card, in three hands; each right move earns 1 at once."""

    max_turns, top_score = 3, 3.0

    def begin(self) -> str:
        return self.deal()

    def respond(self, action: str) -> llmgym.Outcome:
        right = float(action == MOVES[self.card])
        return llmgym.Outcome(f"{'Right' if right else 'Wrong'}. {self.deal()}", reward=right, parts={"right": right})

    def deal(self) -> str:
        self.card = str(self.np_random.choice(list(MOVES)))
        return f"You hold {self.card}. Reply with check or bet."

    def score(self, episode: llmgym.Episode) -> float:
        return 0.0  # on top of what the replies have earned


if __name__ == "__main__":
    PPO(env="ThreeHands-v0", model="tiny-tools", steps=12, eval_episodes=200, max_tokens=16).train()
