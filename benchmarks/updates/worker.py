"""The process of one side: ``python -m benchmarks.updates.worker SIDE MODEL DTYPE``.

Reads episodes a line from standard input and answers each with a line on what was standard
output when it started; whatever libraries print goes to standard error.
"""

import importlib
import json
import os
import sys
import time
from dataclasses import asdict, replace

from benchmarks.updates.episodes import Episodes


def main() -> None:
    """Load a side, tell its versions, and take a step for every line."""
    side, model, dtype = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    take_step = importlib.import_module(f"benchmarks.updates.{side}").load(model, dtype)
    names = ("torch", "transformers", "trl", "torchrl")
    print(json.dumps({n: str(sys.modules[n].__version__) for n in names if n in sys.modules}), file=answers)
    for line in sys.stdin:
        episodes = Episodes.from_json(line)
        start = time.perf_counter()
        step = take_step(episodes)
        print(json.dumps(asdict(replace(step, seconds=time.perf_counter() - start))), file=answers)


if __name__ == "__main__":
    main()
