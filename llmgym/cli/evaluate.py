"""``llmgym eval``: how well models do on tasks that they were not trained on."""

import json
from collections.abc import Sequence

from llmgym import evals
from llmgym.cli.options import Commands, prints_apart
from llmgym.config.command_line import parse_command_line
from llmgym.errors import ConfigError, LLMGymError, bad_paths_refused
from llmgym.evals.config import EvalConfig
from llmgym.report.console import make_console, say


def add_to(commands: Commands) -> None:
    """Add the command, whose options are those of its configuration."""
    commands.add_parser("eval", help="evaluate models on held-out tasks", add_help=False)


def run(words: Sequence[str]) -> int:
    """Evaluate; returns the exit code."""
    as_json = "--json" in words
    words = ["--tasks" if word == "-n" else word for word in words if word != "--json"]
    try:
        if words and not words[0].startswith("-"):
            raise ConfigError(f"{words[0]!r}: expected options; --model {words[0]} evaluates it.")
        config = parse_command_line(EvalConfig, words, "llmgym eval")
        if config is not None:
            with bad_paths_refused():
                _evaluate(config, as_json=as_json)
    except LLMGymError as error:
        say(f"llmgym eval: {error}", stderr=True)
        return 2
    except KeyboardInterrupt:
        say("llmgym eval: interrupted; the same command goes on", stderr=True)
        return 130
    return 0


def _evaluate(config: EvalConfig, *, as_json: bool) -> None:
    found = []
    with prints_apart(as_json=as_json):
        for subject in evals.subjects_of(config):
            played = evals.play(subject, lambda sentence: say(sentence, stderr=True))
            found.append(evals.summarise(subject, played))
    if as_json:
        print(json.dumps([one.plain() for one in found], indent=2))
    else:
        evals.print_summaries(make_console(), found)
