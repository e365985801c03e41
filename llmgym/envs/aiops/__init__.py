"""Incidents that no single signal gives away: in two rounds, `AIOpsTriage`, or with tools, `AIOpsInvestigation`."""

from llmgym.envs.aiops.investigation import AIOpsInvestigation
from llmgym.envs.aiops.triage import AIOpsTriage

__all__ = ["AIOpsInvestigation", "AIOpsTriage"]
