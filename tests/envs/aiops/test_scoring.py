"""What round 2 accepts is exact, every part is what it says, and nothing that can be written raises an exception."""

import json
import time

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmgym
from llmgym.envs.aiops import AIOpsTriage
from llmgym.envs.aiops.replies import telling_signals
from llmgym.envs.aiops.scoring import DEFAULT_WEIGHTS, parse_answer
from llmgym.envs.experts import play_expert
from llmgym.errors import ConfigError


def play(round_1: str, round_2: str, seed: int = 0, **options: object) -> tuple[float, dict[str, float]]:
    env = AIOpsTriage(**options)  # type: ignore[arg-type]
    env.reset(seed=seed)
    env.step(round_1)
    _, reward, terminated, truncated, info = env.step(round_2)
    assert terminated
    assert not truncated
    return reward, info


def truth(seed: int = 0) -> tuple[str, str]:
    env = AIOpsTriage()
    env.reset(seed=seed)
    return env.episode.task.cause.service, env.episode.task.cause.incident_type


SERVICE, TYPE = truth()
RIGHT = json.dumps({"service": SERVICE, "incident_type": TYPE})
NESTED = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("answer", [RIGHT, f" \n{RIGHT}\t\n", json.dumps({"incident_type": TYPE, "service": SERVICE})])
def test_the_right_json_is_accepted_in_any_order_and_amid_white_space(answer: str) -> None:
    _, info = play("[M1]", answer)
    assert (info["json_ok"], info["service"], info["incident_type"], info["acc_main"]) == (1.0, 1.0, 1.0, 1.0)
    assert info["success"] == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "null",
        "[]",
        '"text"',
        f"The answer: {RIGHT}",
        f"{RIGHT}.",
        f"```json\n{RIGHT}\n```",
        f"{RIGHT}{RIGHT}",
        RIGHT[:-1],
        RIGHT.replace('"', "'"),
        f'{{"service": "{SERVICE}", "service": "{SERVICE}", "incident_type": "{TYPE}"}}',
        f'{{"service": "x", "service": "{SERVICE}", "incident_type": "{TYPE}"}}',
        f'{{"service": "{SERVICE}", "incident_type": "{TYPE}", "confidence": 1}}',
        f'{{"service": "{SERVICE}"}}',
        f'{{"service": "{SERVICE}", "incident_type": NaN}}',
        f'{{"service": "{SERVICE}", "incident_type": Infinity}}',
        f'{{"service": "{SERVICE}", "incident_type": 1e999}}',
        f'{{"service": ["{SERVICE}"], "incident_type": "{TYPE}"}}',
        f'{{"service": {NESTED}, "incident_type": "{TYPE}"}}',
        NESTED,
        '{"a":' * 50_000,
        f'{{"service": "{SERVICE}", "incident_type": "{TYPE}"{" " * 3_000_000}}}',
        "9" * 5000,
    ],
    ids=lambda answer: f"{answer[:24]!r}-{len(answer)}",
)
def test_anything_else_earns_nothing_and_raises_nothing(answer: str) -> None:
    _, info = play("[M1]", answer)
    assert (info["json_ok"], info["service"], info["incident_type"], info["acc_main"]) == (0.0, 0.0, 0.0, 0.0)
    assert info["success"] == 0.0


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


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_only_an_object_of_two_strings_is_an_answer(value: object) -> None:
    assert parse_answer(json.dumps(value)) == {}


def evidence(round_1: str) -> float:
    return play(round_1, RIGHT)[1]["evidence"]


def test_evidence_counts_signals_that_leave_one_cause_in_the_number_that_suffices() -> None:
    env = AIOpsTriage()
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


@pytest.mark.parametrize("form", ["[{}]", "[ {} ]", "【{}】", "［{}］"])
def test_tags_are_cited_one_by_one_or_several_in_a_pair_of_brackets(form: str) -> None:
    env = AIOpsTriage()
    env.reset(seed=0)
    tags = [signal.tag for signal in telling_signals(env.episode.task, env.difficulty)]
    assert evidence(" ".join(form.format(tag) for tag in tags)) == 1.0
    assert evidence(form.format(", ".join(tags))) == 1.0
    assert evidence(form.format(", ".join(tags * 20))) == 1.0
    assert evidence(form.format(" and ".join(tags).lower())) == 1.0
    assert evidence(" ".join(tags)) == 0.0


@pytest.mark.parametrize("text", ["[", "]", "[S1, ", "[S1, M1] ", "S1, "])
def test_a_megabyte_of_tags_is_read_at_once(text: str) -> None:
    began = time.process_time()
    evidence(f"[{text * (1_000_000 // len(text))}")
    assert time.process_time() - began < 3


@pytest.mark.parametrize("seen", [0, 1])
def test_an_episode_that_is_cut_off_is_scored_by_what_there_is(seen: int) -> None:
    env = AIOpsTriage()
    env.reset(seed=0)
    for _ in range(seen):
        env.step(RIGHT)
    score, info = env.finish()
    assert info["success"] == info["acc_main"] == info["json_ok"] == 0.0
    assert score < 0.3


@pytest.mark.parametrize(
    "round_1",
    ["", "  \n", "It is disk_full.", "A disk full, I think", "Root cause is the pool", "根因是数据库", RIGHT],
)
def test_an_early_conclusion_or_none_at_all_is_seen(round_1: str) -> None:
    assert play(round_1, RIGHT)[1]["no_early_conclusion"] == 0.0


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("difficulty", range(4))
def test_the_expert_earns_the_top_score_on_every_seed(difficulty: int, language: str) -> None:
    env = gymnasium.make("llmgym/AIOpsTriage-v0", difficulty=difficulty, language=language, disable_env_checker=True)
    for seed in range(60):
        _, score = play_expert(env, seed)
        assert score == pytest.approx(1.0)


def test_long_replies_lose_their_length_part_gradually() -> None:
    lengths = [play("a" * n, RIGHT)[1]["length_1"] for n in (1, 1200, 1800, 2400, 100_000)]
    assert lengths == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_weights_are_a_parameter() -> None:
    assert sum(DEFAULT_WEIGHTS.values()) == pytest.approx(1.0)
    only_service = {name: float(name == "service") for name in DEFAULT_WEIGHTS}
    wrong_type = json.dumps({"service": SERVICE, "incident_type": "x"})
    assert play("", wrong_type, weights=only_service)[0] == 1.0
    generous = AIOpsTriage(weights={"evidence": 1.1})
    assert generous.top_score == pytest.approx(2.0)
    llmgym.check_env(generous)
    for weight in ("much", float("nan"), float("inf"), True, -1.0, 10**400):
        with pytest.raises(ConfigError, match=r"weights\['evidence'\] has to be a number from 0 to 1,000,000, got "):
            AIOpsTriage(weights={"evidence": weight})  # type: ignore[dict-item]
    for weights in (["evidence"], "evidence", 3):
        with pytest.raises(ConfigError, match="weights: expected a mapping of parts to numbers"):
            AIOpsTriage(weights=weights)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no part 1"):
        AIOpsTriage(weights={1: 1.0})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=r"no part 'evidense'. Did you mean 'evidence'"):
        AIOpsTriage(weights={"evidense": 1.0})


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
        gymnasium.make("llmgym/AIOpsTriage-v0", **options)
