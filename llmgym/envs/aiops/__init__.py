"""Two-round incident triage; see `triage.AIOpsTriage`."""

from llmgym.envs.aiops.triage import AIOpsTriage

__all__ = ["AIOpsTriage"]
