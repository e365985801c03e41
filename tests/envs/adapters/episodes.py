"""Episodes of an environment by its seeds, in this process or in another one: what purity is measured by.

``python episodes.py NAME SEED...`` prints them, played in this order, as JSON.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmgym.envs.experts import has_expert
from llmgym.registry import make_env

REPLIES = ["[0]", "[1]", "look around", "[accept]", "<answer>7</answer>", "[4]"]
MOST_TURNS = 12


def episode(env: Any, seed: int) -> list[Any]:
    """Play the expert, where there is one, and then constant replies; return all that was seen."""
    inner = env.unwrapped
    seen: list[Any] = []
    for replies in ([inner.expert] if has_expert(inner) else []) + [lambda: REPLIES * MOST_TURNS]:
        seen.append(env.reset(seed=seed)[0])
        for reply in list(replies())[:MOST_TURNS]:
            seen.append([reply, *env.step(reply)])
            if seen[-1][3] or seen[-1][4]:
                break
    return seen


def episodes(name: str, seeds: Sequence[int]) -> dict[str, Any]:
    env = make_env(name)
    try:
        played = {str(seed): episode(env, seed) for seed in seeds}
    finally:
        env.close()
    return json.loads(json.dumps(played))


def episodes_elsewhere(name: str, seeds: Sequence[int], hash_seed: int) -> dict[str, Any]:
    """Return the episodes as another process plays them, with sets in another order and another global seed."""
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": path}
    command = [sys.executable, __file__, name, *map(str, seeds)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return json.loads(output)


if __name__ == "__main__":
    random.seed(12345)
    np.random.seed(12345)
    sys.stdout.write(json.dumps(episodes(sys.argv[1], list(map(int, sys.argv[2:])))))
