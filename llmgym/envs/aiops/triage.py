"""The environment: two rounds of triage over a generated incident."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from llmgym.envs.aiops import phrases
from llmgym.envs.aiops.incident import Incident, generate_incident
from llmgym.envs.aiops.phrases import Language
from llmgym.envs.aiops.replies import answer, mistaken, reason, suspected, telling_signals
from llmgym.envs.aiops.report import round_1_message
from llmgym.envs.aiops.scoring import check_weights, parse_answer, score_parts
from llmgym.envs.aiops.world import DIFFICULTIES
from llmgym.envs.splits import Split, check_difficulty_and_split, one_of
from llmgym.envs.text_env import TextEnv
from llmgym.types import Episode, Score


class AIOpsTriage(TextEnv):
    """Two-round incident triage: first reason over the signals, then name the root cause.

    Round 1 shows symptoms, spans of sampled traces, log lines and metrics of an incident in
    a shop of up to ten services, and asks for reasoning that cites signals by their tags and
    does not conclude. Round 2 asks for ``{"service": ..., "incident_type": ...}`` and nothing
    else. No signal names the cause: callers of the service at fault are slow as well, gauges
    of others are raised as well, and only a combination of signals leaves one cause.

    The reward is a weighted sum of parts, each between 0 and 1 and reported in the last
    ``info``:

    - ``json_ok``: round 2 is exactly one JSON object with the two keys, and both names are in play.
    - ``service``, ``incident_type``, ``acc_main``: the answer is right in one, or in both.
    - ``evidence``: the signals that round 1 cites leave one possible cause, and no more are cited than it takes.
    - ``no_early_conclusion``: round 1 is not blank and names no incident type and no cause, other than to deny it, to
      ask or to suppose.
    - ``length_1``, ``length_2``: the replies are neither blank nor too long.

    Args:
        difficulty: 0 to 3; how many services and incident types are in play (16, 36, 72 or
            120 possible answers), how many signals are shown, and whether the service at
            fault is among those that are seen to be slow.
        language: ``"en"`` or ``"zh"``; names of services and types are the same in both.
        split: ``"train"`` or ``"eval"``; no incident belongs to both.
        weights: Replaces the weight of some parts; see `scoring.DEFAULT_WEIGHTS`.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    max_turns = 2

    def __init__(
        self,
        difficulty: int = 1,
        language: Language = "en",
        split: Split = "train",
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, len(DIFFICULTIES), split)
        one_of("language", language, get_args(Language))
        self.difficulty = DIFFICULTIES[difficulty]
        self.language = language
        self.split = split
        self.weights = check_weights(weights)
        self.top_score = sum(self.weights.values())
        self.system_prompt = phrases.SYSTEM[language]

    def begin(self) -> str:
        """Draw an incident and show it."""
        incident = generate_incident(self.np_random, self.difficulty, self.split)
        self.episode.task = incident
        return round_1_message(incident, self.difficulty, self.language)

    def respond(self, action: str) -> str | None:
        """Ask for the answer after round 1; end after round 2."""
        return phrases.ROUND_2[self.language] if len(self.episode.turns) == 1 else None

    def score(self, episode: Episode) -> Score:
        """Return the weighted sum of the parts."""
        round_1, round_2 = _rounds(episode)
        parts = score_parts(episode.task, self.difficulty, round_1, round_2)
        return Score(sum(self.weights[name] * part for name, part in parts.items()), parts)

    def succeeded(self, score: Score) -> bool:
        """Tell whether round 2 named the right service and the right type, whatever scored it."""
        cause = self.episode.task.cause
        named = parse_answer(_rounds(self.episode)[1])
        return named == {"service": cause.service, "incident_type": cause.incident_type}

    @staticmethod
    def final_answer(reply: str) -> str | None:
        """Return the service and the type that round 2 names."""
        named = parse_answer(reply)
        return f"{named['service']}: {named['incident_type']}" if named else None

    def expert(self) -> Iterator[str]:
        """Say what the signals tell, cite as few as tell the cause apart, then answer."""
        incident: Incident = self.episode.task
        yield self._reasoning()
        yield answer(incident.cause.service, incident.cause.incident_type)

    def mistake(self) -> Iterator[str]:
        """Reply as the expert does, but blame a bystander or another type, mostly; see `replies.MISTAKES`."""
        incident: Incident = self.episode.task
        yield from mistaken(self.np_random, self._reasoning(), incident, self.difficulty, self.language)

    def _reasoning(self) -> str:
        incident: Incident = self.episode.task
        telling = telling_signals(incident, self.difficulty)
        return reason(incident, suspected(incident, self.difficulty), telling, self.language)


def _rounds(episode: Episode) -> tuple[str, str]:
    """Return both replies; one that an episode was cut off before is empty."""
    round_1, round_2 = (*episode.actions, "", "")[:2]
    return round_1, round_2
