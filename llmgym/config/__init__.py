"""Configurations: what can be set, what it may be, and how it is read. Nothing here imports torch."""

from llmgym.config.base import Config, read_yaml
from llmgym.config.command_line import Kwargs, parse_command_line

__all__ = ["Config", "Kwargs", "parse_command_line", "read_yaml"]
