"""The environment: two rounds of triage over a generated incident."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from llmgym.envs.aiops import phrases
from llmgym.envs.aiops.incident import Incident, generate_incident
from llmgym.envs.aiops.phrases import Language
from llmgym.envs.aiops.replies import answer, mistaken, reason
from llmgym.envs.aiops.report import round_1_message
from llmgym.envs.aiops.scoring import check_weights, parse_answer, score_parts
from llmgym.envs.aiops.world import DIFFICULTIES
from llmgym.envs.splits import Split, check_difficulty_and_split, one_of
from llmgym.envs.text_env import TextEnv
from llmgym.types import Episode, Score


class AIOpsTriage(TextEnv):
    """Two-round incident triage: first reason over the signals, then name the root cause.

    Round 1 shows symptoms, metrics, log lines and a trace of an incident in a shop of up to
    ten services, and asks for reasoning that cites signals by their tags and does not
    conclude. Round 2 asks for ``{"service": ..., "incident_type": ...}`` and nothing else.

    The reward is a weighted sum of parts, each between 0 and 1 and reported in the last
    ``info``:

    - ``json_ok``: round 2 is exactly one JSON object with the two keys and known names.
    - ``service``, ``incident_type``, ``acc_main``: the answer is right in one, or in both.
    - ``evidence``: round 1 cites at least three signals that are there.
    - ``no_early_conclusion``: round 1 is not blank and names no incident type and no cause.
    - ``length_1``, ``length_2``: the replies are neither blank nor too long.

    Args:
        difficulty: 0 to 3; how many services and incident types are in play (16, 36, 72 or
            120 possible answers), how many signals lead nowhere, how much is missing.
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

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The names in play, by key of the answer."""
        return {
            "service": self.difficulty.service_names,
            "incident_type": tuple(cause.name for cause in self.difficulty.types),
        }

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
        round_1, round_2 = episode.actions
        parts = score_parts(episode.task, round_1, round_2, self.names)
        return Score(sum(self.weights[name] * part for name, part in parts.items()), parts)

    def succeeded(self, score: Score) -> bool:
        """Tell whether round 2 named the right service and the right type, whatever scored it."""
        named = parse_answer(self.episode.actions[-1])
        return named == {"service": self.episode.task.service, "incident_type": self.episode.task.incident_type}

    def expert(self) -> Iterator[str]:
        """Cite the direct traces of the cause, then answer."""
        incident: Incident = self.episode.task
        yield reason(self.np_random, incident, self.language)
        yield answer(incident.service, incident.incident_type)

    def mistake(self) -> Iterator[str]:
        """Reply as the expert does, but blame a bystander or another type, mostly; see `replies.MISTAKES`."""
        incident: Incident = self.episode.task
        reasoning = reason(self.np_random, incident, self.language)
        yield from mistaken(self.np_random, reasoning, incident, self.difficulty, self.language)
