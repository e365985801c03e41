"""An environment with a tool: demonstrations teach a bundled model to call it, then GRPO teaches it to call it right.

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
        return float(episode.actions[-1] == str(multiply(*episode.task)))

    def expert(self) -> Iterator[llmgym.calls.ActionLike]:
        a, b = self.episode.task
        yield llmgym.ToolCall("multiply", {"a": a, "b": b})
        yield str(a * b)


OPTIONS = {"env": "Product-v0", "eval_episodes": 100, "max_tokens": 64}

if __name__ == "__main__":  # a larger model that was made for tools needs no demonstrations
    shown = SFT(**OPTIONS, model="tiny-tools", steps=80, examples=400, batch_size=8, learning_rate=1e-3).train()
    GRPO(**OPTIONS, model=shown.path / "checkpoint", steps=20, learning_rate=5e-4).train()
