"""Losses as TorchRL modules, usable in anyone's loop."""

from llmgym.learn.losses.base import LanguageModelLoss
from llmgym.learn.losses.cispo import CISPOLoss
from llmgym.learn.losses.clipped_policy import ClippedPolicyLoss
from llmgym.learn.losses.ppo import PPOLoss

__all__ = ["CISPOLoss", "ClippedPolicyLoss", "LanguageModelLoss", "PPOLoss"]
