"""Scorers turn finished episodes into rewards; they see text and nothing else."""

from llmgym.scorers import answers, own
from llmgym.scorers.asking import AnyScorer, ask, judges_alone
from llmgym.scorers.composition import Clipped, Gated, Product, Weighted
from llmgym.scorers.expressions import find_scorer, resolve_scorer
from llmgym.scorers.functions import function_scorer
from llmgym.scorers.isolated import isolated
from llmgym.scorers.names import (
    register_pairwise_scorer,
    register_scorer,
    register_scorer_class,
    registered_scorers,
    scorer_classes,
)
from llmgym.scorers.pairwise import CompareFunction, PairwiseFunctionScorer, PairwiseScorer
from llmgym.scorers.pointwise import FunctionScorer, ScoreFunction, Scorer, as_score

__all__ = [
    "AnyScorer",
    "Clipped",
    "CompareFunction",
    "FunctionScorer",
    "Gated",
    "PairwiseFunctionScorer",
    "PairwiseScorer",
    "Product",
    "ScoreFunction",
    "Scorer",
    "Weighted",
    "as_score",
    "ask",
    "find_scorer",
    "function_scorer",
    "isolated",
    "judges_alone",
    "register_pairwise_scorer",
    "register_scorer",
    "register_scorer_class",
    "registered_scorers",
    "resolve_scorer",
    "scorer_classes",
]

for _scorer in (answers.exact, answers.contains, answers.number, answers.boxed, own.env):
    register_scorer(_scorer.__name__)(_scorer)
register_scorer_class("env", "llmgym.scorers.own:Part")
