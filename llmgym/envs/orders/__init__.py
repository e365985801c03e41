"""The desk of a shop, whose state tools change; see `environment.Orders`."""

from llmgym.envs.orders.environment import Orders

__all__ = ["Orders"]
