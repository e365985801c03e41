"""Grid worlds: frozen lakes, mazes and Sokoban; see `world.GridWorld`."""

from llmgym.envs.gridworld.world import GridWorld

__all__ = ["GridWorld"]
