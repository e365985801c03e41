"""The console script ``llmgym``: one file per command."""

from llmgym.cli.script import agents, main

__all__ = ["agents", "main"]
