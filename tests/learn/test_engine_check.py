"""An engine that samples with other weights than the learner's is noticed by its log-probabilities."""

import pytest
import torch
from tensordict import TensorDict
from transformers import PreTrainedModel

from llmgym.config.sections import Sampling
from llmgym.engines.base import GenerationRequest
from llmgym.engines.local.engine import LocalEngine
from llmgym.errors import EngineError
from llmgym.learn.batch import collate
from llmgym.learn.engine_check import check_log_probs
from llmgym.learn.policy import Policy
from llmgym.learn.reference import log_probs_of
from llmgym.rollout.trajectory import Trajectory


def test_an_engine_with_other_weights_is_noticed_and_one_with_the_same_is_not(model: PreTrainedModel) -> None:
    engine = LocalEngine(model, context_length=64)
    trajectories = [Trajectory(seed=i, group=0, score=1.0, ending="terminated") for i in range(3)]
    prompts = [list(range(5, 15 + i)) for i in range(3)]
    engine.submit([GenerationRequest(i, i, prompts[i], 8, (), Sampling(temperature=0.7), seed=i) for i in range(3)])
    while completions := engine.wait():
        for completion in completions:
            trajectories[completion.request_id].observe(prompts[completion.request_id])
            trajectories[completion.request_id].act(completion)
    batch = collate(trajectories)
    check_log_probs(log_probs_of(Policy(model, temperature=0.7), batch, 1000), batch, 1e-4)
    with pytest.raises(EngineError, match=r"within 0\.0001 nats .* differ by"):
        check_log_probs(log_probs_of(Policy(model, temperature=1.0), batch, 1000), batch, 1e-4)
    with torch.no_grad():
        next(model.parameters()).mul_(1.1)
    with pytest.raises(EngineError, match="other weights"):
        check_log_probs(log_probs_of(Policy(model, temperature=0.7), batch, 1000), batch, 1e-4)


def test_rows_that_no_engine_sampled_are_left_out_and_a_reply_without_log_probs_is_not() -> None:
    ours = torch.full((3, 4), -1.0)
    batch = TensorDict({"mask": torch.ones(3, 4, dtype=torch.bool), "log_probs": ours.clone()}, batch_size=[3])
    batch["log_probs"][1] = torch.nan
    check_log_probs(ours, batch, 1e-6)
    far = batch.clone()
    far["log_probs"][0] -= 1.0
    with pytest.raises(EngineError, match="differ"):
        check_log_probs(ours, far, 1e-6)
    broken = batch.clone()
    broken["log_probs"][0, 2] = torch.nan
    with pytest.raises(EngineError, match="nan"):
        check_log_probs(ours, broken, 1e-6)
