"""Functions to write or to mend, run against hidden tests; see `environment.Code`."""

from llmgym.envs.code.environment import Code

__all__ = ["Code"]
