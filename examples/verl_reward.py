"""A file in verl's columns and a reward function written for verl, both as they are.

python examples/verl_reward.py; with a file: --env qa --data FILE --scorer examples/verl_reward.py:compute_score
"""

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmgym.agents import GRPO


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> dict[str, float]:
    """Pay for the right name, and report how long the solution is."""
    return {"score": float(ground_truth in solution_str), "characters": len(solution_str)}


def write_rows(path: Path, count: int) -> None:
    """Write questions in verl's columns."""
    services = ("gateway", "checkout", "payments", "database")
    rows = [
        {
            "data_source": "slowest",
            "prompt": [{"role": "user", "content": f"{service} takes {100 + index} ms, others 20 ms. Which is slow?"}],
            "ability": "diagnosis",
            "reward_model": {"style": "rule", "ground_truth": service},
            "extra_info": {"split": "train", "index": index},
        }
        for index, service in zip(range(count), services * count, strict=False)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        write_rows(file := Path(directory) / "train.parquet", 40)
        GRPO(env="qa", data=file, eval_share=0.2, scorer=compute_score, steps=2, max_tokens=32).train()
