"""An environment that rewards single replies, and PPO, which credits each reward to its own reply.

python examples/turn_rewards.py
"""

import llmgym
from llmgym.agents import PPO

CALLS = {"gateway": "checkout", "checkout": "payments", "payments": "database"}


@llmgym.register_env("CallChain-v0")
class CallChain(llmgym.TextEnv):
    """Name, one reply after the other, the service that the last one calls; a wrong name ends it."""

    system_prompt = "Calls: " + "; ".join(f"{caller} > {called}" for caller, called in CALLS.items())
    top_score = None

    def begin(self) -> str:
        self.service = str(self.np_random.choice(list(CALLS)))
        return f"Which service does {self.service} call? Answer with its name alone."

    def respond(self, action: str) -> llmgym.Outcome:
        if action.strip() != CALLS[self.service]:
            return llmgym.Outcome(f"No, it calls {CALLS[self.service]}.", parts={"right": 0.0}, over=True)
        self.service = action.strip()
        if self.service not in CALLS:
            return llmgym.Outcome("Right, and it calls none.", reward=1.0, parts={"right": 1.0}, over=True)
        return llmgym.Outcome(f"Right. And {self.service}?", reward=1.0, parts={"right": 1.0})

    def score(self, episode: llmgym.Episode) -> float:
        return 0.0  # on top of what the replies have earned


if __name__ == "__main__":
    PPO(env="CallChain-v0", steps=40, eval_episodes=200, max_tokens=16).train()
