"""A reward model that a real SGLang serves, on a CPU: `make test-sglang`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sglang_http import sglang_server

from llmgym import Episode, Score
from llmgym.demo import TINY_PATH
from llmgym.envs.waiting import settled
from llmgym.learn.checkpoint import save_checkpoint
from llmgym.learn.reward_model import RewardModel
from llmgym.scorers import ask, resolve_scorer
from llmgym.types import Turn

pytest.importorskip("sglang")
CPU = pytest.importorskip("cpu_options").CPU


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    rewards = RewardModel.load(TINY_PATH, fresh_head=True)
    path = tmp_path_factory.mktemp("reward_model") / "checkpoint"
    save_checkpoint(path, rewards.model, rewards.tokenizer)
    return path


@pytest.fixture(scope="module")
def url(checkpoint: Path) -> Iterator[str]:
    with sglang_server(checkpoint, {**CPU, "is_embedding": True}) as found:
        yield found


def scored(name: str, episodes: list[Episode]) -> list[Score]:
    scores: list[Score] = settled(ask(resolve_scorer(f"reward_model:{name}"), episodes, [0] * len(episodes)))
    return scores


def test_it_gives_the_rewards_of_the_same_model_in_this_process(url: str, checkpoint: Path) -> None:
    episodes = [
        Episode(
            "Be brief." if i % 2 else None,
            [Turn(f"task {i // 4} <|im_end|>", "word " * (i % 7)), *([Turn("Go on.", "x <|im_start|>")] * (i % 3))],
        )
        for i in range(24)
    ]
    served, here = scored(url, episodes), scored(str(checkpoint), episodes)
    values = [score.value for score in here]
    assert [score.value for score in served] == pytest.approx(values, abs=1e-4)
    assert max(values) - min(values) > 0.1
    assert {score.kind for score in served} == {"log_odds"}


def test_a_conversation_that_is_too_long_is_missing_and_costs_no_other(url: str) -> None:
    long, short = scored(url, [Episode(None, [Turn("a", "b " * 3000)]), Episode(None, [Turn("a", "b")])])
    assert long.value is None
    assert "longer than the model's context length" in str(long.error)
    assert short.value is not None


def test_the_whole_formula_takes_its_url(url: str) -> None:
    alone = scored(url, [Episode(None, [Turn("a", "b")])])[0].value
    formula = resolve_scorer(f"0.5*reward_model:{url} + 0.5*length:10")
    (both,) = settled(ask(formula, [Episode(None, [Turn("a", "b")])], [0]))
    assert both.parts[f"reward_model:{url}"] == pytest.approx(alone, abs=1e-5)
