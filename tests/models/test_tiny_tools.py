"""The bundled model that calls tools is what the docs say it is."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from llmgym.agents import GRPO
from llmgym.calls import ToolCall
from llmgym.config.presets import preset_of
from llmgym.data.trajectories import read_trajectories
from llmgym.demo import TINY_TOOLS_PATH
from llmgym.demo.tiny_tools import CLASSES, RECIPE, RIGHT, grow, lessons, make_tokenizer, write
from llmgym.models.causal_lm import load_causal_lm
from llmgym.rollout.chat import ChatCodec
from llmgym.types import Message


@pytest.fixture(scope="module")
def bundled() -> PreTrainedTokenizerBase:
    return load_causal_lm(TINY_TOOLS_PATH)[1]


def test_it_is_small_and_holds_no_pickle() -> None:
    files = list(TINY_TOOLS_PATH.iterdir())
    assert sum(file.stat().st_size for file in files) <= 2 * 2**20
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors"}


def test_its_preset_names_the_environments_of_its_recipe() -> None:
    preset = preset_of("tiny-tools")
    assert preset is not None
    assert preset.weights == TINY_TOOLS_PATH
    assert dict(preset.envs) == {one.env: one.arguments for one in CLASSES}


def test_its_tokenizer_is_the_one_it_was_trained_with(bundled: PreTrainedTokenizerBase) -> None:
    original = make_tokenizer(RECIPE)
    codecs = ChatCodec(bundled), ChatCodec(original)
    for taught in CLASSES:
        for lesson in itertools.islice(lessons(np.random.default_rng(5), taught, 0.5), 20):
            one, other = (write(lesson, codec).tokens for codec in codecs)
            assert one == other


def test_its_template_shows_tools_and_writes_calls_in_a_way_of_its_own(bundled: PreTrainedTokenizerBase) -> None:
    codec = ChatCodec(bundled)
    assert codec.template.tool_format.native
    call = ToolCall("calculator", {"expression": "(3 + 4) * 5"})
    for said in ("", "Let me see."):
        text = codec.spell(codec.reply(Message("assistant", said, calls=(call,)), []))
        assert codec.template.tool_format.read(text.removesuffix("<|im_end|>"), ()).calls == (call,)


def test_a_teacher_is_right_a_third_of_the_time_at_most() -> None:
    played = list(itertools.islice(lessons(np.random.default_rng(0), CLASSES[0], RIGHT), 500))
    assert all(lesson.tools for lesson in played)
    calls = sum(any(message.calls for message in lesson.messages) for lesson in played)
    assert calls / 500 == pytest.approx(RIGHT, abs=0.06)
    assert RIGHT <= 1 / 3


def test_lessons_share_what_they_begin_with_and_only_replies_are_learnt(bundled: PreTrainedTokenizerBase) -> None:
    codec = ChatCodec(bundled)
    for taught in CLASSES:
        written = [write(one, codec) for one in itertools.islice(lessons(np.random.default_rng(0), taught, 0.5), 6)]
        tree = grow(written)
        trunk = tree.branch.count(0)
        assert trunk > 20
        for number, one in enumerate(written, start=1):
            rows = [i for i, branch in enumerate(tree.branch) if branch in (0, number)]
            assert [tree.tokens[i] for i in rows] == one.tokens
            assert [tree.positions[i] for i in rows] == [*range(len(one.tokens))]
            assert [tree.weights[i] > 0 for i in rows] == one.mask


@pytest.mark.parametrize("env", [one.env for one in CLASSES])
def test_a_few_steps_of_training_go_through_in_each_environment(env: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"prompts_per_step": 2, "group_size": 8, "eval_episodes": 4, "sample_every": 0}
    run = GRPO(env=env, model="tiny-tools", output_dir=tmp_path, **options).train(steps=2)
    assert len(run.metrics) == 2


def test_it_calls_its_tool_and_answers_what_that_says(tmp_path: Path) -> None:
    options: dict[str, Any] = {"prompts_per_step": 4, "group_size": 8, "eval_episodes": 0, "sample_every": 0}
    run = GRPO(env="Sums", model="tiny-tools", output_dir=tmp_path, **options).train(steps=1)
    played = read_trajectories(run.path / "trajectories" / "step-00001.parquet")
    called = [one for one in played if one.messages[-2].role == "tool"]
    assert len(called) > 3
    assert sum(one.messages[-2].content in one.messages[-1].content for one in called) > len(called) / 2


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("env", "steps", "before", "after"),
    [("Sums", 24, 0.4, 0.9), ("KuhnPoker", 40, 0.4, 0.66)],  # an expert wins 0.74 of the matches, or loses no chips
)
def test_it_learns_what_it_did_right_now_and_then(
    env: str, steps: int, before: float, after: float, tmp_path: Path
) -> None:
    agent = GRPO(env=env, model="tiny-tools", output_dir=tmp_path, eval_episodes=200, sample_every=0)
    run = agent.train(steps)
    assert run.before is not None
    assert run.after is not None
    assert run.before.success <= before
    assert run.after.success >= after
