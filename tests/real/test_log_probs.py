"""Engine, policy and a plain forward pass of a real model give the same tokens the same log-probabilities."""

from pathlib import Path

import pytest
import torch
from conversations import CONVERSATIONS
from replay import plain_log_probs, play, sampled_log_probs
from tiers import long_but
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmgym.engines.local.engine import LocalEngine
from llmgym.learn.batch import collate
from llmgym.learn.policy import Policy
from llmgym.models.causal_lm import load_causal_lm, stop_token_ids_of
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.trajectory import Trajectory
from llmgym.rollout.transcript import transcribe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loaded(real_model: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load_causal_lm(real_model)


@pytest.fixture(scope="module")
def codec(loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> ChatCodec:
    model, tokenizer = loaded
    return ChatCodec(tokenizer, stop_token_ids_of(model))


def policy_log_probs(model: PreTrainedModel, trajectories: list[Trajectory], temperature: float) -> list[torch.Tensor]:
    """Those of each conversation's sampled tokens, by the policy on all of them packed.  [N] each"""
    batch = collate(trajectories)
    with torch.no_grad():
        log_probs = Policy(model, temperature).log_probs(batch)
    return [row[mask] for row, mask in zip(log_probs, batch["mask"], strict=True)]


@pytest.mark.parametrize("temperature", long_but([1.0, 0.7], 0.7))
def test_what_the_engine_sampled_has_the_same_log_probs_for_the_policy_and_for_transformers(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase], codec: ChatCodec, temperature: float
) -> None:
    model, _ = loaded
    played = play(LocalEngine(model, context_length=512), codec, temperature)
    learner = policy_log_probs(model, played, temperature)
    for trajectory, of_policy in zip(played, learner, strict=True):
        expected = plain_log_probs(model, trajectory, temperature)
        torch.testing.assert_close(sampled_log_probs(trajectory), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(of_policy, expected, atol=1e-4, rtol=0)


def test_what_people_wrote_has_the_tokens_of_the_template_and_the_log_probs_of_transformers(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase], codec: ChatCodec
) -> None:
    model, tokenizer = loaded
    written = [transcribe(codec, talk[:1], talk[1:]) for talk in CONVERSATIONS]
    for trajectory, talk in zip(written, CONVERSATIONS, strict=True):
        messages = [{"role": message.role, "content": message.content} for message in talk]
        whole = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        assert trajectory.tokens == whole[: len(trajectory.tokens)]
        assert tokenizer.decode(whole[len(trajectory.tokens) :]) == "\n"  # which nobody has to say
    for trajectory, of_policy in zip(written, policy_log_probs(model, written, 1.0), strict=True):
        torch.testing.assert_close(of_policy, plain_log_probs(model, trajectory), atol=1e-4, rtol=0)
