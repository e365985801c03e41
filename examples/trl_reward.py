"""Rows in TRL's columns and a reward function written for TRL, both as they are.

python examples/trl_reward.py
"""

from llmgym.agents import GRPO

ROWS = [{"prompt": f"The cart counts {n} items, then one more. How many?", "solution": str(n + 1)} for n in range(40)]
"""Or a `datasets.Dataset`, or the path of a file."""


def reward(prompts: list[str], completions: list[str], solution: list[str], **kwargs: object) -> list[float | None]:
    """Pay for the number, and half of it for any number; say nothing of empty completions."""
    return [
        None if not said.strip() else float(right in said.split()) or 0.5 * any(map(str.isdigit, said))
        for said, right in zip(completions, solution, strict=True)
    ]


if __name__ == "__main__":
    GRPO(env="qa", data=ROWS, eval_share=0.2, scorer=reward, steps=2, max_tokens=32).train()
