"""A new environment with its own scorer, and a few steps of training in it.

python examples/custom_env.py
"""

import llmgym
from llmgym.agents import GRPO

SERVICES = ("gateway", "checkout", "catalog", "payments", "database", "auth")


@llmgym.register_env("SlowestService-v0")
class SlowestService(llmgym.TextEnv):
    """Name the slowest of three services; a wrong answer may be mended once."""

    def begin(self) -> str:
        names = self.np_random.permutation(SERVICES)[:3]
        times = self.np_random.permutation([30, 90, 2400])
        self.episode.task = names[times.argmax()]
        shown = "\n".join(f"{name} {time} ms" for name, time in zip(names, times, strict=True))
        return f"{shown}\nWhich service is the slowest? Answer with its name alone."

    def respond(self, action: str) -> str | None:
        over = self.episode.task in action or len(self.episode.turns) == 2
        return None if over else "No. Which is it?"

    def score(self, episode: llmgym.Episode) -> dict[str, float]:
        last, attempts = episode.actions[-1].strip(), len(episode.turns)
        return {"named": 0.5 * (episode.task in last) / attempts, "alone": 0.5 * (episode.task == last) / attempts}


if __name__ == "__main__":
    GRPO(env="SlowestService-v0", steps=40, eval_episodes=200, max_tokens=48).train()
