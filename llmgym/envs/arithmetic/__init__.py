"""Arithmetic in one reply: numbers to reach a target with, and expressions to work out."""

from llmgym.envs.arithmetic.countdown import Countdown
from llmgym.envs.arithmetic.sums import Sums

__all__ = ["Countdown", "Sums"]
