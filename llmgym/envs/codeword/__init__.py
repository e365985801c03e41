"""Guessing a word from marks; see `game.CodeWord`."""

from llmgym.envs.codeword.game import CodeWord

__all__ = ["CodeWord"]
