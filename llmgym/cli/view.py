"""``llmgym view``: what a run did, as pages in a browser, while it goes on or afterwards."""

import argparse
import contextlib
import webbrowser
from pathlib import Path

from llmgym import view
from llmgym.cli.options import Commands, port
from llmgym.errors import ConfigError
from llmgym.report.console import say


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("view", help="see what runs did, as pages in a browser")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the directory of a run or of an evaluation")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=port, default=0, help="to listen on (default: 0, any that is free)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted; returns the exit code."""
    runs = view.open_runs(options.runs)
    try:
        with view.serve(runs, options.host, options.port) as server:
            say(f"{', '.join(one.label for one in runs)}: {server.address} (Ctrl-C ends it)")
            if not options.no_browser:
                webbrowser.open(server.address)
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
    except OSError as error:
        raise ConfigError(
            f"--host {options.host} --port {options.port}: expected an address to listen on ({error.strerror})."
        ) from None
    return 0
