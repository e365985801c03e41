"""``llmgym serve-env``: any text environment behind OpenEnv's WebSocket."""

import argparse

from llmgym.cli.options import Commands, add_environment, count, env_kwargs, port
from llmgym.errors import ConfigError
from llmgym.registry import make_env
from llmgym.report.console import say


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("serve-env", help="serve an environment to OpenEnv clients")
    add_environment(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, default=8000, help="port to listen on; 0 for a free one (default: 8000)")
    parser.add_argument("--max-sessions", type=count, default=64, help="clients at a time, at most (default: 64)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted; returns the exit code."""
    kwargs = env_kwargs(options)
    make_env(options.env, **kwargs).close()  # what is wrong with it is said before anybody connects
    try:
        from llmgym.envs.server import serve_env  # needs websockets, of the extra `openenv`
    except ImportError as error:
        raise ConfigError(f"serve-env needs 'llmgym-rl[openenv]': pip install it ({error}).") from error
    try:
        server = serve_env(
            lambda: make_env(options.env, **kwargs),
            options.env,
            host=options.host,
            port=options.port,
            max_sessions=options.max_sessions,
        )
    except OSError as error:
        raise ConfigError(f"cannot listen on {options.host}:{options.port}: {error}") from error
    with server:
        host, port = server.socket.getsockname()[:2]
        say(f"{options.env} at ws://{host}:{port}/ws, for {options.max_sessions} clients at a time")
        server.serve_forever()
    return 0
