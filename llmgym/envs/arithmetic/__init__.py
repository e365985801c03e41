"""Arithmetic: numbers to reach a target with, and expressions to work out, in the head or with a calculator."""

from llmgym.envs.arithmetic.countdown import Countdown
from llmgym.envs.arithmetic.sums import Sums

__all__ = ["Countdown", "Sums"]
