"""A house in which things are fetched and cooked; see `world.House`."""

from llmgym.envs.house.world import House

__all__ = ["House"]
