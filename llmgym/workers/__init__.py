"""Processes that call functions which are not trusted to end, and that can be killed without loss.

A pool starts one process, the forker, which imports what the calls need. It forks a worker in milliseconds, so a worker
that hangs, crashes or takes too much memory is replaced at once. It bounds time and memory; it is no sandbox.
"""

from llmgym.workers.pool import Pool
from llmgym.workers.worker import WorkerError

__all__ = ["Pool", "WorkerError"]
