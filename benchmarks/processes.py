"""A side of a benchmark as a process of its own, asleep while it is not its turn."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from benchmarks.work import Outcome, Work

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks" / ".peers"

# Which environment a side runs in; the others run in this one.
ENVIRONMENTS = {"trl_grpo": "trl", "sglang_cpu": "sglang"}


class Side:
    """A worker process, on one thread.

    While it is not its turn it is stopped, with all its children: some engines poll.

    Args:
        name: A module of `benchmarks.sides`.
        model: The directory of the model.
        dtype: ``"float32"`` or ``"bfloat16"``.
        log: Takes what its libraries print.
    """

    def __init__(self, name: str, model: Path, dtype: str, log: Path) -> None:
        self.name, self.dtype, self.log = name, dtype, log
        python, environment = sys.executable, dict(os.environ)
        if name in ENVIRONMENTS:
            home = PEERS / ENVIRONMENTS[name]
            python = str(home / "bin" / "python")
            environment.update(json.loads((home / "environment.json").read_text()))
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.sides.worker", name, str(model), dtype],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )
        self.versions: dict[str, str] = json.loads(self._answer())
        self._signal(signal.SIGSTOP)

    def run(self, work: Work) -> Outcome:
        """Do a work.

        Raises:
            RuntimeError: The process ended, or sampled another number of tokens than it was asked for.
        """
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write(work.to_json() + "\n")
        self._process.stdin.flush()
        outcome = Outcome(**json.loads(self._answer()))
        self._signal(signal.SIGSTOP)
        if outcome.lengths != work.lengths:
            raise RuntimeError(f"{self.name} did not sample the lengths that {work.name!r} asks for.")
        return outcome

    def close(self) -> None:
        """End the process and its children."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> "Side":
        """Return the side itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the process."""
        self.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended; the last it said:\n{self.log.read_text()[-3000:]}")
        return line

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)
