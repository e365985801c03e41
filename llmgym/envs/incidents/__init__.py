"""Incidents that no single signal gives away: in two rounds, `AIOpsIncident`, or with tools, `AIOpsInvestigation`."""

from llmgym.envs.incidents.investigation import AIOpsInvestigation
from llmgym.envs.incidents.two_rounds import AIOpsIncident

__all__ = ["AIOpsIncident", "AIOpsInvestigation"]
