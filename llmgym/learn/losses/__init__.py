"""Losses as TorchRL modules, usable in anyone's loop."""

from llmgym.learn.losses.base import LanguageModelLoss
from llmgym.learn.losses.clipped_policy import ClippedPolicyLoss
from llmgym.learn.losses.dpo import DPOLoss

__all__ = ["ClippedPolicyLoss", "DPOLoss", "LanguageModelLoss"]
