"""Questions about a database that only queries answer; see `environment.SQL`."""

from llmgym.envs.sql.environment import SQL

__all__ = ["SQL"]
