"""The process of an SGLang server of ours: ``python -m llmgym.engines.sglang.launch``.

It reads its options as one line of JSON from standard input, so that the key stands neither
in a file nor in the list of processes, and ends with all its children when standard input is
closed: when the process that started it is gone, however it ended.
"""

import json
import os
import signal
import sys
import threading


def main() -> None:
    """Run a server until standard input is closed. This process has to lead its own group."""
    options = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from sglang.srt.entrypoints.http_server import launch_server  # after the watch over the parent has begun
    from sglang.srt.server_args import ServerArgs  # likewise

    launch_server(ServerArgs(**options))


def _end_with_parent() -> None:
    sys.stdin.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
