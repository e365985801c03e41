"""Scorers turn finished episodes into rewards; they see text and nothing else."""

from llmgym.scorers import answers, code, own, text
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

for _scorer in (
    answers.exact,
    answers.contains,
    answers.number,
    answers.boxed,
    code.code,
    text.repetition,
    text.citations,
    own.env,
):
    register_scorer(_scorer.__name__)(_scorer)
register_scorer_class("env", "llmgym.scorers.own:Part")
register_scorer_class("number", "llmgym.scorers.answers:Number")
register_scorer_class("math", "llmgym.scorers.math_answers:Math", alone=True)
register_scorer_class("json_schema", "llmgym.scorers.json_schema:JsonSchema")
register_scorer_class("regex", "llmgym.scorers.text:Regex")
register_scorer_class("length", "llmgym.scorers.text:Length")
register_scorer_class("language", "llmgym.scorers.languages:Language")
