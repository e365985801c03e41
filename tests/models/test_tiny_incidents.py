"""The bundled model that reads incidents is what the docs say it is."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from llmgym.agents import GRPO
from llmgym.config.presets import preset_of
from llmgym.demo import TINY_INCIDENTS_PATH
from llmgym.demo.incident_teacher import ROUNDS, Stage, guess, lessons, part
from llmgym.demo.teacher import RIGHT
from llmgym.demo.tiny_incidents import RECIPE, make_tokenizer
from llmgym.envs.incidents.incident import generate_incident
from llmgym.envs.incidents.world import DIFFICULTIES
from llmgym.models.causal_lm import load_causal_lm


@pytest.fixture(scope="module")
def bundled() -> PreTrainedTokenizerBase:
    return load_causal_lm(TINY_INCIDENTS_PATH)[1]


def test_it_is_small_and_holds_no_pickle() -> None:
    files = list(TINY_INCIDENTS_PATH.iterdir())
    assert sum(file.stat().st_size for file in files) <= 4 * 2**20
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors"}


def test_its_preset_names_its_environment() -> None:
    preset = preset_of("tiny-incidents")
    assert preset is not None
    assert preset.weights == TINY_INCIDENTS_PATH
    assert dict(preset.envs) == {"llmgym/AIOpsIncident-v0": {"difficulty": 0}}


def test_its_tokenizer_is_the_one_it_was_trained_with(bundled: PreTrainedTokenizerBase) -> None:
    original = make_tokenizer(RECIPE)
    for lesson in itertools.islice(lessons(np.random.default_rng(5), 1, ROUNDS[-1][-1]), 20):
        for text in (lesson.prompt[1].content, lesson.reasoning, *lesson.answers):
            assert bundled(text)["input_ids"] == original(text)["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("difficulty", [0, 1])
def test_it_reads_nearly_everything_right_and_names_the_cause_about_a_third_of_the_time(difficulty: int) -> None:
    agent = GRPO(env="AIOpsIncident", env_kwargs={"difficulty": difficulty}, model="tiny-incidents", eval_episodes=200)
    evaluation = agent.evaluate()
    assert evaluation.parts["no_early_conclusion"] > 0.95
    assert evaluation.parts["length_1"] > 0.95
    assert 0.2 < evaluation.success <= 0.4


@pytest.mark.slow
def test_grpo_makes_the_right_answer_the_rule(tmp_path: Path) -> None:
    agent = GRPO(env="AIOpsIncident", model="tiny-incidents", eval_episodes=0, max_tokens=96, output_dir=tmp_path)
    success = [metrics["success"] for metrics in agent.train(steps=10).metrics]
    assert np.mean(success[-3:]) > np.mean(success[:3]) + 0.1


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

    metrics, short, mixed, whole = ROUNDS[0]
    assert length(metrics, 0.0) < length(metrics, 1.0) < length(short, 1.0) < length(mixed, 1.0) < length(whole, 1.0)
    assert length(short, 0.0) < length(short, 0.5) < length(short, 1.0)
