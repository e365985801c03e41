"""The process of one side: ``python -m benchmarks.sides.worker SIDE MODEL DTYPE``.

Reads a work a line from standard input and answers each with a line on what was standard
output when it started; whatever libraries print goes to standard error.
"""

import importlib
import json
import os
import sys
import time

from benchmarks.work import Answer, Work


def main() -> None:
    """Load a side, tell its versions, and do works until there are no more."""
    side, model, dtype = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    rollout = importlib.import_module(f"benchmarks.sides.{side}").load(model, dtype)
    names = ("torch", "transformers", "trl", "sglang")
    print(json.dumps({n: str(sys.modules[n].__version__) for n in names if n in sys.modules}), file=answers)
    for line in sys.stdin:
        work = Work.from_json(line)
        start = time.perf_counter()
        replies = rollout(work)
        seconds = time.perf_counter() - start
        lengths = [[len(reply) for reply in episode] for episode in replies]
        distinct = len({token for episode in replies for reply in episode for token in reply})
        print(Answer(seconds, lengths, distinct).to_json(), file=answers)


if __name__ == "__main__":
    main()
