"""Scorers turn finished episodes into rewards; they see text and nothing else."""

from llmgym.scorers.base import FunctionScorer, ScoreFunction, Scorer, as_score, register_scorer, resolve_scorer

__all__ = ["FunctionScorer", "ScoreFunction", "Scorer", "as_score", "register_scorer", "resolve_scorer"]
