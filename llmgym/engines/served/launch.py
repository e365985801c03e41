"""The process of a server of ours: ``python -m llmgym.engines.served.launch module:Dialect``.

It reads the arguments of `Dialect.serve` as one line of JSON from standard input, so that the key stands neither
in a file nor in the list of processes, and ends with all its children when standard input is
closed: when the process that started it is gone, however it ended.
"""

import importlib
import json
import os
import signal
import sys
import threading


def main() -> None:
    """Run a server until standard input is closed. This process has to lead its own group."""
    module, _, name = sys.argv[1].partition(":")
    options = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    getattr(importlib.import_module(module), name)().serve(**options)


def _end_with_parent() -> None:
    sys.stdin.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
