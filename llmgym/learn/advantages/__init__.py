"""Advantages: how much better than expected an episode was (`episodes`), or a token of it (`tokens`)."""

from llmgym.config.choices import Estimator
from llmgym.learn.advantages.episodes import ESTIMATORS
from llmgym.learn.advantages.tokens import gae, whiten

__all__ = ["ESTIMATORS", "Estimator", "gae", "whiten"]
