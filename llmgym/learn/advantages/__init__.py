"""Advantages: how much better than expected an episode was (`episodes`), or a token of it (`tokens`)."""

from llmgym.learn.advantages.episodes import ESTIMATORS, Estimator
from llmgym.learn.advantages.tokens import gae, whiten

__all__ = ["ESTIMATORS", "Estimator", "gae", "whiten"]
