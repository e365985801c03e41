"""An investigation shows what is asked for and no more, and pays for an answer that it has proven."""

import pytest
from playing import make

from llmgym import ToolCall, calling
from llmgym.envs.aiops.replies import answer
from llmgym.envs.experts import play_expert


def ask(tool: str, service: str) -> str:
    return calling(ToolCall(tool, {"service": service}))


@pytest.mark.parametrize("difficulty", range(4))
def test_the_expert_earns_it_all_within_the_turns(difficulty: int) -> None:
    env = make("AIOpsInvestigation", difficulty=difficulty)
    for seed in range(60):
        _, score = play_expert(env, seed)
        assert score == pytest.approx(1.0)
        assert len(env.episode.turns) <= 8


@pytest.mark.parametrize("difficulty", range(4))
def test_every_service_has_gauges_and_each_is_shown_alone(difficulty: int) -> None:
    env = make("AIOpsInvestigation", difficulty=difficulty)
    env.reset(seed=3)
    names = env.difficulty.service_names  # type: ignore[attr-defined]
    for service in names[:7]:
        env.step(ask("metrics", service))
        (message,) = env.heard
        signals = [one for one in env.episode.task.of_kind("metric") if one.service == service]
        assert message.content.count("%)") + message.content.count("/min)") == len(signals) > 0


def test_what_is_not_asked_for_is_not_told() -> None:
    env = make("AIOpsInvestigation")
    observation, _ = env.reset(seed=1)
    assert "S1 " in observation
    assert not any(f"{kind}1 " in observation for kind in "TLM")


def test_more_queries_cost_and_a_guess_earns_no_economy() -> None:
    env = make("AIOpsInvestigation")
    env.reset(seed=5)
    cause = env.episode.task.cause
    right = answer(cause.service, cause.incident_type)
    _, reward, terminated, _, info = env.step(right)
    assert terminated
    assert info["success"] == 1.0
    assert (reward, info["economy"]) == (pytest.approx(0.8), 0.0)

    env.reset(seed=5)
    needed = list(env.expert())[:-1]
    for call in [*needed, needed[0], needed[0]]:
        env.step(calling(call))  # type: ignore[arg-type]
    *_, info = env.step(right)
    assert info["economy"] == pytest.approx(0.2 * len(needed) / (len(needed) + 2))


def test_an_unknown_service_is_said_and_counted() -> None:
    env = make("AIOpsInvestigation")
    env.reset(seed=0)
    env.step(ask("logs", "gatway"))
    assert "Did you mean 'gateway'" in env.heard[0].content


def test_an_answer_without_a_query_at_difficulty_2_is_a_guess() -> None:
    env = make("AIOpsInvestigation", difficulty=2)
    right = 0.0
    for seed in range(200):
        env.reset(seed=seed)
        slow = [one.service for one in env.episode.task.of_kind("symptom") if one.claim.state == "slow"]
        *_, info = env.step(answer(slow[-1] if slow else "gateway", "memory_leak"))
        right += info["success"]
    assert right / 200 < 0.15
