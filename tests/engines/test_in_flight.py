"""Weights that change in the middle of replies: tokens are kept, and each is likely as its own weights say."""

import threading
from collections.abc import Sequence

import pytest
import torch
from conftest import random_model
from transformers import PreTrainedModel

from llmgym.config.sections import Sampling
from llmgym.engines.base import Completion, GenerationRequest, complete
from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.shared import SharedEngine
from llmgym.errors import EngineError

FAMILIES = ["llama", "qwen2", "mistral", "qwen3"]


def calm(family: str) -> PreTrainedModel:
    """A model whose logits do not amplify rounding."""
    model = random_model(family)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.6)
    return model


def asked(count: int, tokens: int = 30) -> list[GenerationRequest]:
    """Return requests of which some share a prompt and none ends before its last token."""
    sampling = Sampling(max_tokens=tokens)
    return [
        GenerationRequest(i, i, [5 + i // 2, 6, 7 + i // 2] * 4, tokens, (), sampling, seed=i) for i in range(count)
    ]


def other_weights(model: PreTrainedModel, seed: int) -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (name, one.detach() + 0.05 * torch.randn(one.shape, generator=generator))
        for name, one in model.named_parameters()
    ]


def in_steps(engine: SharedEngine, steps: int | None = None) -> list[Completion]:
    """Take some steps, or as many as there are."""
    found: list[Completion] = []
    while steps is None or steps:
        found += engine.poll()
        steps = None if steps is None else steps - 1
        if steps is None and engine._engine._scheduler.idle:
            break
    return found


@torch.no_grad()
def under(model: PreTrainedModel, weights: Sequence[tuple[str, torch.Tensor]], tokens: list[int]) -> torch.Tensor:
    """Return the log-probability of each token but the first, by a plain forward pass."""
    own = dict(model.named_parameters())
    before = {name: one.detach().clone() for name, one in own.items()}
    for name, value in weights:
        own[name].copy_(value)
    logits = model(torch.tensor([tokens])).logits[0, :-1].double()
    for name, value in before.items():
        own[name].copy_(value)
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[1:, None])[:, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_token_has_the_log_probability_under_the_weights_that_sampled_it(family: str) -> None:
    model = calm(family)
    engine = SharedEngine(LocalEngine(calm(family)))
    versions = [list(model.named_parameters()), other_weights(model, 1), other_weights(model, 2)]
    requests = asked(6)
    engine.submit(requests[:4])
    replies = in_steps(engine, 7)
    engine.load_weights(versions[1], 1)
    engine.submit(requests[4:])  # one that was never sampled by the first weights
    replies += in_steps(engine, 11)
    engine.load_weights(versions[2], 2)
    replies += in_steps(engine)
    assert len(replies) == 6
    for reply in replies:
        assert len(reply.tokens) == 30
        assert list(reply.versions) == sorted(reply.versions)
        assert {*reply.versions} == ({0, 1, 2} if reply.request_id < 4 else {1, 2})
        assert reply.weight_version == 2
        prompt = requests[reply.request_id].tokens
        plain = [under(model, weights, [*prompt, *reply.tokens])[len(prompt) - 1 :] for weights in versions]
        given = torch.tensor(reply.log_probs, dtype=torch.float64)
        own = torch.stack([plain[version][i] for i, version in enumerate(reply.versions)])
        assert (given - own).abs().max() < 1e-4
        others = torch.stack([plain[(version + 1) % 3][i] for i, version in enumerate(reply.versions)])
        assert (given - others).abs().max() > 0.1


def test_weights_that_are_the_same_change_no_token() -> None:
    model = random_model("qwen2")
    expected = {reply.request_id: reply for reply in complete(LocalEngine(model), asked(8))}
    engine = SharedEngine(LocalEngine(random_model("qwen2")))
    engine.submit(asked(8))
    replies = []
    for version in range(1, 9):
        replies += in_steps(engine, 3)
        engine.load_weights(model.named_parameters(), version)
    replies += in_steps(engine)
    for reply in replies:
        assert reply.tokens == expected[reply.request_id].tokens
        assert reply.log_probs == pytest.approx(expected[reply.request_id].log_probs, abs=1e-4)


def test_others_are_asked_in_between_and_nothing_is_lost() -> None:
    engine = SharedEngine(LocalEngine(random_model("qwen2")))
    expected = {reply.request_id: reply.tokens for reply in complete(engine, asked(8))}
    engine.submit(asked(8))
    replies = in_steps(engine, 5)
    with engine.between_steps() as alone:
        assert {one.request_id: one.tokens for one in complete(alone, asked(3))} == {i: expected[i] for i in range(3)}
    replies += in_steps(engine)
    assert {reply.request_id: reply.tokens for reply in replies} == expected


def test_what_goes_wrong_in_between_loses_nothing() -> None:
    engine = SharedEngine(LocalEngine(random_model("qwen2")))
    engine.submit(asked(4))
    in_steps(engine, 5)
    with pytest.raises(EngineError, match="wrong"), engine.between_steps():
        raise EngineError("wrong")
    assert len(in_steps(engine)) == 4


def test_another_thread_gets_its_turn_while_steps_are_taken_without_a_pause() -> None:
    engine = SharedEngine(LocalEngine(random_model("qwen2")))
    model = random_model("qwen2")
    engine.submit(asked(8, tokens=200))
    started = threading.Event()

    def bring() -> None:
        started.set()
        for version in range(1, 6):
            engine.load_weights(model.named_parameters(), version)

    brought = threading.Thread(target=bring)
    brought.start()
    assert started.wait(60)
    replies = in_steps(engine)
    brought.join()
    assert [reply.weight_version for reply in replies] == [5] * 8
