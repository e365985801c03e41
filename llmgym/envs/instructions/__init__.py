"""Texts under constraints that can be checked; see `task.Instructions`."""

from llmgym.envs.instructions.task import Instructions

__all__ = ["Instructions"]
