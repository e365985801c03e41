"""Losses as TorchRL modules, usable in anyone's loop."""

from llmgym.learn.losses.base import LanguageModelLoss
from llmgym.learn.losses.bradley_terry import BradleyTerryLoss
from llmgym.learn.losses.cispo import CISPOLoss
from llmgym.learn.losses.clipped_policy import ClippedPolicyLoss
from llmgym.learn.losses.dpo import DPOLoss
from llmgym.learn.losses.ipo import IPOLoss
from llmgym.learn.losses.kl_dpo import KLDPOLoss
from llmgym.learn.losses.kto import KTOLoss
from llmgym.learn.losses.orpo import ORPOLoss
from llmgym.learn.losses.ppo import PPOLoss
from llmgym.learn.losses.reward_mle import RewardMLELoss
from llmgym.learn.losses.sft import SFTLoss
from llmgym.learn.losses.sppo import SPPOLoss

__all__ = [
    "BradleyTerryLoss",
    "CISPOLoss",
    "ClippedPolicyLoss",
    "DPOLoss",
    "IPOLoss",
    "KLDPOLoss",
    "KTOLoss",
    "LanguageModelLoss",
    "ORPOLoss",
    "PPOLoss",
    "RewardMLELoss",
    "SFTLoss",
    "SPPOLoss",
]
