"""What an environment's expert does, as conversations."""

from collections.abc import Iterator

import gymnasium
import pytest

import llmgym
from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError, EnvironmentContractError
from llmgym.rollout.demonstrate import demonstrate
from llmgym.types import Episode


def triage(**options: object) -> gymnasium.Env[str, str]:
    return gymnasium.make("llmgym/AIOpsTriage-v0", disable_env_checker=True, **options)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_demonstration_earns_the_top_score(language: str) -> None:
    for shown in demonstrate(triage(language=language), range(20)):
        assert shown.score == pytest.approx(1.0)
        assert [message.role for message in shown.prompt] == ["system", "user"]
        assert [message.role for message in shown.completion] == ["assistant", "user", "assistant"]


def test_the_prompt_is_what_any_agent_sees_on_that_seed() -> None:
    env = triage()
    (shown,) = demonstrate(env, [5])
    observation, _ = env.reset(seed=5)
    assert shown.prompt[-1].content == observation
    answer, *_ = env.step(shown.completion[0].content)
    assert shown.completion[1].content == answer


def test_the_same_seed_gives_the_same_demonstration_whatever_was_played_before() -> None:
    env = triage()
    assert demonstrate(env, [1, 2, 1])[0] == demonstrate(env, [2, 1])[1] == demonstrate(triage(), [1])[0]


def test_a_score_that_is_missing_is_not_a_zero() -> None:
    (shown,) = demonstrate(triage(scorer=lambda episode: llmgym.Score(None, error="no judge")), [0])
    assert shown.score is None
    (shown,) = demonstrate(triage(scorer=lambda episode: 0.0), [0])
    assert shown.score == 0.0


class Silent(TextEnv):
    """Never ends by itself; its expert says one thing."""

    def begin(self) -> str:
        return "Go on."

    def respond(self, action: str) -> str:
        return "Go on."

    def score(self, episode: Episode) -> float:
        return 0.0


class Brief(Silent):
    def expert(self) -> Iterator[str]:
        yield "Only this."


def test_an_environment_without_an_expert_is_refused() -> None:
    with pytest.raises(ConfigError, match="Silent has no expert"):
        demonstrate(Silent(), [0])


def test_an_expert_that_stops_too_early_is_named_with_its_seed() -> None:
    with pytest.raises(EnvironmentContractError, match="ran out of replies on seed 3"):
        demonstrate(Brief(), [3])
