"""A side of a benchmark as a process of its own, asleep while it is not its turn."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.work import Answer, Work

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks" / ".peers"

# Sides that run in an environment of setup_peers.sh; the others run in this one.
ENVIRONMENTS = {
    **dict.fromkeys(("trl_grpo", "trl_grpo_plain", "generate_batch"), "trl"),
    **dict.fromkeys(("sglang_cpu", "sglang_llmgym"), "sglang"),
}

_DISTINCT = 640  # half the vocabulary: a random model that samples fewer different tokens is not sampled from
_DISTINCT_SHARE = 1 / 12  # of the sampled tokens, where these are few or a trained model says what it knows


@dataclass(frozen=True)
class Outcome:
    """What a work cost.

    Attributes:
        seconds: From the first prompt to the last token.
        cpu_seconds: Processor time of all of the side's processes meanwhile.
        peak_mib: Their resident memory at its highest, since they started.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float


class Process:
    """A worker process, on one thread.

    While it is not its turn it is stopped, with all its children: some engines poll.

    Args:
        worker: The module that it runs.
        name: The module of the side, beside the worker's.
        model: The directory of the model.
        dtype: ``"float32"`` or ``"bfloat16"``.
        log: Takes what its libraries print.

    Raises:
        RuntimeError: The environment of a peer is not there, or the process ended.
    """

    def __init__(self, worker: str, name: str, model: Path, dtype: str, log: Path) -> None:
        self.name, self.dtype, self.log = name, dtype, log
        python, environment = sys.executable, dict(os.environ)
        if name in ENVIRONMENTS:
            home = PEERS / ENVIRONMENTS[name]
            if not (home / "environment.json").exists():
                raise RuntimeError(f"{name} needs {home}: run benchmarks/setup_peers.sh.")
            python = str(home / "bin" / "python")
            environment |= json.loads((home / "environment.json").read_text())
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [python, "-m", worker, name, str(model), dtype],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )
        self.versions: dict[str, str] = json.loads(self._answer())
        self.loaded_mib = self.peak_mib
        self._signal(signal.SIGSTOP)

    def ask(self, line: str) -> tuple[str, float]:
        """Give the process a line; return its answer and the processor time that this took, in seconds.

        Raises:
            RuntimeError: The process ended.
        """
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        before = self._cpu_seconds()
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        seconds = self._cpu_seconds() - before
        self._signal(signal.SIGSTOP)
        return answer, seconds

    def __enter__(self) -> Self:
        """Return the side itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the process and its children."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended; the last it said:\n{self.log.read_text()[-3000:]}")
        return line

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    # What Linux says of the side's processes, which are a process group.

    def _processes(self) -> Iterator[tuple[Path, list[str]]]:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            if int(fields[2]) == self._process.pid:
                yield folder, fields

    def _cpu_seconds(self) -> float:
        ticks = sum(int(fields[11]) + int(fields[12]) for _, fields in self._processes())
        return ticks / os.sysconf("SC_CLK_TCK")

    @property
    def peak_mib(self) -> float:
        """Resident memory of its processes at its highest, since they started."""
        lines = [line for folder, _ in self._processes() for line in (folder / "status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


class Side(Process):
    """A side of the rollout benchmark: a module of `benchmarks.sides`; see `Process`."""

    def __init__(self, name: str, model: Path, dtype: str, log: Path) -> None:
        super().__init__("benchmarks.sides.worker", name, model, dtype, log)

    def run(self, work: Work) -> Outcome:
        """Do a work.

        Raises:
            RuntimeError: The process ended, or did not sample what it was asked for.
        """
        line, cpu_seconds = self.ask(work.to_json())
        answer = Answer.from_json(line)
        if answer.lengths != work.lengths:
            raise RuntimeError(f"{self.name} did not sample the lengths that {work.name!r} asks for.")
        if answer.distinct_tokens < min(_DISTINCT, _DISTINCT_SHARE * work.sampled):
            raise RuntimeError(f"{self.name} sampled only {answer.distinct_tokens} different tokens.")
        return Outcome(answer.seconds, cpu_seconds, self.peak_mib)
