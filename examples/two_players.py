"""A game for two in which one policy plays both sides: each side gives a trajectory with a score of its own.

python examples/two_players.py
"""

import llmgym
from llmgym.agents import GRPO

CARDS = ["memory_leak", "disk_full", "bad_deploy", "pool_exhausted", "cpu_saturation"]


@llmgym.register_env("Duel-v0")
class Duel(llmgym.TextEnv):
    """Both players play a card, unseen; the stronger one wins, and who plays none has the weakest."""

    seats = ("learner", "learner")
    system_prompt = "Play one of these cards; each beats those before it: " + ", ".join(CARDS)
    top_score = None

    def begin(self) -> str:
        self.played = {}
        self.seat = int(self.np_random.integers(2))  # whose turn it is, who is told what is returned
        return "Your card?"

    def respond(self, action: str) -> str | llmgym.Outcome:
        strength = min((CARDS.index(card) + 1 for card in CARDS if card in action), default=0)
        self.played[self.seat] = strength
        self.seat = 1 - self.seat
        parts = {"strength": strength / len(CARDS)}
        return llmgym.Outcome("Your card?", parts=parts, over=len(self.played) == 2)

    def score(self, episode: llmgym.Episode) -> float:
        mine, other = self.played[episode.seat], self.played[1 - episode.seat]
        return 0.5 + 0.5 * ((mine > other) - (mine < other))


if __name__ == "__main__":
    GRPO(env="Duel-v0", steps=40, eval_episodes=200, max_tokens=24).train()
