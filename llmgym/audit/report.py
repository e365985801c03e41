"""`audit`: play every probe, and say what earns more than it should."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmgym.audit.answers import Answers
from llmgym.audit.findings import Finding
from llmgym.audit.playing import Env, Played, Speaker, Speaking, Stage, global_seeds
from llmgym.audit.probes import ECHO, PROBES, Known, Probe, expert, judge_tricks, mistake, saying
from llmgym.audit.purity import impurities, one_task
from llmgym.audit.rewards import EXPERT, MISTAKE, Bar, Row, findings_of
from llmgym.envs.experts import has_expert, has_mistakes
from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError
from llmgym.registry import make_env
from llmgym.scorers.expressions import resolve_scorer
from llmgym.scorers.pairwise import PairwiseScorer

REPLAYED = 5  # tasks that are played again to see what else an episode depends on


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit saw.

    Attributes:
        rows: How each probe did.
        findings: What is wrong.
        notes: What could not be looked into, and why.
    """

    rows: Sequence[Row]
    findings: Sequence[Finding]
    notes: Sequence[str]


def audit(
    env: str | Callable[..., Env],
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    scorer: Any = None,
    judge: str | None = None,
    seeds: int = 50,
    step_timeout: float | None = None,
    watch: Callable[[str], None] = lambda step: None,
) -> AuditReport:
    """Play probes that should earn little, and say which earn more than they should.

    Args:
        env: The environment: its id, or what makes it, such as its class.
        env_kwargs: Arguments to make it with.
        scorer: Replaces the environment's own score; what it pays is then compared with what it pays the expert.
        judge: The file of a judge (`llmgym.scorers.judges`), which replaces the environment's own score as a scorer
            does, and is also told what is known to fool judges.
        seeds: How many tasks each probe plays.
        step_timeout: Seconds that a reset or a step may take. None: 10, or 300 where a judge is asked.
        watch: Told what is played next.

    Raises:
        ConfigError: There is no such environment or scorer, or it cannot be made.

    Example:
        >>> [finding.kind for finding in audit("llmgym/AIOpsTriage-v0", seeds=5).findings]
        []
    """
    if seeds < 2:
        raise ConfigError(f"seeds: expected at least 2, got {seeds}.")
    if judge is not None:
        if scorer is not None:
            raise ConfigError("judge: expected a judge or a scorer to audit, got both.")
        scorer = resolve_scorer(f"judge:{judge}")
        if isinstance(scorer, PairwiseScorer):
            raise ConfigError(f"judge: {judge} compares replies, and an audit has one at a time.")
    probes = PROBES if judge is None else (*PROBES, judge_tricks())
    limit = step_timeout or (10.0 if judge is None else 300.0)
    with contextlib.closing(Stage(_maker(env, dict(env_kwargs or {}), scorer), limit)) as stage:
        return _audited(stage, scorer is None, range(seeds), probes, watch)


def _audited(
    stage: Stage, own_score: bool, seeds: Sequence[int], probes: Sequence[Probe], watch: Callable[[str], None]
) -> AuditReport:
    inner = stage.fresh().unwrapped
    top = inner.top_score if isinstance(inner, TextEnv) and own_score else None
    plays = _Plays(stage, seeds, watch)
    notes = []
    if has_expert(inner):
        plays.play(EXPERT, lambda seed: expert)
        if has_mistakes(inner):
            plays.play(MISTAKE, lambda seed: mistake)
    elif isinstance(inner, TextEnv) and plays.task_is_answer(top):
        notes.append("It has no expert; the text of episode.task earns the top score and takes its place.")
    known = Known(Answers({one.seed: one.replies for one in plays.episodes.get(EXPERT, ()) if one.failure is None}))
    if not known.answers.replies:
        notes.append("It has no expert whose replies are known, so probes that know an answer are left out.")
    for probe in probes:
        if known.answers.replies or probe.knows in ("nothing", "the question"):
            plays.play(probe.name, partial(probe.speaking, known))
    watch("replays")
    impure = [finding for name in (EXPERT, ECHO.name) for finding in impurities(stage, plays.fresh.get(name, ()))]
    bar = Bar(top, {one.seed: one.reward for one in plays.episodes.get(EXPERT, ()) if one.reward is not None})
    rows = {name: Row(name, played, sum(map(bar.reached, played))) for name, played in plays.episodes.items() if played}
    findings = [
        *findings_of(rows, bar, known.answers),
        *one_task(plays.episodes.get(EXPERT) or plays.episodes[ECHO.name]),
        *{finding.kind: finding for finding in reversed(impure)}.values(),
    ]
    return AuditReport(list(rows.values()), findings, notes)


class _Plays:
    """The episodes of an audit.

    Args:
        stage: Where they are played.
        seeds: Their tasks.
        watch: Told who plays next.
    """

    def __init__(self, stage: Stage, seeds: Sequence[int], watch: Callable[[str], None]) -> None:
        self._stage, self._seeds, self._watch = stage, seeds, watch
        self.episodes: dict[str, list[Played]] = {}
        self.fresh: dict[str, list[Played]] = {}
        """Those of the expert and the echo that were played in new environments, global generators seeded with 0."""

    def play(self, name: str, speaking: Callable[[int], Speaking | None]) -> None:
        """Play all tasks, until one hangs.

        Args:
            name: Who plays.
            speaking: Returns who replies to the task of a seed; None to leave it out.
        """
        self._watch(name)
        episodes = self.episodes[name] = []
        for seed in self._seeds:
            who = speaking(seed)
            if who is None:
                continue
            if name in (EXPERT, ECHO.name) and seed < REPLAYED:
                with global_seeds(0):
                    episodes.append(self._stage.play(seed, who, env=self._stage.fresh()))
                self.fresh.setdefault(name, []).append(episodes[-1])
            else:
                episodes.append(self._stage.play(seed, who))
            if episodes[-1].failure == "hangs":
                break

    def task_is_answer(self, top: float | None) -> bool:
        """Try the text of `episode.task` as a reply; keep it as the expert's if it earns the top score everywhere."""
        self.play(EXPERT, lambda seed: _saying_the_task)
        bar = Bar(top, {})
        if top is not None and all(map(bar.reached, self.episodes[EXPERT])):
            return True
        del self.episodes[EXPERT], self.fresh[EXPERT]
        return False


def _saying_the_task(env: Env) -> Speaker:
    inner = env.unwrapped
    assert isinstance(inner, TextEnv)
    return saying((str(inner.episode.task),))(env)


def _maker(env: str | Callable[..., Env], env_kwargs: dict[str, Any], scorer: Any) -> Callable[[], Env]:
    options = env_kwargs if scorer is None else {**env_kwargs, "scorer": resolve_scorer(scorer)}
    if isinstance(env, str):
        return partial(make_env, env, **options)
    if callable(env):
        return partial(env, **options)
    raise ConfigError(
        f"env: expected an id or what makes an environment, such as its class, got {env!r:.80}; an audit plays in "
        "several of them."
    )
