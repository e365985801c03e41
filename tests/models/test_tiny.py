"""The bundled model is what the README says it is."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llmgym.agents import GRPO
from llmgym.demo import TINY_PATH
from llmgym.demo.teacher import RIGHT, ROUNDS, Stage, guess, lessons, part
from llmgym.demo.tiny import Recipe, as_llama, build, grow, loss_of, make_model, make_tokenizer
from llmgym.envs.aiops.incident import generate_incident
from llmgym.envs.aiops.world import DIFFICULTIES
from llmgym.models.causal_lm import load_causal_lm
from llmgym.rollout.chat import ChatCodec


@pytest.fixture(scope="module")
def bundled() -> PreTrainedTokenizerBase:
    return load_causal_lm(TINY_PATH)[1]


@pytest.fixture(scope="module")
def original() -> PreTrainedTokenizerFast:
    """The tokenizer of the recipe, whatever the sizes of its model are."""
    return make_tokenizer(Recipe())


def test_it_is_small_and_holds_no_pickle() -> None:
    files = list(TINY_PATH.iterdir())
    assert sum(file.stat().st_size for file in files) <= 10 * 2**20
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors"}


def test_every_text_survives_its_tokenizer(bundled: PreTrainedTokenizerBase) -> None:
    texts = [
        "".join(map(chr, range(0x20, 0x7F))),
        "".join(map(chr, range(0x4E00, 0xA000))),
        "，。！？《》“”　é🙂\t\n\r\0 \u2028",
        "Every  space   and\n\nline stays.",
    ]
    for text in texts:
        assert bundled.decode(bundled(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    assert bundled("日")["input_ids"]


def test_its_tokenizer_cuts_its_lessons_as_the_recipes_does(
    bundled: PreTrainedTokenizerBase, original: PreTrainedTokenizerFast
) -> None:
    for lesson in itertools.islice(lessons(np.random.default_rng(5), 1, ROUNDS[-1][-1]), 20):
        for text in (lesson.prompt[1].content, lesson.reasoning, *lesson.answers):
            assert bundled.tokenize(text) == original.tokenize(text)


def test_it_is_saved_as_the_same_function_in_another_architecture(original: PreTrainedTokenizerFast) -> None:
    recipe = Recipe(hidden=32, layers=2, intermediate=48, heads=2, kv_heads=1)
    model = make_model(recipe, original).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    tokens = torch.randint(len(original), (2, 50))
    llama = as_llama(model, recipe, original).eval()
    torch.testing.assert_close(llama(tokens).logits, model(tokens).logits)


@pytest.mark.slow
def test_it_knows_the_format_and_is_right_about_a_third_of_the_time() -> None:
    evaluation = GRPO(env="AIOpsTriage", eval_episodes=300).evaluate()
    assert evaluation.parts["json_ok"] > 0.9
    assert evaluation.parts["no_early_conclusion"] > 0.95
    assert evaluation.parts["evidence"] > 0.3
    assert 0.2 < evaluation.success <= 0.4


def test_answers_that_share_a_trunk_are_learnt_as_if_they_did_not(original: PreTrainedTokenizerFast) -> None:
    recipe = Recipe(hidden=32, layers=2, intermediate=48, heads=2, kv_heads=1)
    codec = ChatCodec(original)
    torch.manual_seed(0)
    model = make_model(recipe, original).eval()
    batch = list(itertools.islice(lessons(np.random.default_rng(0), 3, ROUNDS[-1][-1]), 4))
    shared = loss_of(model, [grow(lesson, codec, recipe) for lesson in batch])
    total, weight = torch.zeros(()), 0.0
    for lesson in batch:
        tree = grow(lesson, codec, recipe)
        trunk = tree.branch.count(0)
        for number in range(1, 4):
            rows = [i for i, branch in enumerate(tree.branch) if branch in (0, number)]
            tokens = torch.tensor([tree.tokens[i] for i in rows])
            losses = torch.nn.functional.cross_entropy(model(tokens[None]).logits[0, :-1], tokens[1:], reduction="none")
            counted = torch.tensor([tree.weights[i] for i in rows])[1:]
            if number > 1:
                counted[: trunk - 1] = 0.0  # the trunk counts once
            total, weight = total + (losses * counted).sum(), weight + counted.sum()
    torch.testing.assert_close(shared, total / weight)


@pytest.mark.slow
@pytest.mark.long
def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    recipe = Recipe(steps=2, hidden=32, layers=1, warmup_steps=1)
    for name in ("one", "other"):
        build(tmp_path / name, recipe)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "other")]
    assert weights[0] == weights[1]


def test_the_teacher_is_right_a_third_of_the_time_and_wrong_where_it_is_plausible() -> None:
    rng = np.random.default_rng(0)
    difficulty = DIFFICULTIES[1]
    right = 0
    for _ in range(1000):
        incident = generate_incident(rng, difficulty, "train")
        answer = json.loads(guess(rng, incident, difficulty, RIGHT))
        assert answer["service"] in {signal.service for signal in incident.signals}
        assert answer["incident_type"] in {kind.name for kind in difficulty.types}
        right += (answer["service"], answer["incident_type"]) == (incident.cause.service, incident.cause.incident_type)
    assert right / 1000 == pytest.approx(1 / 3, abs=0.05)


def test_a_part_of_an_incident_still_names_its_cause() -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.5, 1.0):
        for _ in range(50):
            whole = generate_incident(rng, DIFFICULTIES[1], "train")
            shown = part(rng, whole, share)
            fault = whole.cause.service
            assert (fault, "slow") in {(signal.service, signal.claim.state) for signal in shown.signals}
            kept, all_of_it = (
                [signal.claim for signal in one.of_kind("metric") if signal.service == fault] for one in (shown, whole)
            )
            assert kept == all_of_it
            if share == 1.0:
                assert shown == whole


def test_lessons_grow_from_one_row_of_gauges_to_whole_incidents() -> None:
    def length(stage: Stage, shown: float) -> float:
        taught = itertools.islice(lessons(np.random.default_rng(0), 1, stage, shown), 40)
        return float(np.mean([len(lesson.prompt[-1].content) for lesson in taught]))

    gauges, growing, mixed, whole = ROUNDS[0]
    services = replace(ROUNDS[-1][0], reads=("services",))
    assert length(gauges, 0.0) < length(gauges, 1.0) < length(growing, 1.0) < length(mixed, 1.0) < length(whole, 1.0)
    assert length(growing, 0.0) < length(growing, 0.5) < length(growing, 1.0)
    assert length(services, 1.0) < length(growing, 1.0)
