"""The embedded engine samples what the model says, whatever its batch looks like."""

import random
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import random_model
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GemmaConfig,
    GraniteConfig,
    MambaConfig,
    MinPLogitsWarper,
    MistralConfig,
    Phi3Config,
    PhimoeConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llmgym.config.sections import Sampling
from llmgym.engines.base import Completion, GenerationRequest
from llmgym.engines.local import engine as local
from llmgym.engines.local import scheduler
from llmgym.engines.local.decode_graphs import CaptureError, DecodeGraphs, DecodeStep
from llmgym.engines.local.decoders import FusedDecoder, TransformersDecoder
from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.local.forward_pass import ForwardPass, Span
from llmgym.engines.local.kv_cache import Store, bytes_per_token
from llmgym.errors import ContextOverflowError, EngineError, ModelError
from llmgym.rollout.chat import ChatCodec

STOP = 2


def request(
    i: int, tokens: Iterable[int], *, episode: int | None = None, seed: int | None = None, **options: Any
) -> GenerationRequest:
    sampling = Sampling.of({"max_tokens": 12, **options})
    return GenerationRequest(
        request_id=i,
        episode_id=i if episode is None else episode,
        tokens=list(tokens),
        max_tokens=sampling.max_tokens,
        stop_token_ids=(STOP,),
        sampling=sampling,
        seed=i if seed is None else seed,
    )


def drain(engine: LocalEngine) -> dict[int, Completion]:
    completions = {}
    while batch := engine.wait():
        completions.update({completion.request_id: completion for completion in batch})
    return completions


def plain_log_probs(model: PreTrainedModel, tokens: list[int], temperature: float = 1.0) -> torch.Tensor:
    """The log-probability of every token given those before it, by a plain forward pass: [T-1]."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens], device=model.device)).logits[0, :-1] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens[1:], device=model.device)[:, None])[:, 0]


@pytest.mark.parametrize("max_running", [64, 5], ids=["roomy", "under pressure"])
@pytest.mark.parametrize("chunk", [512, 7], ids=["whole", "chunked"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("steps", ["of any shape", "of fixed shapes"])
def test_log_probs_equal_a_plain_forward_pass_over_three_ragged_turns(
    model: PreTrainedModel,
    max_running: int,
    chunk: int,
    temperature: float,
    steps: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "_CHUNK", chunk)
    monkeypatch.setattr(local, "PREFILL_TOKENS", 4 * chunk)
    monkeypatch.setattr(scheduler, "PREFILL_TOKENS", 4 * chunk)
    engine = LocalEngine(model, max_running=max_running, context_length=600)
    if steps == "of fixed shapes":  # those that a GPU captures
        engine._graphs = DecodeGraphs(engine._decoder, engine._slots.episode_store, engine._slots.prompt_store)
    rng = random.Random(0)
    episodes = {i: [rng.randrange(3, 300) for _ in range(rng.randrange(3, 90))] for i in range(12)}
    episodes[7] = list(episodes[3])  # siblings share a prompt
    episodes[8] = list(episodes[3])
    sampled: dict[int, list[tuple[int, list[float]]]] = {i: [] for i in episodes}
    turns = dict.fromkeys(episodes, 0)

    def submit(i: int) -> None:
        engine.submit([request(i, episodes[i], max_tokens=rng.randrange(1, 30), temperature=temperature)])

    for i in episodes:
        submit(i)
    while batch := engine.wait():
        for completion in batch:
            i = completion.request_id
            sampled[i].append((len(episodes[i]), completion.log_probs))
            episodes[i] += completion.tokens
            turns[i] += 1
            if turns[i] < 3:
                episodes[i] += [rng.randrange(3, 300) for _ in range(rng.randrange(1, 40))]
                submit(i)
            else:
                engine.release([i])
    for i, tokens in episodes.items():
        expected = plain_log_probs(model, tokens, temperature)
        for start, log_probs in sampled[i]:
            assert len(log_probs) > 0
            torch.testing.assert_close(
                torch.tensor(log_probs), expected[start - 1 : start - 1 + len(log_probs)], atol=1e-4, rtol=0
            )


def test_replies_begin_before_the_last_prompt_is_read(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PREFILL_TOKENS", 100)
    monkeypatch.setattr(scheduler, "PREFILL_TOKENS", 100)
    engine = LocalEngine(model)
    tokens = count_tokens(engine, monkeypatch)
    engine.submit([request(i, [3 + i // 2, *range(10, 49)], max_tokens=50) for i in range(12)])  # six prompts of 40
    engine.poll()
    assert len(engine._scheduler.running) == 4  # siblings come together: two prompts
    assert sum(tokens) <= 100
    engine.poll()
    assert len(engine._scheduler.running) == 12


def test_the_same_request_gives_the_same_tokens_in_any_company(model: PreTrainedModel) -> None:
    prompt = list(range(10, 40))
    alone = LocalEngine(model)
    alone.submit([request(0, prompt, max_tokens=25, seed=42)])
    expected = drain(alone)[0].tokens
    crowded = LocalEngine(model, max_running=7)
    crowded.submit([request(i, range(5 + i, 50 - i), max_tokens=3 + i) for i in range(1, 15)])
    crowded.submit([request(0, prompt, max_tokens=25, seed=42)])
    assert drain(crowded)[0].tokens == expected


def test_greedy_decoding_equals_generate(model: PreTrainedModel) -> None:
    prompts = [list(range(5, 25)), list(range(30, 37)), list(range(40, 90))]
    engine = LocalEngine(model)
    engine.submit([request(i, prompt, max_tokens=20, temperature=0.0) for i, prompt in enumerate(prompts)])
    for i, completion in drain(engine).items():
        output = model.generate(torch.tensor([prompts[i]]), max_new_tokens=20, do_sample=False, eos_token_id=STOP)
        assert completion.tokens == output[0, len(prompts[i]) :].tolist()
        assert completion.log_probs == [0.0] * len(completion.tokens)


def test_samples_follow_the_models_distribution() -> None:
    model = random_model("qwen2")
    prompt = list(range(3, 20))
    with torch.no_grad():
        probabilities = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    engine = LocalEngine(model, max_running=2000)
    engine.submit([request(i, prompt, max_tokens=1) for i in range(2000)])
    counts = torch.zeros(300)
    for completion in drain(engine).values():
        counts[completion.tokens[0]] += 1
    expected = 2000 * probabilities
    deviation = (counts - expected) / (expected * (1 - probabilities)).sqrt().clamp(min=1.0)
    assert deviation.abs().max() < 5  # standard deviations, over 300 tokens


def test_a_reply_ends_after_a_stop_token_or_at_its_limit(model: PreTrainedModel) -> None:
    engine = LocalEngine(model, context_length=64)
    engine.submit([request(i, range(3, 40), max_tokens=10) for i in range(300)])
    engine.submit([request(999, range(3, 60), max_tokens=1000)])
    for completion in drain(engine).values():
        assert STOP not in completion.tokens[:-1]
        if completion.finish_reason == "stop":
            assert completion.tokens[-1] == STOP
        else:
            assert len(completion.tokens) == (64 - 57 if completion.request_id == 999 else 10)


def count_tokens(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the number of tokens of every forward pass."""
    ran: list[int] = []
    hidden = engine._decoder.hidden

    def counting(forward_pass: ForwardPass) -> torch.Tensor:
        ran.append(len(forward_pass.tokens))
        return hidden(forward_pass)

    monkeypatch.setattr(engine._decoder, "hidden", counting)
    return ran


def test_a_token_runs_once_however_many_siblings_and_turns_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LocalEngine(random_model("qwen2"))
    ran = count_tokens(engine, monkeypatch)
    prompt = list(range(3, 203))
    others = [request(100 + i, range(40 + i, 90), max_tokens=1) for i in range(3)]
    engine.submit([*(request(i, prompt, episode=i, max_tokens=1) for i in range(8)), *others])
    first = drain(engine)
    # The siblings' prompt once but for its last token, the others' prompts, then everybody's last token.
    assert ran == [199, 49 + 48 + 47, 8 + 3]
    ran.clear()
    engine.submit([request(i, [*prompt, *first[i].tokens, 5, 6, 7], episode=i, max_tokens=1) for i in range(8)])
    drain(engine)
    assert ran == [8 * 4]  # the last sampled token and the three new ones, in one pass
    ran.clear()
    engine.submit([request(50, prompt, max_tokens=1)])  # a late sibling finds the prompt there
    drain(engine)
    assert ran == [1]


def test_new_weights_forget_the_old_cache() -> None:
    model, other = random_model("qwen2"), random_model("qwen2", hidden_size=32)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.2)
    engine = LocalEngine(model)
    prompt = list(range(3, 40))
    engine.submit([request(0, prompt, max_tokens=5)])
    tokens = [*prompt, *drain(engine)[0].tokens]
    engine.load_weights(other.named_parameters(), version=7)
    engine.submit([request(0, [*tokens, 9], max_tokens=6)])
    completion = drain(engine)[0]
    whole = [*tokens, 9, *completion.tokens]
    expected = plain_log_probs(other, whole)[len(tokens) :]
    torch.testing.assert_close(torch.tensor(completion.log_probs), expected, atol=1e-4, rtol=0)
    assert completion.weight_version == 7


def test_a_model_that_computes_no_numbers_ends_with_the_weight_that_is_none() -> None:
    model = random_model("llama")
    engine = LocalEngine(model)
    with torch.no_grad():
        model.get_input_embeddings().weight[40] = torch.nan  # of a token that no self-test needs to have seen
    engine.submit([request(0, [5, 6, 40, 7])])
    with pytest.raises(
        EngineError, match=r"logits of the model are not numbers: .* but model\.embed_tokens\.weight has"
    ):
        engine.wait()


def test_a_prompt_that_fills_the_context_is_refused(model: PreTrainedModel) -> None:
    engine = LocalEngine(model, context_length=32)
    with pytest.raises(ContextOverflowError, match=r"prompt of 32 tokens .* context of 32 tokens"):
        engine.submit([request(0, range(3, 35))])
    assert engine.wait() == []


def test_a_cache_that_holds_no_context_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(ModelError, match=r"holds no context of 2048 tokens.*takes 0\.00 GiB"):
        LocalEngine(model, memory_gib=1e-6)


def test_sampling_leaves_the_learners_attention_alone(model: PreTrainedModel) -> None:
    before = model.config._attn_implementation
    engine = LocalEngine(model)
    engine.submit([request(0, range(3, 20))])
    drain(engine)
    assert model.config._attn_implementation == before


def test_returning_episodes_keep_their_rows_under_pressure(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LocalEngine(random_model("qwen2"), max_running=4)
    ran = count_tokens(engine, monkeypatch)
    prompts = {i: list(range(3 + i, 103 + i)) for i in range(8)}
    engine.submit([request(i, prompts[i], max_tokens=1) for i in range(4)])
    first = drain(engine)
    ran.clear()
    engine.submit([request(i, prompts[i], max_tokens=1) for i in range(4, 8)])
    engine.submit([request(i, [*prompts[i], *first[i].tokens, 9], episode=i, max_tokens=1) for i in range(4)])
    drain(engine)
    assert sum(ran) == 4 * 2 + 4 * 100


@pytest.mark.parametrize("contexts", [1, 3, 9])
def test_episodes_that_outgrow_the_memory_wait_and_lose_nothing(contexts: int) -> None:
    model = random_model("qwen2")
    prompts = {i: list(range(3 + i // 4, 60)) for i in range(16)}

    memory = contexts * 320 * bytes_per_token(model.config, torch.float32)
    engine = LocalEngine(model, context_length=320, memory_gib=memory / 2**30)
    engine.submit([replace(request(i, prompt, max_tokens=200), stop_token_ids=()) for i, prompt in prompts.items()])
    completions = drain(engine)
    stores = engine._slots.episode_store, engine._slots.prompt_store
    assert 0 < sum(store.tokens for store in stores) <= contexts * 320
    for i, prompt in prompts.items():
        assert len(completions[i].tokens) == 200
        expected = plain_log_probs(model, [*prompt, *completions[i].tokens])[len(prompt) - 1 :]
        torch.testing.assert_close(torch.tensor(completions[i].log_probs), expected, atol=1e-4, rtol=1e-4)


EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
GRANITE = {"logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3}


@pytest.mark.parametrize(
    ("config_class", "options"),
    [
        (MistralConfig, {"sliding_window": 8}),
        (MistralConfig, {"sliding_window": None, "head_dim": 16}),
        (Qwen2Config, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
        (Qwen3Config, {"head_dim": 16}),
        (GemmaConfig, {"head_dim": 16}),
        (Gemma2Config, {"head_dim": 16, "sliding_window": 8, "attn_logit_softcapping": 2.0}),
        (GraniteConfig, GRANITE),
        (CohereConfig, {"logit_scale": 0.25}),
        (PhimoeConfig, {"sliding_window": 8, "num_local_experts": 4}),
        (Qwen2MoeConfig, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, **EXPERTS}),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_other_families_agree_with_themselves(config_class: type, options: dict[str, float]) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    ids = {"bos_token_id": None, "eos_token_id": STOP, "pad_token_id": 0}
    torch.manual_seed(0)
    config = config_class(vocab_size=300, num_key_value_heads=2, **shape, **ids, **options)
    attention = "eager" if config.model_type == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    engine = LocalEngine(model)
    prompts = {i: list(range(3 + i // 2, 40 - i // 2)) for i in range(9)}  # pairs of siblings, and one alone
    engine.submit([request(i, prompt, max_tokens=30) for i, prompt in prompts.items()])
    for i, completion in drain(engine).items():
        tokens = [*prompts[i], *completion.tokens]
        expected = plain_log_probs(model, tokens)[-len(completion.tokens) :]
        torch.testing.assert_close(torch.tensor(completion.log_probs), expected, atol=1e-4, rtol=0)


def longrope(original: int) -> PreTrainedModel:
    """A model whose rotary frequencies are others in conversations of more than `original` tokens."""
    torch.manual_seed(0)
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "rope_theta": 1e4}
    config = Phi3Config(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=256, original_max_position_embeddings=original, pad_token_id=0,
        rope_parameters={**rope, "original_max_position_embeddings": original, "partial_rotary_factor": 1.0},
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model


@pytest.mark.parametrize("asked", [None, 40, 200])
def test_an_episode_ends_where_rotary_frequencies_would_switch_and_is_right_until_then(asked: int | None) -> None:
    model = longrope(48)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        engine = LocalEngine(model, context_length=asked)
    assert engine.context_length == min(asked or 48, 48)
    assert any("rotary frequencies" in str(warning.message) for warning in warned) == (asked != 40)
    prompts = {0: list(range(3, 33)), 1: list(range(3, 33)), 2: list(range(9, 20))}
    engine.submit([request(i, prompt, max_tokens=100) for i, prompt in prompts.items()])
    completions = drain(engine)
    assert max(len(prompts[i]) + len(completion.tokens) for i, completion in completions.items()) == min(
        asked or 48, 48
    )
    for i, completion in completions.items():
        tokens = [*prompts[i], *completion.tokens]
        expected = plain_log_probs(model, tokens)[-len(completion.tokens) :]
        torch.testing.assert_close(torch.tensor(completion.log_probs), expected, atol=1e-3, rtol=0)


def test_a_llama_has_no_window_even_where_its_configuration_names_one() -> None:
    model = random_model("llama", sliding_window=8)
    engine = LocalEngine(model)
    prompt = list(range(3, 40))
    engine.submit([request(0, prompt, max_tokens=10)])
    completion = drain(engine)[0]
    expected = plain_log_probs(model, [*prompt, *completion.tokens])[-len(completion.tokens) :]
    torch.testing.assert_close(torch.tensor(completion.log_probs), expected, atol=1e-4, rtol=0)


def test_a_model_that_the_engine_cannot_run_is_refused() -> None:
    config = MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2)
    config.num_key_value_heads = config.num_attention_heads = 4
    config.max_position_embeddings = 64
    with pytest.raises(ModelError, match="cannot run models of type 'mamba'"):
        LocalEngine(AutoModelForCausalLM.from_config(config).eval())


@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3", "mistral"])
def test_the_fused_decoder_is_chosen_and_equals_the_general_one(family: str) -> None:
    model = random_model(family)
    fused, general = LocalEngine(model), LocalEngine(model)
    assert isinstance(fused._decoder, FusedDecoder)
    general._decoder = TransformersDecoder(model)
    requests = [request(i, range(3 + i // 3, 70), max_tokens=40) for i in range(7)]
    fused.submit(requests)
    general.submit(requests)
    expected = drain(general)
    for i, completion in drain(fused).items():
        assert completion.tokens == expected[i].tokens
        torch.testing.assert_close(
            torch.tensor(completion.log_probs), torch.tensor(expected[i].log_probs), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3", "mistral"])
def test_a_decoding_step_of_fixed_shape_never_waits_for_a_result(family: str) -> None:
    device = torch.device("meta")  # where there are shapes and no values: whatever asks for one fails
    with device:
        model = random_model(family)
    store, prompts = (Store(model.config, torch.float32, device) for _ in range(2))
    store.resize(9, 64)
    prompts.resize(2, 40)
    step = DecodeStep(8, store, prompts)
    step.fill([Span(0, 3, [5], 1), Span(1, 4, [5])], [12, 20])
    decoder = FusedDecoder(model)
    with torch.inference_mode():
        logits = step.logits(decoder)
    assert logits.shape == (8, model.config.vocab_size)


def test_an_engine_whose_steps_cannot_be_captured_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("qwen2")
    engine, expected = LocalEngine(model), LocalEngine(model)
    engine._graphs = DecodeGraphs(engine._decoder, engine._slots.episode_store, engine._slots.prompt_store)

    def fail(self: DecodeGraphs, step: DecodeStep) -> None:
        raise CaptureError("operation not permitted when stream is capturing")

    monkeypatch.setattr(DecodeGraphs, "_capture", fail)
    requests = [request(i, range(3 + i, 40), max_tokens=9) for i in range(5)]
    engine.submit(requests)
    expected.submit(requests)
    with pytest.warns(UserWarning, match="without CUDA graphs.*not permitted"):
        completions = drain(engine)
    assert {i: one.tokens for i, one in completions.items()} == {i: one.tokens for i, one in drain(expected).items()}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
def test_a_gpu_replays_captured_steps_and_follows_new_weights() -> None:
    model = random_model("qwen2").cuda()
    engine = LocalEngine(model)
    for version in (1, 2):
        requests = [request(i, range(3 + i // 2, 40), max_tokens=30) for i in range(5)]
        engine.submit(requests)
        for i, completion in drain(engine).items():
            prompt = list(requests[i].tokens)
            expected = plain_log_probs(model, [*prompt, *completion.tokens])[len(prompt) - 1 :]
            torch.testing.assert_close(torch.tensor(completion.log_probs), expected.cpu(), atol=1e-3, rtol=0)
        assert engine._graphs is not None
        assert engine._graphs.captures
        assert 8 in engine._graphs._steps
        engine.load_weights([(name, value * 1.1) for name, value in model.named_parameters()], version)


def test_a_learner_that_trains_the_module_trains_the_engine(model: PreTrainedModel) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.02)
    engine = LocalEngine(model)
    before = sum(parameter.untyped_storage().nbytes() for parameter in model.parameters())
    for version in (1, 2):
        model(torch.tensor([list(range(3, 40))]), labels=torch.tensor([list(range(3, 40))])).loss.backward()
        optimiser.step()
        engine.load_weights(model.named_parameters(), version)
        prompt = list(range(3, 30))
        engine.submit([request(0, prompt, max_tokens=9)])
        completion = drain(engine)[0]
        expected = plain_log_probs(model, [*prompt, *completion.tokens])[len(prompt) - 1 :]
        torch.testing.assert_close(torch.tensor(completion.log_probs), expected, atol=1e-4, rtol=0)
    assert sum(parameter.untyped_storage().nbytes() for parameter in model.parameters()) == before


def test_weights_that_moved_to_other_memory_are_followed(model: PreTrainedModel) -> None:
    engine = LocalEngine(model)
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.1
    engine.load_weights(model.named_parameters(), version=1)
    engine.submit([request(0, range(3, 30))])
    tokens = [*range(3, 30), *drain(engine)[0].tokens]
    engine.load_weights((), version=2)
    engine.submit([request(0, range(3, 30))])
    expected = plain_log_probs(model, tokens)[26:]
    torch.testing.assert_close(torch.tensor(drain(engine)[0].log_probs), expected, atol=1e-4, rtol=0)


def test_a_bfloat16_engine_follows_a_float32_learner() -> None:
    learner, sampler = random_model("qwen2"), random_model("qwen2").to(torch.bfloat16)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.mul_(1.1)
    engine = LocalEngine(sampler)
    engine.load_weights(learner.named_parameters(), version=1)
    prompt = list(range(3, 40))
    engine.submit([request(i, prompt, max_tokens=20) for i in range(4)])
    rounded = random_model("qwen2").to(torch.bfloat16)
    rounded.load_state_dict(learner.to(torch.bfloat16).state_dict())
    for completion in drain(engine).values():
        expected = plain_log_probs(rounded, [*prompt, *completion.tokens])[len(prompt) - 1 :].float()
        assert (torch.tensor(completion.log_probs) - expected).abs().mean() < 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 5},
        {"top_p": 0.6},
        {"min_p": 0.3},
        {"top_k": 20, "top_p": 0.5, "temperature": 0.7},
        {"top_k": 20, "top_p": 0.9, "min_p": 0.2, "temperature": 0.7},
    ],
)
def test_truncated_sampling_keeps_to_transformers_own_filters(options: dict[str, float]) -> None:
    model = random_model("qwen2")
    prompt = list(range(3, 20))
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[:, -1] / options.get("temperature", 1.0)
    if "top_k" in options:
        logits = TopKLogitsWarper(int(options["top_k"]))(None, logits)
    if "top_p" in options:
        logits = TopPLogitsWarper(options["top_p"])(None, logits)
    if "min_p" in options:
        logits = MinPLogitsWarper(options["min_p"])(None, logits)
    expected = logits[0].log_softmax(-1)
    engine = LocalEngine(model, max_running=600)
    engine.submit([request(i, prompt, max_tokens=1, **options) for i in range(500)])
    engine.submit([request(500 + i, prompt, max_tokens=1) for i in range(100)])  # these in the same batch are free
    completions = drain(engine)
    seen = {completions[i].tokens[0] for i in range(500)}
    assert seen == set(expected.isfinite().nonzero()[:, 0].tolist())
    for i in range(500):
        token, log_prob = completions[i].tokens[0], completions[i].log_probs[0]
        assert log_prob == pytest.approx(float(expected[token]), abs=1e-4)
    free = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1).detach()
    for i in range(500, 600):
        assert completions[i].log_probs[0] == pytest.approx(float(free[completions[i].tokens[0]]), abs=1e-4)


def test_each_request_of_a_batch_has_filters_of_its_own() -> None:
    model, prompt = random_model("qwen2"), list(range(3, 20))
    kinds: list[dict[str, float]] = [{}, {"top_p": 0.5}, {"min_p": 0.5}, {"top_k": 4, "min_p": 0.1}]
    alone = [LocalEngine(model) for _ in kinds]
    for engine, options in zip(alone, kinds, strict=True):
        engine.submit([request(i, prompt, max_tokens=3, **options) for i in range(20)])
    together = LocalEngine(model)
    together.submit(
        [request(20 * k + i, prompt, max_tokens=3, seed=i, **o) for k, o in enumerate(kinds) for i in range(20)]
    )
    found = drain(together)
    for k, engine in enumerate(alone):
        for i, completion in drain(engine).items():
            assert found[20 * k + i].tokens == completion.tokens
            assert found[20 * k + i].log_probs == pytest.approx(completion.log_probs, abs=1e-4)


def test_a_reply_ends_after_the_token_that_completes_a_stop_string(tokenizer: PreTrainedTokenizerFast) -> None:
    codec = ChatCodec(tokenizer)
    model = random_model("qwen2", vocab_size=len(tokenizer))
    prompt = tokenizer("hello there")["input_ids"]
    engine = LocalEngine(model, text_of=codec.text)
    engine.submit([request(i, prompt, max_tokens=40) for i in range(20)])
    free = drain(engine)
    for i, completion in free.items():
        text = codec.text(completion.tokens)
        stop = text[len(text) // 2 : len(text) // 2 + 2]
        engine.submit([request(i, prompt, max_tokens=40, stop=("never, ever", *([stop] if stop else [])))])
        stopped = drain(engine)[i]
        assert stopped.tokens == completion.tokens[: len(stopped.tokens)]
        if stop and "\N{REPLACEMENT CHARACTER}" not in stop:
            assert stopped.finish_reason == "stop"
            assert stop in codec.text(stopped.tokens)
            assert stop not in codec.text(stopped.tokens[:-1])


def test_stop_strings_without_a_way_to_read_tokens_are_refused(model: PreTrainedModel) -> None:
    with pytest.raises(ModelError, match="text_of"):
        LocalEngine(model).submit([request(0, range(3, 20), stop=("x",))])


def test_an_aborted_engine_starts_afresh(model: PreTrainedModel) -> None:
    engine = LocalEngine(model)
    engine.submit([request(i, range(3, 30), max_tokens=50 if i else 1) for i in range(5)])
    engine.wait()
    engine.abort()
    assert engine.wait() == []
    engine.submit([request(0, range(3, 30), seed=9)])
    again = drain(engine)[0]
    fresh = LocalEngine(model)
    fresh.submit([request(0, range(3, 30), seed=9)])
    assert drain(fresh)[0] == again
