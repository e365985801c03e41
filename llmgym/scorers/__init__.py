"""Scorers turn finished episodes into rewards; they see text and nothing else."""

from llmgym.scorers.asking import AnyScorer, ask, judges_alone
from llmgym.scorers.names import (
    find_scorer,
    register_pairwise_scorer,
    register_scorer,
    register_scorer_class,
    registered_scorers,
    resolve_scorer,
    scorer_classes,
)
from llmgym.scorers.pairwise import CompareFunction, PairwiseFunctionScorer, PairwiseScorer
from llmgym.scorers.pointwise import FunctionScorer, ScoreFunction, Scorer, as_score

__all__ = [
    "AnyScorer",
    "CompareFunction",
    "FunctionScorer",
    "PairwiseFunctionScorer",
    "PairwiseScorer",
    "ScoreFunction",
    "Scorer",
    "as_score",
    "ask",
    "find_scorer",
    "judges_alone",
    "register_pairwise_scorer",
    "register_scorer",
    "register_scorer_class",
    "registered_scorers",
    "resolve_scorer",
    "scorer_classes",
]
