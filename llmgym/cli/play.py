"""``llmgym play``: an environment by hand in the terminal, or as its expert plays it."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
from rich.console import Console

from llmgym.calls import Action, ActionLike, as_action
from llmgym.cli.options import Commands, add_environment, add_json, env_kwargs
from llmgym.envs.experts import expert_env
from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError
from llmgym.registry import make_env, resolve_env, takes_rows
from llmgym.report.console import make_console, said


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("play", help="play an environment by hand, and see the score and its parts")
    add_environment(parser)
    parser.add_argument("--seed", type=int, default=0, help="the task (default: 0)")
    parser.add_argument(
        "--row", type=int, help="the row, for an environment that takes rows; --env-kwargs rows=FILE gives them"
    )
    parser.add_argument("--expert", action="store_true", help="show how the environment's own expert plays")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Play one episode; returns the exit code, which is 1 if the replies ran out before its end."""
    console = make_console()
    console.stderr = options.json
    env = make_env(options.env, **env_kwargs(options))
    try:
        inner: Any = env.unwrapped
        if not isinstance(inner, TextEnv):
            raise ConfigError(f"{options.env}: expected a TextEnv to play, got {type(inner).__name__}.")
        if options.row is not None and not takes_rows(resolve_env(options.env)):
            raise ConfigError(f"--row: {options.env} does not play the rows of a data set; expected --seed, its task.")
        replies = expert_env(env).expert if options.expert else (lambda: _typed(console))
        env.reset(seed=options.seed, options=None if options.row is None else {"row": options.row})
        result = _play(env, inner, replies(), console, echo=options.expert)
    finally:
        env.close()
    if options.json:
        print(json.dumps({"env": options.env, "seed": options.seed, "row": options.row, **result}, indent=2))
    else:
        _show(result, console)
    return 0 if result["ending"] else 1


def _play(
    env: gymnasium.Env[str, str], inner: TextEnv, replies: Iterator[ActionLike], console: Console, *, echo: bool
) -> dict[str, Any]:
    """Play an episode that has begun, and return how it ended."""
    total, turns, met = 0.0, 0, set[int]()
    ended: dict[str, Any] = {}
    while not ended:
        _say(inner, met, console)
        reply = next(replies, None)
        if reply is None:
            break
        action = as_action(reply)
        if echo:
            _print("assistant", str(action), console)
        _, reward, terminated, truncated, info = env.step(action)
        total, turns = total + float(reward), turns + 1
        if terminated or truncated:
            ended = {"ending": "terminated" if terminated else "truncated", "parts": dict(info)}
            for message in inner.heard:
                _print(message.role, message.content, console)
        elif reward:
            console.print(f"reward {float(reward):g}", style="cyan")
    missing = "score_missing" in ended.get("parts", {})
    error = inner.scored.error if missing and inner.scored is not None else None
    return {
        "ending": ended.get("ending"),
        "turns": turns,
        "reward": None if missing or not ended else total,
        "error": error,
        "parts": {} if missing else ended.get("parts", {}),
    }


def _say(inner: TextEnv, met: set[int], console: Console) -> None:
    """Print what the seat whose turn it is hears, the first time with what it is told before."""
    if len(inner.seats) > 1:
        console.rule(f"seat {inner.seat}", style="dim")
    if inner.seat not in met:
        met.add(inner.seat)
        if inner.episode.system_prompt:
            _print("system", inner.episode.system_prompt, console)
        for schema in inner.toolbox.schemas:
            _print("tool", json.dumps(schema["function"], ensure_ascii=False), console)
    for message in inner.heard:
        _print(message.role, message.content, console)


def _print(role: str, content: str, console: Console) -> None:
    style = "green" if role == "assistant" else "default"
    console.print(said(console, role, content), style=style, soft_wrap=True)


def _typed(console: Console) -> Iterator[Action | str]:
    """Yield replies from standard input: each ends with an empty line, and the last with the input."""
    console.print("A reply ends with an empty line; Ctrl-D leaves.", style="dim")
    lines: list[str] = []
    for line in sys.stdin:
        if line.strip():
            lines.append(line)
        elif lines:
            yield "".join(lines).rstrip("\n")
            lines = []
    if lines:
        yield "".join(lines).rstrip("\n")


def _show(result: dict[str, Any], console: Console) -> None:
    """Print how an episode ended."""
    if result["ending"] is None:
        console.print(f"Left after {_counted(result['turns'])}, before the end: no score.")
        return
    score = f"no score: {result['error']}" if result["reward"] is None else f"reward {result['reward']:g}"
    console.print(f"{result['ending']} after {_counted(result['turns'])}, {score}", style="bold")
    for name, part in result["parts"].items():
        value = f"{part:g}" if isinstance(part, float) else str(part)
        console.print(f"    {name}  {value}")


def _counted(turns: int) -> str:
    return f"{turns} turn" + ("" if turns == 1 else "s")
