"""Whether the reward of an environment can be had without doing its task; `audit` finds out."""

from llmgym.audit.findings import Finding, FindingKind
from llmgym.audit.report import AuditReport, audit
from llmgym.audit.rewards import Row

__all__ = ["AuditReport", "Finding", "FindingKind", "Row", "audit"]
