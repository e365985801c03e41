"""The generator draws incidents that a careful reader can solve, and never the same in both splits."""

from collections import Counter

import numpy as np
import pytest

from llmgym.envs.aiops import phrases
from llmgym.envs.aiops.incident import Incident, generate_incident
from llmgym.envs.aiops.report import cite, report, round_1_message
from llmgym.envs.aiops.scoring import concludes
from llmgym.envs.aiops.world import DIFFICULTIES, INCIDENT_TYPES, TOPOLOGY, Difficulty, path_to


def draw(difficulty: Difficulty, split: str = "train", count: int = 300) -> list[Incident]:
    rng = np.random.default_rng(0)
    return [generate_incident(rng, difficulty, split) for _ in range(count)]  # type: ignore[arg-type]


def test_the_world_is_as_large_as_promised() -> None:
    assert len(TOPOLOGY) >= 8
    assert len(INCIDENT_TYPES) >= 10
    assert all(callee in TOPOLOGY for callees in TOPOLOGY.values() for callee in callees)
    assert DIFFICULTIES[1].services * DIFFICULTIES[1].incident_types >= 36


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_every_service_in_play_is_reachable_and_every_answer_occurs(difficulty: Difficulty) -> None:
    for name in difficulty.service_names:
        assert path_to(name, difficulty.topology)[-1] == name
    answers = Counter((i.service, i.incident_type) for i in draw(difficulty, count=2500))
    assert len(answers) == difficulty.services * difficulty.incident_types


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_splits_are_disjoint(difficulty: Difficulty) -> None:
    train, evaluation = (
        {report(incident, "en") for incident in draw(difficulty, split, 1500)} for split in ("train", "eval")
    )
    assert len(evaluation) > 1400
    assert not train & evaluation


def solve(incident: Incident) -> tuple[str, str]:
    """Find the cause from what is shown, with a reader's rules and no look at the answer."""
    by_metric = {cause.metric: cause for cause in INCIDENT_TYPES}
    by_log = {line: cause for cause in INCIDENT_TYPES for line in cause.logs}
    for signal in incident.signals:
        if signal.kind == "metric":
            cause = by_metric[signal.phrase]
            if signal.values[0] >= cause.failing[0]:  # type: ignore[operator]
                return signal.service, cause.name
    for signal in incident.signals:
        if signal.kind == "log" and signal.values[1] == "ERROR" and signal.phrase in by_log:
            return signal.service, by_log[signal.phrase].name
    raise AssertionError("nothing shows the cause")


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_what_is_shown_determines_the_answer(difficulty: Difficulty) -> None:
    for incident in draw(difficulty):
        assert solve(incident) == (incident.service, incident.incident_type)
        assert incident.of_kind("trace")[0].service == incident.service


def test_red_herrings_point_elsewhere_and_symptoms_cascade_to_callers() -> None:
    for incident in draw(DIFFICULTIES[3]):
        chain = path_to(incident.service, DIFFICULTIES[3].topology)
        logs = incident.of_kind("log")
        herrings = [signal for signal in logs if signal.values[1] == "WARN"]
        assert len(herrings) == DIFFICULTIES[3].red_herrings
        assert incident.service not in {signal.service for signal in herrings}
        assert all(int(signal.values[0]) < incident.onset for signal in herrings)
        assert {signal.service for signal in incident.of_kind("symptom")} <= set(chain)
        timeouts = [signal for signal in logs if signal.phrase == "timeout_calling"]
        assert all(signal.values[2] in TOPOLOGY[signal.service] for signal in timeouts)


def test_harder_worlds_show_more_that_leads_nowhere() -> None:
    def misleading(difficulty: Difficulty) -> float:
        incidents = draw(difficulty, count=100)
        return sum(not signal.root for incident in incidents for signal in incident.signals) / 100

    noise = [misleading(difficulty) for difficulty in DIFFICULTIES]
    assert noise == sorted(noise)
    answers = [d.services * d.incident_types for d in DIFFICULTIES]
    assert answers == sorted(set(answers))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_citing_any_signal_is_no_conclusion(language: phrases.Language) -> None:
    for incident in draw(DIFFICULTIES[3]):
        assert not concludes(" ".join(cite(signal, language) for signal in incident.signals))


def test_both_languages_tell_the_same_and_chinese_is_chinese() -> None:
    difficulty = DIFFICULTIES[2]
    for incident in draw(difficulty, count=20):
        english, chinese = (round_1_message(incident, difficulty, language) for language in ("en", "zh"))
        assert english.isascii()
        assert english.count("\n[") == chinese.count("\n[") == len(incident.signals)
        assert sum("一" <= c <= "鿿" for c in chinese) > 60
    tables = [getattr(phrases, name) for name in vars(phrases) if name.isupper()]
    every_wording = [wording for table in tables for wording in _wordings(table)]
    assert all(set(wording) == {"en", "zh"} for wording in every_wording)


def _wordings(value: object) -> list[dict[str, str]]:
    if not isinstance(value, dict):
        return []
    return [value] if "en" in value or "zh" in value else list(value.values())
