"""From preferences to a reward model, and from the reward model to a policy: no verifier takes part in training.

python examples/reward_model.py
"""

from pathlib import Path
from typing import Any

from llmgym.agents import OPO, RewardModel
from llmgym.data.preferences import generate_preferences, write_preferences
from llmgym.train import Result

PAIRS = Path("preferences.parquet")


def learn_rewards(pairs: int, **options: Any) -> Result:
    """Train a reward model on what the expert does and what is plausible but wrong."""
    write_preferences(PAIRS, generate_preferences("AIOpsTriage", pairs))
    return RewardModel(data=PAIRS, **options).train()


def learn_from_rewards(rewards: Result, **options: Any) -> Result:
    """Train a policy that only the reward model scores; the environment just reports what was right."""
    return OPO(env="AIOpsTriage", scorer=f"reward_model:{rewards.path / 'checkpoint'}", **options).train()


if __name__ == "__main__":
    learn_from_rewards(learn_rewards(pairs=6600))
