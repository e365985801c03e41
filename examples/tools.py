"""An environment with a calculator: a model is shown how to call it, and then learns to do so rightly.

python examples/tools.py
"""

from collections.abc import Iterator

import llmgym
from llmgym.agents import GRPO, SFT


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


@llmgym.register_env("Product-v0")
class Product(llmgym.TextEnv):
    """Call the tool, then say what it answered."""

    tools, max_turns = (multiply,), 3

    def begin(self) -> str:
        a, b = self.episode.task = [int(number) for number in self.np_random.integers(2, 4, size=2)]
        return f"{a} x {b} = ?"

    def score(self, episode: llmgym.Episode) -> float:
        a, b = episode.task
        return float(episode.actions[-1] == str(a * b))

    def expert(self) -> Iterator[llmgym.calls.ActionLike]:
        a, b = self.episode.task
        yield llmgym.ToolCall("multiply", {"a": a, "b": b})
        yield str(a * b)


if __name__ == "__main__":
    shown = SFT(env="Product-v0", steps=60, examples=200, batch_size=8, learning_rate=2e-3, eval_episodes=0).train()
    GRPO(
        env="Product-v0", model=shown.path / "checkpoint", learning_rate=5e-4, max_tokens=48, eval_episodes=200
    ).train()
