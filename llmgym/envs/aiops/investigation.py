"""The environment with tools: the same incidents, of which only the symptoms are told."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from llmgym.calls import ActionLike, ToolCall
from llmgym.envs.aiops import phrases
from llmgym.envs.aiops.diagnosis import Claim, fewest, leaves_one
from llmgym.envs.aiops.incident import Incident, Kind, Signal, generate_incident
from llmgym.envs.aiops.replies import answer, bystander, other_type
from llmgym.envs.aiops.report import describe, section, world
from llmgym.envs.aiops.scoring import answer_parts
from llmgym.envs.aiops.world import DIFFICULTIES
from llmgym.envs.splits import Split, check_difficulty_and_split
from llmgym.envs.text_env import TextEnv
from llmgym.envs.tools import Tool, ToolError
from llmgym.errors import did_you_mean
from llmgym.types import Episode

WEIGHTS = {"json_ok": 0.1, "service": 0.2, "incident_type": 0.2, "acc_main": 0.3, "economy": 0.2}

_TOOLS: dict[Kind, str] = {"trace": "traces", "log": "logs", "metric": "metrics"}


class AIOpsInvestigation(TextEnv):
    """Find the root cause of an incident with tools that query the metrics, logs and traces of its services.

    The incidents are those of `AIOpsTriage`, but every service has gauges. Told are the rules, the services, the
    incident types and the symptoms; the rest is asked for, one service at a time, in at most eight turns. A reply
    without a call ends the episode. It has to be ``{"service": ..., "incident_type": ...}`` and nothing else.

    The reward is the weighted sum of five parts:

    - ``json_ok`` (0.1): the last reply is exactly one JSON object with the two keys, and both names are in play.
    - ``service``, ``incident_type`` (0.2 each), ``acc_main`` (0.3): it is right in one, or in both.
    - ``economy`` (0.2): the answer is right, and what was shown leaves no other; the fewest queries that would do,
      given the symptoms, divided by the number of queries made. A query that is made twice counts twice.

    | difficulty | services | incident types | |
    |---|---|---|---|
    | 0 | 4 | 4 | |
    | 1 | 6 | 6 | |
    | 2 | 8 | 9 | the service at fault is often found by exclusion |
    | 3 | 10 | 12 | the same |

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no incident belongs to both.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    max_turns = 8
    system_prompt = (
        "You are on call for an online shop. Find the service at fault and the incident type. Your tools show the "
        "traces, logs and metrics of one service each; ask for no more than it takes. Then reply without a call, with "
        'this JSON and nothing else: {"service": ..., "incident_type": ...}'
    )

    def traces(self, service: str) -> list[str]:
        """Show the sampled calls of a service, with the time until it answered.

        Args:
            service: The service that was called.
        """
        return self._query("trace", service)

    def logs(self, service: str) -> list[str]:
        """Show the log lines of a service, by minutes after the incident began.

        Args:
            service: The service that wrote them.
        """
        return self._query("log", service)

    def metrics(self, service: str) -> list[str]:
        """Show gauges of a service, now and, in parentheses, usually.

        Args:
            service: The service that they are of.
        """
        return self._query("metric", service)

    tools: Sequence[Callable[..., Any] | Tool] = (traces, logs, metrics)

    def __init__(self, difficulty: int = 1, split: Split = "train", **options: Any) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, len(DIFFICULTIES), split)
        level = DIFFICULTIES[difficulty]
        self.difficulty = replace(level, rows=len(level.service_names))
        self.split: Split = split

    def begin(self) -> str:
        """Draw an incident and tell its symptoms."""
        incident = generate_incident(self.np_random, self.difficulty, self.split)
        self.episode.task = incident
        self._asked: list[tuple[Kind, str]] = []
        return f"{phrases.RULES['en']}\n{world(self.difficulty, 'en')}\n{section(incident, 'symptom', 'en')}"

    def _query(self, kind: Kind, service: str) -> list[str]:
        self._asked.append((kind, service))
        names = self.difficulty.service_names
        if service not in names:
            raise ToolError(f"there is no service {service!r:.80}.{did_you_mean(service[:80], names)}")
        return [describe(signal, "en") for signal in _shown(self.episode.task, kind, service)]

    def score(self, episode: Episode) -> dict[str, float]:
        """Compare the answer with the cause, and the queries with those that it takes."""
        incident: Incident = episode.task
        parts = answer_parts(incident, self.difficulty, _last(episode))
        seen = incident.of_kind("symptom") + [one for query in self._asked for one in _shown(incident, *query)]
        proven = leaves_one((signal.claim for signal in seen), self.difficulty)
        needed = len(self._needed(incident))
        parts["economy"] = parts["acc_main"] * proven * needed / max(needed, len(self._asked))
        return {name: weight * parts[name] for name, weight in WEIGHTS.items()}

    def succeeded(self, score: Any) -> bool:
        """Tell whether the right service and the right type were named, whatever scored it."""
        return answer_parts(self.episode.task, self.difficulty, _last(self.episode))["acc_main"] == 1.0

    def expert(self) -> Iterator[ActionLike]:
        """Ask for what tells the cause apart, then answer."""
        incident: Incident = self.episode.task
        yield from self._needed(incident)
        yield answer(incident.cause.service, incident.cause.incident_type)

    def mistake(self) -> Iterator[ActionLike]:
        """Ask as the expert does, and name another service, another type, or both."""
        incident: Incident = self.episode.task
        yield from self._needed(incident)
        service, incident_type = incident.cause.service, incident.cause.incident_type
        mistaken = self.np_random.integers(3)
        if mistaken != 0:
            service = bystander(self.np_random, incident)
        if mistaken != 1:
            incident_type = other_type(self.np_random, incident.cause, self.difficulty)
        yield answer(service, incident_type)

    def _needed(self, incident: Incident) -> list[ToolCall]:
        """As few queries as leave one cause, given the symptoms."""
        of_query: dict[tuple[Kind, str], list[Claim]] = {}
        for signal in incident.signals:
            if signal.kind in _TOOLS:
                of_query.setdefault((signal.kind, signal.service), []).append(signal.claim)
        told = [signal.claim for signal in incident.of_kind("symptom")]
        return [
            ToolCall(_TOOLS[kind], {"service": service}) for kind, service in fewest(told, of_query, self.difficulty)
        ]


def _last(episode: Episode) -> str:
    """Return the last reply; an empty one if the episode was cut off before the first."""
    return episode.actions[-1] if episode.turns else ""


def _shown(incident: Incident, kind: Kind, service: str) -> list[Signal]:
    """Return what a query shows."""
    return [signal for signal in incident.of_kind(kind) if signal.service == service]
