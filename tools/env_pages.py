"""Makes the pages of built-in environments from their docstrings, an episode of the expert, and baselines.

    python -m tools.env_pages [--check]

A page is docs/environments/NAME.md. Figures of models come from MODELS below: whoever measures one adds a line.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np

from llmgym.calls import ActionLike, ToolCall, as_action, calling
from llmgym.envs.aiops import AIOpsInvestigation
from llmgym.envs.arithmetic import Countdown, Sums
from llmgym.envs.code import Code
from llmgym.envs.codeword import CodeWord
from llmgym.envs.experts import play_expert
from llmgym.envs.games import KuhnPoker, Negotiation, TicTacToe
from llmgym.envs.gridworld import GridWorld
from llmgym.envs.house import House
from llmgym.envs.instructions import Instructions
from llmgym.envs.orders import Orders
from llmgym.envs.search import Search
from llmgym.envs.sql import SQL
from llmgym.envs.text_env import TextEnv

FOLDER = Path(__file__).parent.parent / "docs" / "environments"
DIFFICULTIES = range(4)
Policy = Callable[[np.random.Generator, TextEnv, str], str]
"""What is replied, given a source of chance, the environment and its newest observation."""


class Page(NamedTuple):
    """One environment: its file, its seed to show, and replies that take no thought, one the same, one by chance."""

    cls: type[TextEnv]
    file: str
    seed: int
    constant: str
    chance: Policy
    episodes: int = 30  # of a figure


class Measured(NamedTuple):
    """A model's figures in an environment, on the split ``eval``: reward and success by difficulty."""

    environment: str
    model: str
    figures: dict[int, tuple[float, float]]


MODELS: tuple[Measured, ...] = ()


def _one_of(*replies: str) -> Policy:
    return lambda rng, env, seen: str(rng.choice(replies))


def _expression(rng: np.random.Generator, env: TextEnv, seen: str) -> str:
    a, b = (int(number) for number in rng.permutation(env.episode.task.numbers)[:2])
    return f"<answer>{a} {rng.choice(['+', '-', '*', '/'])} {b}</answer>"


def _letters(rng: np.random.Generator, env: TextEnv, seen: str) -> str:
    return f"<guess>{''.join(rng.choice(list('etaoinshrdlu'), len(env.episode.task.word)))}</guess>"


def _call_by_chance(rng: np.random.Generator, env: TextEnv, seen: str) -> str:
    if env.episode.turns:
        return "That is done."
    tools = [schema["function"] for schema in env.toolbox.schemas]
    tool = tools[rng.integers(len(tools))]
    return calling(ToolCall(tool["name"], {name: str(rng.integers(20)) for name in tool["parameters"]["properties"]}))


def _function(returned: str) -> str:
    return f"```python\ndef solve(values):\n    return {returned}\n```"


def _function_by_chance(rng: np.random.Generator, env: TextEnv, seen: str) -> str:
    return _function(str(rng.choice(["values", "sorted(values)", "len(values)", "values[::-1]", "[]"])))


def _offer(rng: np.random.Generator, env: TextEnv, seen: str) -> str:
    return f'{{"books": {rng.integers(3)}, "hats": {rng.integers(3)}, "balls": {rng.integers(3)}}}'


def _command(rng: np.random.Generator, env: TextEnv, seen: str) -> str:
    places = re.findall(r"(?:Doors: |Here: |, )(?:an? )?([a-z ]+)", seen) or ["kitchen"]
    return f"{rng.choice(['go to', 'open', 'take'])} {rng.choice(places)}"


_CITED = '<answer>{{"answer": "Rome", "documents": ["D{:03d}"]}}</answer>'

_CAUSE = '{{"service": "{}", "incident_type": "{}"}}'


def _cause_by_chance(rng: np.random.Generator, env: TextEnv, seen: str) -> str:
    cause = rng.choice(env.difficulty.causes)
    return _CAUSE.format(cause.service, cause.incident_type)


PAGES = (
    Page(AIOpsInvestigation, "aiops_investigation.md", 2, _CAUSE.format("database", "memory_leak"), _cause_by_chance),
    Page(Countdown, "countdown.md", 3, "<answer>5 * 5</answer>", _expression),
    Page(Sums, "sums.md", 3, "<answer>0</answer>", lambda rng, env, seen: f"<answer>{rng.integers(-99, 200)}</answer>"),
    Page(
        Instructions,
        "instructions.md",
        4,
        "A cook cleans a table in the kitchen today.",
        lambda rng, env, seen: " ".join(rng.permutation(seen.split())[:20]),
    ),
    Page(CodeWord, "code_word.md", 7, "<guess>crane</guess>", _letters),
    Page(GridWorld, "grid_world.md", 1, "right", _one_of("up", "down", "left", "right")),
    Page(SQL, "sql.md", 1, "<answer>1</answer>", lambda rng, env, seen: f"<answer>{rng.integers(100)}</answer>"),
    Page(Orders, "orders.md", 1, "That is done.", _call_by_chance),
    Page(Search, "search.md", 1, _CITED.format(1), lambda rng, env, seen: _CITED.format(rng.integers(1, 30))),
    Page(
        KuhnPoker, "kuhn_poker.md", 1, "check", lambda rng, env, seen: str(rng.choice(["check", "bet", "call", "fold"]))
    ),
    Page(
        TicTacToe, "tic_tac_toe.md", 1, "a1", lambda rng, env, seen: f"{rng.choice(list('abcd'))}{rng.integers(1, 5)}"
    ),
    Page(Negotiation, "negotiation.md", 1, "accept", _offer),
    Page(House, "house.md", 1, "look", _command),
    Page(Code, "code.md", 1, _function("values"), _function_by_chance, episodes=10),
)


def page(about: Page) -> str:
    """Return the text of a page."""
    name = about.cls.__name__
    summary, arguments = _docstring(about.cls)
    title, _, body = summary.partition("\n")
    signature = inspect.signature(about.cls.__init__)
    given = [one for one in signature.parameters.values() if one.default is not inspect.Parameter.empty]
    episode = _episode(name, about.seed)
    fence = "````" if "```" in episode else "```"
    call = "".join(f", {one.name}={one.default!r}" for one in given).replace("'", '"')
    return "\n".join(
        [
            f"# {name}",
            "",
            f'`gymnasium.make("llmgym/{name}-v0"{call})`',
            "",
            title,
            body.rstrip(),
            "",
            "## Arguments",
            "",
            *arguments,
            "",
            "## An episode",
            "",
            f"Seed {about.seed}, played by the expert.",
            "",
            f"{fence}text",
            episode,
            fence,
            "",
            "## Baselines",
            "",
            f"Mean reward and, in parentheses, the share of successes over {about.episodes} episodes of the split "
            "`eval`.",
            "",
            f"| policy | {' | '.join(f'difficulty {d}' for d in DIFFICULTIES)} |",
            f"|---|{'---|' * len(DIFFICULTIES)}",
            *_rows(about),
            "",
            "<!-- python -m tools.env_pages wrote this page from the docstring of the class; edit that. -->",
            "",
        ]
    )


def _docstring(cls: type[TextEnv]) -> tuple[str, list[str]]:
    """Return a docstring without its sections, and its arguments as a list."""
    text = inspect.getdoc(cls) or ""
    body, _, rest = text.partition("\nArgs:\n")
    sections = re.split(r"\n(?=\S+:\n)", rest)[0]
    entries = re.split(r"\n    (?=\S)", "\n" + sections)[1:]
    arguments = []
    for entry in entries:
        name, _, said = " ".join(entry.split()).partition(": ")
        arguments.append(f"- `{name}`: {said}" if name != "options" else f"- {said}")
    return body.replace("``", "`"), [line.replace("``", "`") for line in arguments]


def _episode(name: str, seed: int) -> str:
    env = gymnasium.make(f"llmgym/{name}-v0", render_mode="ansi", disable_env_checker=True)
    _, score = play_expert(env, seed)
    return f"{env.render()}\n--- reward ---\n{score:g}"


def _rows(about: Page) -> list[str]:
    policies: dict[str, Callable[[], Policy]] = {
        "expert": lambda: _of("expert"),
        "mistake": lambda: _of("mistake"),
        "by chance": lambda: about.chance,
        f"always {_cell(about.constant)}": lambda: lambda rng, env, seen: about.constant,
        "echo": lambda: lambda rng, env, seen: seen,
        "empty": lambda: lambda rng, env, seen: "",
    }
    name = about.cls.__name__
    figures = {
        policy: [_figures(name, difficulty, make, about.episodes) for difficulty in DIFFICULTIES]
        for policy, make in policies.items()
    }
    rows = [_row(policy, dict(enumerate(found))) for policy, found in figures.items()]
    return rows + [_row(one.model, one.figures) for one in MODELS if one.environment == name]


def _row(policy: str, figures: dict[int, tuple[float, float]]) -> str:
    cells = [f"{figures[d][0]:.2f} ({figures[d][1]:.0%})" if d in figures else "" for d in DIFFICULTIES]
    return f"| {policy} | {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return f"`{text}`" if len(text) <= 30 else "the same reply"


def _of(who: str) -> Policy:
    """Return the policy that replies as an environment's own expert or mistake; for one episode."""
    replies: Iterator[ActionLike] = iter(())

    def policy(rng: np.random.Generator, env: TextEnv, seen: str) -> str:
        nonlocal replies
        if not env.episode.turns:
            replies = getattr(env, who)()
        return as_action(next(replies))

    return policy


def _figures(name: str, difficulty: int, make: Callable[[], Policy], episodes: int) -> tuple[float, float]:
    """Return mean reward and share of successes."""
    env = gymnasium.make(f"llmgym/{name}-v0", difficulty=difficulty, split="eval", disable_env_checker=True).unwrapped
    assert isinstance(env, TextEnv)
    policy, rewards, successes = make(), [], 0.0
    for seed in range(episodes):
        rng = np.random.default_rng(seed)
        (seen, _), total, over = env.reset(seed=seed), 0.0, False
        while not over:
            seen, reward, terminated, truncated, info = env.step(policy(rng, env, seen))
            total, over = total + reward, terminated or truncated
        rewards.append(total)
        successes += info["success"]
    return round(float(np.mean(rewards)), 2) + 0.0, successes / episodes  # + 0.0 makes 0 of -0


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or say which are out of date; returns the exit code, 1 if some are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a page is out of date")
    check = parser.parse_args(arguments).check
    old = []
    for about in PAGES:
        path, text = FOLDER / about.file, page(about)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        old.append(about.file)
        if not check:
            path.write_text(text, encoding="utf-8")
    for file in old:
        print(f"docs/environments/{file}: {'out of date; run python -m tools.env_pages' if check else 'written'}")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
