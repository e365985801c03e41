"""The generator draws incidents that a careful reader can solve, and never the same in both splits."""

from collections import Counter

import numpy as np
import pytest
from reader import read

from llmgym.envs.aiops import phrases
from llmgym.envs.aiops.conclusions import concludes
from llmgym.envs.aiops.incident import Incident, generate_incident
from llmgym.envs.aiops.replies import reason, suspected, telling_signals
from llmgym.envs.aiops.report import report, round_1_message
from llmgym.envs.aiops.world import DIFFICULTIES, GAUGES, INCIDENT_TYPES, TOPOLOGY, Difficulty, slow_services
from llmgym.envs.splits import Split


def draw(difficulty: Difficulty, split: Split = "train", count: int = 300) -> list[Incident]:
    rng = np.random.default_rng(0)
    return [generate_incident(rng, difficulty, split) for _ in range(count)]


def test_the_world_is_as_large_as_promised() -> None:
    assert [len(difficulty.causes) for difficulty in DIFFICULTIES] == [16, 36, 72, 120]
    assert all(callee in TOPOLOGY for callees in TOPOLOGY.values() for callee in callees)


def test_callers_are_listed_before_what_they_call() -> None:
    for difficulty in DIFFICULTIES:
        order = list(difficulty.topology)
        assert all(
            order.index(caller) < order.index(callee) for caller in order for callee in difficulty.topology[caller]
        )


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_every_service_is_reachable_and_every_gauge_belongs_to_several_types(difficulty: Difficulty) -> None:
    assert all("gateway" in slow_services(name, difficulty.topology) for name in difficulty.service_names)
    assert len({frozenset(kind.gauges) for kind in INCIDENT_TYPES}) == len(INCIDENT_TYPES)
    raised = Counter(gauge for kind in difficulty.types for gauge in kind.gauges)
    assert set(raised) == set(difficulty.gauge_names)
    assert min(raised.values()) >= 2
    assert all(gauge.raised[0] > 5 + gauge.usual[1] for gauge in GAUGES.values())


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_every_cause_is_about_as_likely_as_any_other(difficulty: Difficulty) -> None:
    drawn = Counter(incident.cause for incident in draw(difficulty, count=10 * len(difficulty.causes)))
    assert set(drawn) >= set(difficulty.causes[: len(difficulty.causes) // 2])
    assert len(drawn) > 0.98 * len(difficulty.causes)
    assert max(drawn.values()) < 30


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_splits_are_disjoint(difficulty: Difficulty) -> None:
    train, evaluation = (
        {report(incident, "en") for incident in draw(difficulty, split)} for split in ("train", "eval")
    )
    assert len(evaluation) == 300
    assert not train & evaluation


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_a_reader_who_tries_every_cause_finds_one_and_it_is_right(difficulty: Difficulty) -> None:
    for incident in draw(difficulty):
        found = read(round_1_message(incident, difficulty, "en"))
        assert found == [(incident.cause.service, incident.cause.incident_type)]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_no_section_alone_names_the_cause(difficulty: Difficulty) -> None:
    for incident in draw(difficulty, count=60):
        lines = round_1_message(incident, difficulty, "en").splitlines()
        metrics = [line for line in lines if ": M" not in line]
        others = [line for line in lines if line[:1] not in "STL" or not line[1:2].isdigit()]
        assert len(read("\n".join(metrics))) > 1
        assert len(read("\n".join(others))) > 1


def test_the_service_at_fault_is_seen_to_be_slow_at_the_first_two_difficulties_and_less_often_after_them() -> None:
    seen = [
        np.mean([("slow", one.cause.service) in {(s.claim.state, s.service) for s in one.signals} for one in draw(d)])
        for d in DIFFICULTIES
    ]
    assert seen[:2] == [1.0, 1.0]
    assert max(seen[2:]) < 0.9


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_experts_reasoning_is_no_conclusion(difficulty: Difficulty, language: phrases.Language) -> None:
    for incident in draw(difficulty, count=100):
        assert not concludes(
            reason(incident, suspected(incident, difficulty), telling_signals(incident, difficulty), language)
        )


def test_both_languages_tell_the_same_and_chinese_is_chinese() -> None:
    difficulty = DIFFICULTIES[2]
    for incident in draw(difficulty, count=20):
        english, chinese = (round_1_message(incident, difficulty, language) for language in ("en", "zh"))
        assert english.isascii()
        assert all(english.count(f"{one.tag} ") == chinese.count(f"{one.tag} ") == 1 for one in incident.signals)
        assert sum("一" <= c <= "鿿" for c in chinese) > 60
    tables = [getattr(phrases, name) for name in vars(phrases) if name.isupper()]
    every_wording = [wording for table in tables for wording in _wordings(table)]
    assert all(set(wording) == {"en", "zh"} for wording in every_wording)


def _wordings(value: object) -> list[dict[str, str]]:
    if not isinstance(value, dict):
        return []
    return [value] if "en" in value or "zh" in value else list(value.values())
