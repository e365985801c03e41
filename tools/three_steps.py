"""Three steps of six algorithms, to the bit: what a change that is meant to change nothing has to leave as it is.

    python -m tools.three_steps > before.json       # on the old commit
    python -m tools.three_steps --against before.json

Compare on one machine alone: another processor rounds otherwise.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from llmgym.agents import DPO, GRPO, OPO, PPO, SPPO, RewardModel  # the variable has to be set before torch is imported
from llmgym.report.metrics import varies
from llmgym.train.agent import Agent

ONLINE = {"prompts_per_step": 4, "group_size": 4, "max_tokens": 48, "eval_episodes": 8, "sample_every": 0}
RUNS: dict[str, tuple[type[Agent], dict[str, Any]]] = {
    "grpo": (GRPO, ONLINE | {"kl_coef": 0.05, "epochs": 2, "top_p": 0.95, "mismatch_correction": "truncate"}),
    "ppo": (PPO, ONLINE | {"kl_coef": 0.05, "kl_target": 0.1}),
    "opo": (OPO, ONLINE),
    "sppo": (SPPO, ONLINE),
    "dpo": (DPO, {"examples": 40, "batch_size": 8, "eval_episodes": 8, "sample_every": 0}),
    "reward_model": (RewardModel, {"examples": 40, "held_out": 10, "batch_size": 8}),
}


def take(directory: Path) -> dict[str, Any]:
    """Return what every run measured, evaluations included, and the hash of its checkpoint."""
    found: dict[str, Any] = {}
    for name, (agent_class, options) in RUNS.items():
        run = agent_class(output_dir=directory, **options).train(steps=3)
        weights = (run.path / "checkpoint" / "model.safetensors").read_bytes()
        found[name] = {
            "metrics": [{key: value for key, value in step.items() if not varies(key)} for step in run.metrics],
            "evaluations": json.loads((run.path / "evaluations.json").read_text()),
            "checkpoint": hashlib.sha256(weights).hexdigest(),
        }
    return found


def main() -> int:
    """Print what was found, or what differs from an earlier finding; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="what an earlier commit printed, to compare with")
    arguments = parser.parse_args()
    output, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as directory:
        found = json.loads(json.dumps(take(Path(directory))))  # as a file has it
    if arguments.against is None:
        print(json.dumps(found, indent=1), file=output)
        return 0
    expected = json.loads(arguments.against.read_text())
    same = True
    for name in RUNS:
        for what in ("metrics", "evaluations", "checkpoint"):
            equal = json.dumps(found[name][what], sort_keys=True) == json.dumps(expected[name][what], sort_keys=True)
            print(f"{name}: {what} {'equal' if equal else 'DIFFERENT'}", file=output)
            same &= equal
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
