"""The policy's log-probs and gradients are those of a plain forward pass, wherever they are computed."""

import copy

import pytest
import torch
from conftest import random_model
from tensordict import TensorDict
from torch.nn.functional import pad
from transformers import (
    AutoModelForCausalLM,
    BioGptConfig,
    CohereConfig,
    Gemma2Config,
    GemmaConfig,
    GraniteConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PhimoeConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen3Config,
)

from llmgym.errors import ModelError
from llmgym.learn.packed_attention import PACKED
from llmgym.learn.policy import Policy

EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}


def ragged_batch(seed: int = 0) -> TensorDict:
    """Two groups of siblings and a loner, with one to three replies each; one has nothing sampled."""
    rng = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, count: int = 1) -> list[int]:
        return torch.randint(low, high, (count,), generator=rng).tolist()

    rows = []
    for prompt_length, siblings in ((17, 3), (9, 3), (23, 1)):
        prompt = integers(3, 300, prompt_length)
        for sibling in range(siblings):
            tokens, mask = list(prompt), [False] * prompt_length
            for turn in range(integers(1, 4)[0]):
                if turn:
                    bridge = integers(1, 7)[0]
                    tokens, mask = tokens + integers(3, 300, bridge), mask + [False] * bridge
                reply = integers(1, 12)[0]
                tokens, mask = tokens + integers(3, 300, reply), mask + [sibling != 1 or prompt_length != 9] * reply
            rows.append((tokens, mask, prompt_length))
    width = max(len(tokens) for tokens, _, _ in rows)
    return TensorDict(
        {
            "tokens": torch.stack([pad(torch.tensor(tokens), (0, width - len(tokens))) for tokens, _, _ in rows]),
            "mask": torch.stack([pad(torch.tensor(mask), (0, width - len(mask))) for _, mask, _ in rows]),
            "length": torch.tensor([len(tokens) for tokens, _, _ in rows]),
            "prompt_length": torch.tensor([length for _, _, length in rows]),
            "episode": torch.arange(len(rows)),
        },
        batch_size=[len(rows)],
    )


def plain_log_probs(model: PreTrainedModel, batch: TensorDict, temperature: float = 1.0) -> torch.Tensor:
    """Row by row, each in a forward pass of its own without padding: [B, T]."""
    rows = torch.zeros(batch["tokens"].shape)
    for i, (tokens, mask, length) in enumerate(zip(batch["tokens"], batch["mask"], batch["length"], strict=True)):
        logits = model(tokens[None, :length]).logits[0, :-1] / temperature
        chosen = logits.log_softmax(-1).gather(1, tokens[1:length, None])[:, 0]
        rows[i, 1:length] = torch.where(mask[1:length], chosen, 0.0)
    return rows


def gradient(model: PreTrainedModel, value: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    value.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_and_gradients_equal_plain_forward_passes(model: PreTrainedModel, temperature: float) -> None:
    batch = ragged_batch()
    weights = torch.randn(batch["tokens"].shape, generator=torch.Generator().manual_seed(1))
    expected = plain_log_probs(model, batch, temperature)
    expected_gradient = gradient(model, (expected * weights).sum())
    actual = Policy(model, temperature).log_probs(batch)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(gradient(model, (actual * weights).sum()), expected_gradient, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("config_class", "options"),
    [
        (MistralConfig, {"sliding_window": 8}),
        (Qwen3Config, {"head_dim": 16}),
        (GemmaConfig, {"head_dim": 16}),
        (Gemma2Config, {"head_dim": 16, "sliding_window": 8, "attn_logit_softcapping": 2.0}),
        (GraniteConfig, {"attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 2.0}),
        (CohereConfig, {"logit_scale": 0.25}),
        (PhimoeConfig, {"sliding_window": 8, "num_local_experts": 4}),
        (Qwen2MoeConfig, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, **EXPERTS}),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_other_families_agree_in_values_and_gradients(config_class: type, options: dict[str, float]) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    ids = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    config = config_class(vocab_size=300, num_key_value_heads=2, **shape, **ids, **options)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    batch = ragged_batch()
    expected = plain_log_probs(model, batch)
    expected_gradient = gradient(model, expected.sum())
    actual = Policy(model).log_probs(batch)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(gradient(model, actual.sum()), expected_gradient, atol=2e-3, rtol=1e-3)


def test_rows_beyond_a_switch_of_rotary_frequencies_are_refused_and_change_no_shorter_row() -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "rope_theta": 1e4}
    config = Phi3Config(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=256, original_max_position_embeddings=64, pad_token_id=0,
        rope_parameters={**rope, "original_max_position_embeddings": 64, "partial_rotary_factor": 1.0},
    )  # fmt: skip
    torch.manual_seed(0)
    policy = Policy(AutoModelForCausalLM.from_config(config).eval())
    within = ragged_batch()
    torch.testing.assert_close(policy.log_probs(within), plain_log_probs(policy.model, within), atol=1e-4, rtol=0)
    beyond = TensorDict(
        {
            "tokens": torch.arange(3, 70)[None],
            "mask": torch.arange(67)[None] >= 60,
            "prompt_length": torch.tensor([10]),
        },
        batch_size=[1],
    )
    with pytest.raises(ModelError, match="at most 64 tokens"):
        policy.log_probs(beyond)


@pytest.mark.parametrize(
    ("config_class", "options"),
    [
        (OPTConfig, {"ffn_dim": 48, "dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5}),
        (BioGptConfig, {"intermediate_size": 48, "hidden_dropout_prob": 0.5, "activation_dropout": 0.5}),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_gradient_checkpointing_leaves_dropout_off(config_class: type, options: dict[str, float]) -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(config_class(**shape, **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    batch = ragged_batch()
    expected = plain_log_probs(model, batch)
    expected_gradient = gradient(model, expected.sum())
    actual = Policy(model, gradient_checkpointing=True).log_probs(batch)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(gradient(model, actual.sum()), expected_gradient, atol=2e-3, rtol=1e-3)
    assert not any(module.training for module in model.modules())


def test_an_architecture_that_cannot_be_packed_is_refused() -> None:
    config = MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2)
    with pytest.raises(ModelError, match="'mamba' cannot be trained on packed rows"):
        Policy(AutoModelForCausalLM.from_config(config).eval())


def test_gradient_checkpointing_changes_neither_values_nor_gradients(model: PreTrainedModel) -> None:
    batch = ragged_batch()
    plain = Policy(model).log_probs(batch)
    expected = gradient(model, plain.sum())
    calls: list[str] = []
    model.base_model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append("mlp"))
    actual = Policy(model, gradient_checkpointing=True).log_probs(batch)
    calls.clear()
    torch.testing.assert_close(actual, plain)
    torch.testing.assert_close(gradient(model, actual.sum()), expected)
    assert calls == ["mlp"]  # computed again in the backward pass
    assert not model.training
    assert model.config._attn_implementation != PACKED


def test_a_model_in_bfloat16_is_close_and_its_log_probs_are_float32(model: PreTrainedModel) -> None:
    batch = ragged_batch()
    narrow = copy.deepcopy(model).to(torch.bfloat16)
    model.load_state_dict(narrow.state_dict())  # the same weights, wider
    exact, coarse = Policy(model).log_probs(batch), Policy(narrow).log_probs(batch)
    assert coarse.dtype == torch.float32
    assert 1e-4 < (coarse - exact).abs().mean() < 0.1
    expected = gradient(model, exact[batch["mask"]].mean())
    actual = gradient(narrow, coarse[batch["mask"]].mean())
    assert actual.dtype == torch.bfloat16
    assert torch.cosine_similarity(actual.float(), expected, dim=0) > 0.95


def test_equal_batches_give_equal_gradients_to_the_bit(model: PreTrainedModel) -> None:
    batch, policy = ragged_batch(), Policy(model)
    once, again = (gradient(model, policy.log_probs(batch).sum()) for _ in range(2))
    assert torch.equal(once, again)


def test_a_batch_without_a_sampled_token_has_log_probs_of_zero(model: PreTrainedModel) -> None:
    batch = ragged_batch()
    batch["mask"][:] = False
    assert not Policy(model).log_probs(batch).any()


def test_eager_attention_agrees_too(model: PreTrainedModel) -> None:
    batch = ragged_batch()
    expected = plain_log_probs(model, batch)
    model.set_attn_implementation("eager")
    torch.testing.assert_close(Policy(model).log_probs(batch), expected, atol=1e-4, rtol=0)


def test_entropy_is_that_of_the_softmax_at_sampled_tokens(model: PreTrainedModel) -> None:
    batch = ragged_batch()
    entropy = Policy(model).get_dist(batch).entropy()
    assert not entropy[~batch["mask"]].any()
    row, column = batch["mask"].nonzero()[5].tolist()
    with torch.no_grad():
        logits = model(batch["tokens"][None, row, :column]).logits[0, -1]
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy[row, column], expected, atol=1e-4, rtol=0)


def test_logits_are_computed_at_sampled_tokens_only() -> None:
    model = random_model("qwen2")
    batch = ragged_batch()
    assert len(Policy(model).get_dist(batch).states) == int(batch["mask"].sum())


def test_dropout_stays_off() -> None:
    model = random_model("llama", attention_dropout=0.5).train()
    batch = ragged_batch()
    policy = Policy(model)
    torch.testing.assert_close(policy.log_probs(batch), policy.log_probs(batch))
