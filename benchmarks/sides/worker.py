"""The process of one side: ``python -m benchmarks.sides.worker SIDE MODEL DTYPE``.

Reads a work a line from standard input and answers each with an outcome a line, on what was
standard output when it started; whatever libraries print goes to standard error.
"""

import importlib
import json
import os
import resource
import sys
import time
from dataclasses import asdict

from benchmarks.work import Outcome, Work


def main() -> None:
    """Load a side, say so, and do works until there are no more."""
    side, model, dtype = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    rollout = importlib.import_module(f"benchmarks.sides.{side}").load(model, dtype)
    loaded = _peak_mib()
    print(json.dumps(versions()), file=answers)
    for line in sys.stdin:
        work = Work.from_json(line)
        start = time.perf_counter()
        replies = rollout(work)
        seconds = time.perf_counter() - start
        lengths = [[len(reply) for reply in episode] for episode in replies]
        distinct = len({token for episode in replies for reply in episode for token in reply})
        print(json.dumps(asdict(Outcome(seconds, lengths, _peak_mib(), loaded, distinct))), file=answers)


def versions() -> dict[str, str]:
    """Return the versions of what was loaded."""
    names = ("torch", "transformers", "trl", "sglang")
    return {name: str(sys.modules[name].__version__) for name in names if name in sys.modules}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
