"""A server of a reward model: what it answers, and what it costs if it does not. tests/engines has the real SGLang."""

from collections.abc import Iterator
from typing import Any

import pytest
from reward_http import FACTS, RewardModelServer

from llmgym import Episode, Score
from llmgym.demo import TINY_PATH
from llmgym.envs.waiting import settled
from llmgym.errors import ConfigError, ModelError
from llmgym.learn.reward_model import RewardModel
from llmgym.rollout.reward_server import KEY, RewardServer
from llmgym.scorers import ask, resolve_scorer
from llmgym.types import Turn


@pytest.fixture
def server() -> Iterator[RewardModelServer]:
    found = RewardModelServer()
    yield found
    found.close()


EPISODES = [Episode(None, [Turn("Say something.", "word " * count)]) for count in range(4)]


def scores_of(scorer: Any) -> list[Score]:
    scores: list[Score] = settled(ask(scorer, EPISODES, [0] * len(EPISODES)))
    return scores


def test_it_is_sent_the_tokens_that_a_model_in_this_process_reads(server: RewardModelServer) -> None:
    model = RewardModel.load(TINY_PATH, fresh_head=True)
    expected = [model.encode(episode.messages) for episode in EPISODES]
    assert [score.value for score in scores_of(resolve_scorer(f"reward_model:{server.url}"))] == list(
        map(len, expected)
    )
    assert sorted(server.asked) == sorted(expected)


def test_what_passes_is_tried_again(server: RewardModelServer) -> None:
    server.failures = 3
    assert all(score.value is not None for score in scores_of(RewardServer(server.url)))
    assert len(server.asked) == len(EPISODES) + 3


@pytest.mark.parametrize(
    "instead",
    [
        (200, b"rubbish"),
        (200, b"[]"),
        (200, b"null"),
        (200, b'{"embedding": []}'),
        (200, b'{"embedding": [1.0, 2.0]}'),
        (200, b'{"embedding": [NaN]}'),
        (200, b'{"embedding": [1e999]}'),
        (200, b'{"embedding": [%d]}' % 10**400),
        (200, b'{"embedding": "secret-canary"}'),
        (200, b'{"embedding": ["1"]}'),
        (200, b'{"embedding": [true]}'),
        (400, b'{"message": "too long"}'),
        1.5,
    ],
    ids=str,
)
def test_what_is_no_reward_is_missing_with_the_reason_and_costs_no_other(
    server: RewardModelServer, instead: Any
) -> None:
    scorer = RewardServer(server.url, timeout=0.5, retries=0)
    lengths = [int(score.value or 0) for score in scores_of(scorer)]
    server.instead = {lengths[1]: instead}
    scores = scores_of(scorer)
    assert [score.value for score in scores] == [lengths[0], None, *lengths[2:]]
    assert server.url in str(scores[1].error)


def test_its_key_is_sent_and_told_to_nobody(server: RewardModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, " secret-canary\n")
    scorer = resolve_scorer(f"reward_model:{server.url}")
    lengths = [int(score.value or 0) for score in scores_of(scorer)]
    assert set(server.keys) == {"Bearer secret-canary"}
    for instead in ((401, b'{"message": "secret-canary is wrong"}'), (200, b'"secret-canary"')):
        server.instead = {lengths[0]: instead}
        assert "***" in str(scores_of(scorer)[0].error)
        assert "secret-canary" not in str(scores_of(scorer)[0].error)


@pytest.mark.parametrize("facts", [{**FACTS, "is_generation": True}, {}, [], None, {"is_generation": False}], ids=str)
def test_a_server_of_something_else_is_refused_at_the_start(server: RewardModelServer, facts: Any) -> None:
    server.facts = facts
    with pytest.raises(ConfigError, match=r"expected an SGLang server of a reward model, started with --is-embedding"):
        resolve_scorer(f"reward_model:{server.url}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://host:abc", "expected an address such as"),
        ("https://[::1", "expected an address such as"),
        ("http://me:s3cret@host", "expected an address without a password"),
        ("http://host/?a=1", "expected an address without"),
        ("HTTP://", "expected an address such as"),
    ],
)
def test_what_is_no_address_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        resolve_scorer(f"reward_model:{url}")
    assert "s3cret" not in str(refused.value)


def test_an_episode_in_which_nothing_was_said_has_no_reward(server: RewardModelServer) -> None:
    (score,) = settled(ask(RewardServer(server.url), [Episode()], [0]))
    assert score.error == "nothing was said that a reward model could read"


def test_a_tokenizer_that_is_not_here_can_be_named(server: RewardModelServer) -> None:
    server.facts = {**FACTS, "tokenizer_path": "/models/of/another/machine"}
    with pytest.raises(ModelError, match="RewardServer\\(url, path\\)"):
        RewardServer(server.url)
    assert scores_of(RewardServer(server.url, str(TINY_PATH)))[0].value


def test_a_server_that_nobody_runs_is_an_error_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"reward_model:http://127.0.0.1:1: the server .* gave no answer"):
        RewardServer("http://127.0.0.1:1", retries=0)
