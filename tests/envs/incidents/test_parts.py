"""Every part of the reward is what it says, and nothing that a model can write raises an exception."""

import json

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmgym
from llmgym.envs.aiops.scoring import DEFAULT_WEIGHTS
from llmgym.envs.experts import play_expert
from llmgym.envs.incidents import AIOpsIncident
from llmgym.envs.incidents.replies import telling_signals
from llmgym.errors import ConfigError


def play(round_1: str, round_2: str, seed: int = 0, **options: object) -> tuple[float, dict[str, float]]:
    env = AIOpsIncident(**options)  # type: ignore[arg-type]
    env.reset(seed=seed)
    env.step(round_1)
    _, reward, terminated, truncated, info = env.step(round_2)
    assert terminated
    assert not truncated
    return reward, info


def truth(seed: int = 0) -> tuple[str, str]:
    env = AIOpsIncident()
    env.reset(seed=seed)
    return env.episode.task.cause.service, env.episode.task.cause.incident_type


SERVICE, TYPE = truth()
RIGHT = json.dumps({"service": SERVICE, "incident_type": TYPE})


@pytest.mark.parametrize("name", ["\ud800", "nobody", SERVICE.upper(), f"{SERVICE} ", ""])
def test_an_unknown_service_costs_its_part_and_no_other(name: str) -> None:
    _, info = play("[M1]", json.dumps({"service": name, "incident_type": TYPE}))
    assert (info["json_ok"], info["service"], info["incident_type"], info["acc_main"]) == (0.0, 0.0, 1.0, 0.0)


def test_a_name_that_is_not_in_play_is_unknown() -> None:
    _, info = play("[M1]", json.dumps({"service": SERVICE, "incident_type": "dns_failure"}))
    assert (info["json_ok"], info["service"]) == (0.0, 1.0)


@given(st.text(), st.text())
def test_no_text_raises_and_every_part_is_a_float_between_0_and_1(round_1: str, round_2: str) -> None:
    reward, info = play(round_1, round_2)
    assert all(type(part) is float and 0 <= part <= 1 for part in info.values())
    assert 0 <= reward <= 1


def evidence(round_1: str) -> float:
    return play(round_1, RIGHT)[1]["evidence"]


def test_evidence_counts_signals_that_leave_one_cause_in_the_number_that_suffices() -> None:
    env = AIOpsIncident()
    env.reset(seed=0)
    incident = env.episode.task
    telling = [f"[{signal.tag}]" for signal in telling_signals(incident, env.difficulty)]
    all_tags = [f"[{signal.tag}]" for signal in incident.signals]
    enough = len(telling)
    assert evidence(" ".join(telling)) == 1.0
    assert evidence(" ".join(reversed(telling * 2))) == 1.0
    assert evidence(" ".join(telling[1:])) == 0.0
    assert evidence(" ".join([*telling, "[M77]"])) == pytest.approx((enough / (enough + 1)) ** 2)
    assert evidence(" ".join(all_tags)) == pytest.approx((enough / len(all_tags)) ** 2)
    assert evidence("[M77] [L88] [S99]") == 0.0
    assert evidence(" ".join(tag.strip("[]") for tag in telling)) == 0.0
    assert evidence("") == 0.0


@pytest.mark.parametrize(
    "round_1",
    ["", "  \n", "It is disk_full.", "A disk full, I think", "Root cause is the pool", "根因是数据库", RIGHT],
)
def test_an_early_conclusion_or_none_at_all_is_seen(round_1: str) -> None:
    assert play(round_1, RIGHT)[1]["no_early_conclusion"] == 0.0


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("difficulty", range(4))
def test_the_expert_earns_the_top_score_on_every_seed(difficulty: int, language: str) -> None:
    env = gymnasium.make("llmgym/AIOpsIncident-v0", difficulty=difficulty, language=language, disable_env_checker=True)
    for seed in range(60):
        _, score = play_expert(env, seed)
        assert score == pytest.approx(1.0)


def test_weights_are_a_parameter() -> None:
    assert sum(DEFAULT_WEIGHTS.values()) == pytest.approx(1.0)
    only_service = {name: float(name == "service") for name in DEFAULT_WEIGHTS}
    wrong_type = json.dumps({"service": SERVICE, "incident_type": "x"})
    assert play("", wrong_type, weights=only_service)[0] == 1.0
    generous = AIOpsIncident(weights={"evidence": 1.1})
    assert generous.top_score == pytest.approx(2.0)
    llmgym.check_env(generous)
    for weight in ("much", float("nan"), float("inf"), True):
        with pytest.raises(ConfigError, match=rf"weights\['evidence'\] has to be a finite number, got {weight!r}"):
            AIOpsIncident(weights={"evidence": weight})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=r"no part 'evidense'. Did you mean 'evidence'"):
        AIOpsIncident(weights={"evidense": 1.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"difficulty": 1.0}, "difficulty has to be one of 0, 1, 2, 3, got 1.0"),
        ({"difficulty": 4}, "difficulty has to be one of 0, 1, 2, 3, got 4"),
        ({"language": "fr"}, "language has to be one of 'en', 'zh', got 'fr'"),
        ({"split": "test"}, "split has to be one of 'train', 'eval', got 'test'"),
    ],
)
def test_a_parameter_out_of_range_names_what_is_allowed(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gymnasium.make("llmgym/AIOpsIncident-v0", **options)
