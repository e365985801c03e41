"""Questions over documents that have to be found and cited; see `environment.Search`."""

from llmgym.envs.search.environment import Search

__all__ = ["Search"]
