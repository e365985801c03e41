"""`OnlineSteps`: roll out, prepare, update; the steps of algorithms that learn from their own episodes."""

import contextlib
import itertools
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tensordict import TensorDict
from torch import Tensor

from llmgym.config.sections import PolicyGradientConfig
from llmgym.envs.experts import expert_env
from llmgym.envs.faults import EpisodeLostError, caught
from llmgym.envs.splits import training_seeds
from llmgym.errors import ConfigError, TrainingError
from llmgym.evaluate import episode_metrics, spread
from llmgym.learn import mismatch, ranks
from llmgym.learn.batch import as_batch, split_by_group
from llmgym.learn.engine_check import check_log_probs
from llmgym.learn.learner import Learner
from llmgym.learn.needs import Needs, seconds_of
from llmgym.learn.reference import kl_from, log_probs_of
from llmgym.report.console import notify
from llmgym.rollout.collector import Collector
from llmgym.rollout.demonstrate import demonstrate
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory
from llmgym.rollout.transcript import transcribe
from llmgym.scorers.composition import only_reported, put_on
from llmgym.train.actor import Actor, HeldOutEpisodes
from llmgym.train.algorithm import OnlineAlgorithm
from llmgym.train.ledger import account
from llmgym.train.local_rollouts import LocalRollouts
from llmgym.train.no_rollouts import NoRollouts
from llmgym.train.own_states import load_own_states, own_states
from llmgym.train.ray_rollouts import Coming, RayPlayer, RayRollouts
from llmgym.train.rollouts import Rollouts
from llmgym.train.setting import set_up
from llmgym.train.stored_rollouts import StoredRollouts
from llmgym.train.tasks import run_rows
from llmgym.train.trainer import Experience, Trainer, make_learner
from llmgym.train.watch import HackWatch

_LEAST_ROWS = 16  # that decode in about the time that fewer take
_PROMPTS_TRIED = 4  # first prompts whose length an estimate goes by
_MAX_UNSCORED = 3  # steps in a row without a single score, after which training stops
_SPREADS = {"advantage": "advantage", "return": "value_target", "value": "state_value"}  # of sampled tokens
_MEASURED_GROUPS = 2  # groups per step on which a forward pass measures something that the update does not


def online_trainer(algorithm: OnlineAlgorithm) -> Trainer:
    """Put together a trainer of a policy on episodes that it plays."""
    config = algorithm.config
    set_up(config)
    scorer = algorithm.scorer  # it may be a model, and not load
    rows = run_rows(config, algorithm.env_id, algorithm.rows)
    actor = Actor(config, keeps_reference=algorithm.keeps_reference, plays=True, rows=rows)
    if ranks.number():
        actor.rollouts = NoRollouts(actor.trained_weights if config.cluster.rollout_workers else actor.weights)
    else:
        actor.rollouts = _rollouts(algorithm, actor)
    if scorer is not None:
        put_on(scorer, actor.model.device.type)
    loss = algorithm.loss(actor.policy)
    actor.shard(loss)
    learner = make_learner(algorithm, loss)
    return Trainer(
        algorithm,
        actor,
        learner,
        OnlineSteps(algorithm, actor, learner),
        HeldOutEpisodes(actor, scorer),
        sample_every=config.evaluation.sample_every,
        learns=not config.rollout.rollouts_only,
        sinks=[HackWatch(only_reported(scorer), judged=scorer is not None)],
    )


def _rollouts(algorithm: OnlineAlgorithm, actor: Actor) -> Rollouts:
    """Return what plays the episodes of a run."""
    config = algorithm.config
    if config.rollout.rollouts_from is not None:
        return StoredRollouts(config.rollout.rollouts_from, actor)
    return RayRollouts(algorithm, actor) if config.cluster.rollout_workers else LocalRollouts(actor)


class OnlineSteps:
    """The steps of training on episodes that the policy plays.

    Args:
        algorithm: What it makes of trajectories.
        actor: Who plays.
        learner: What takes optimiser steps.
    """

    def __init__(self, algorithm: OnlineAlgorithm, actor: Actor, learner: Learner) -> None:
        self.algorithm, self.actor, self.learner, self.config = algorithm, actor, learner, algorithm.config
        episodes = self.config.rollout.prompts_per_step * self.config.rollout.group_size
        self.envs = actor.make_envs(episodes if actor.rollouts.plays_here else 1)
        environment = self.config.environment
        if environment.frozen_model is not None and "frozen" not in self.envs.seats and not environment.eval_env_kwargs:
            raise ConfigError(
                f"frozen_model: {environment.env} has no frozen seat; expected an environment that has one, such as "
                "--env KuhnPoker --env-kwargs opponent=frozen"
            )
        self.player = actor.rollouts.player(self.envs, algorithm.scorer, needs_scores=not algorithm.learns_from_expert)
        self._played: tuple[Sequence[Trajectory], Sequence[Trajectory]] = (), ()  # in the newest step, and kept of them
        self._told: set[str] = set()
        self._unscored = 0  # steps in a row without a score
        self._plays_ahead, self._lends_memory = actor.plays_ahead, False
        self._coming: deque[Coming] = deque()  # the next steps' episodes, where they are played ahead
        if algorithm.learns_from_expert:
            with contextlib.closing(actor.make_expert_env()) as env:
                expert_env(env)  # refused before anything is played
        elif algorithm.scorer is None and not self.envs.has_score:
            raise ConfigError(f"scorer: {algorithm.env_id} has no score of its own; expected a scorer, such as exact.")

    def begin(self) -> None:
        """See whether engines make room for updates; the actor refuses those that nothing can be learnt from."""
        self._lends_memory = self.actor.rollouts.lends_memory
        if self._coming:  # of a run that was interrupted: its weights may not be those of the last step
            self.actor.rollouts.abandon()
            self._coming.clear()

    def experience(self, step: int, last: int) -> Experience:
        """Play a step's groups, and let the algorithm make a batch of them."""
        begun, before = time.perf_counter(), self._spent
        trajectories, kept = self._roll_out_ahead(step, last) if self._plays_ahead else self._roll_out(step)
        for number, trajectory in enumerate(trajectories):
            trajectory.number, trajectory.learnt = number, {}
        self._tell_of_missing(step, trajectories)
        summary = episode_metrics(trajectories)
        self._tell_of_cut_off(step, summary["replies_cut_off"])
        silent = [not self.algorithm.teaches(group) for group in _groups(trajectories)]
        summary |= {
            "groups_without_signal": sum(silent),
            "groups_without_signal/share": sum(silent) / max(1, len(silent)),
            "groups_replaced": (len(trajectories) - len(kept)) / self.config.rollout.group_size,
            "rollout_seconds": time.perf_counter() - begun,
        }
        took = {name: seconds - before[name] for name, seconds in self._spent.items()}
        if took.get("generation_seconds", 0) > 0:
            sampled = sum(trajectory.sampled_tokens for trajectory in trajectories)
            summary |= {**took, "generated_per_second": sampled / took["generation_seconds"]}
        if self._plays_ahead:
            summary |= _staleness(step, trajectories)
        if (rows := self.actor.rows) is not None and rows.training is not None:
            summary["epoch"] = step * self.config.rollout.prompts_per_step / len(rows.training)
        if self.algorithm.learns_from_expert:
            kept = [*kept, *self._demonstrations(kept)]
        if self.config.rollout.rollouts_only:
            kept = []
        self._played = trajectories, kept
        if self._lends_memory:
            self.actor.rollouts.lend_memory()  # until weights are loaded
        kept = [trajectory for trajectory in kept if trajectory.tokens]  # a seat may have had no turn
        batch = as_batch(self.algorithm.prepare(kept), self.algorithm.name) if kept else None
        return Experience(batch, trajectories, summary)

    def learn(self, step: int, batch: TensorDict | None) -> dict[str, float]:
        """Complete a batch and take its optimiser steps; then refresh the reference if it is time."""
        if batch is None:
            measured = self.algorithm.measures_kl and not self.config.rollout.rollouts_only
            learnt = {"kl": math.nan} if measured else {}
        else:
            learnt = self._update(step, batch.to(self.actor.model.device))
        learnt |= self._account(batch)
        every = self.config.updates.reference_every
        if every and step % every == 0:
            self.learner.reference.refresh()
        return learnt

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted and told so far, and what environments and scorers keep."""
        return {
            "told": sorted(self._told),
            "unscored": self._unscored,
            "player": self.player.state_dict(),
            "own": own_states(self.envs, self.algorithm.scorer),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._told, self._unscored = set(state["told"]), state["unscored"]
        self.player.load_state_dict(state["player"])
        load_own_states(self.envs, self.algorithm.scorer, state["own"])

    def _account(self, batch: TensorDict | None) -> dict[str, float]:
        """Return what became of the episodes of the step; a rank that has played none knows nothing of them."""
        played, kept = self._played
        if not played:
            return {}
        teaching = {group[0].group for group in _groups(played) if self.algorithm.teaches(group)}
        return account(played, kept, batch, lambda trajectory: trajectory.group in teaching)

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def time_in_words(self, needs: Needs, steps: int) -> str:
        """Say how long training takes if all episodes and replies are as long as they may be."""
        config, rollout, limit = self.config, self.config.rollout, self.envs.turn_limit
        turns = limit or 1
        longest = self.envs.within_limits(config.sampling).max_tokens
        episodes = rollout.prompts_per_step * rollout.group_size * self._learners
        sampled = longest * turns  # of an episode
        prompt = self._prompt_tokens
        read = rollout.prompts_per_step * prompt
        learnt = read + episodes * sampled
        plays = rollout.rollouts_from is None
        step = needs.forward * (read + max(episodes, _LEAST_ROWS) * sampled) if plays else 0.0
        if not rollout.rollouts_only:
            step += config.updates.epochs * (needs.forward + needs.backward) * learnt
        held_out = len(self.actor.held_out_tasks)
        judged = seconds_of(needs.forward * held_out * (prompt + sampled))
        return (
            ("" if limit else ". The environment names no limit of turns (max_turns): 1 is assumed")
            + (
                f". If every episode has {turns} turns, every reply {longest} tokens, and the environment's answers "
                "are short, "
                if turns > 1
                else f". If every reply has {longest} tokens, "
            )
            + f"{seconds_of(step)} per step of {episodes} episodes"
            + (f", {seconds_of(step * steps)} for all {steps}" if steps > 1 else "")
            + (f", and {judged} each time that {held_out} held-out episodes are played" if held_out else "")
        )

    # Playing.

    @property
    def _prompt_tokens(self) -> int:
        """Tokens of a first prompt, on average over some of the first step."""
        lengths = []
        for task in self._tasks(1, self._rng(1), 0, min(_PROMPTS_TRIED, self.config.rollout.prompts_per_step)):
            begun = caught(self.envs.reset_one, 0, task.seed, None if task.row is None else {"row": task.row})
            if isinstance(begun, EpisodeLostError):
                self.envs.replace(0, hangs=begun.kind == "env_timeout")
                continue
            observation, _ = begun
            tools = self.envs.tools(0)
            self.actor.tell_of(tools)  # which an episode may have of its own
            lengths.append(len(self.actor.codec.prompt(self.envs.opening(0, observation), tools)))
        return sum(lengths) // max(1, len(lengths))

    @property
    def _spent(self) -> dict[str, float]:
        """Where the time went in all that this process has played so far, by the names of metrics."""
        if not isinstance(self.player, Collector):
            return {}
        watch = self.player.watch
        seconds = {f"{phase}_seconds": seconds for phase, seconds in watch.seconds.items()}
        return {**seconds, "environment_working_seconds": watch.working["environment"]}

    def _roll_out(self, step: int) -> tuple[list[Trajectory], list[Trajectory]]:
        """Play a step's groups; return all episodes, and those to learn from.

        Where more than one rollout is allowed, groups that teach nothing are left out and others
        played in their place (dynamic sampling, DAPO, arXiv:2503.14476, section 3.2).
        """
        config, size = self.config.rollout, self.config.rollout.group_size
        wanted = config.prompts_per_step * self._learners  # groups
        rng = self._rng(step)
        played: list[Trajectory] = []
        kept: list[Trajectory] = []
        for rollout in range(config.rollouts_per_step):
            missing = -((len(kept) // size - wanted) // self._learners)
            drawn = self._tasks(step, rng, rollout, missing)
            first = len(played) // (size * self._learners)
            tasks = [replace(task, group=first + task.group) for task in drawn for _ in range(size)]
            episodes = self.player.collect(tasks, self.config.sampling, self._reply_seed(step, rollout))
            played += episodes
            if config.rollouts_per_step == 1:
                return played, played
            kept += [episode for group in _groups(episodes) if self.algorithm.teaches(group) for episode in group]
            if len(kept) >= size * wanted:
                break
        return played, kept[: size * wanted]

    def _roll_out_ahead(self, step: int, last: int) -> tuple[list[Trajectory], list[Trajectory]]:
        """Return a step's episodes, which were played while earlier steps learnt, and begin those of a later step.

        Steps are taken in the order in which they were begun, so an episode that takes long is waited for, and never
        left out. Each token keeps the log-probability under the weights that sampled it.
        """
        assert isinstance(self.player, RayPlayer), "the configuration asks for workers"
        if not self._coming:
            self._coming.append(self._begin_rollout(self.player, step))
        trajectories = self.player.take(self._coming.popleft())
        if not self.actor.in_flight:
            self.actor.check_hand_over(step - 1)  # workers may have nothing to do just now
        ahead = min(self.config.cluster.max_staleness, last - step)
        while len(self._coming) < ahead:
            self._coming.append(self._begin_rollout(self.player, step + 1 + len(self._coming)))
        return trajectories, trajectories

    def _begin_rollout(self, player: RayPlayer, step: int) -> Coming:
        drawn = self._tasks(step, self._rng(step), 0, self.config.rollout.prompts_per_step)
        tasks = [task for task in drawn for _ in range(self.config.rollout.group_size)]
        return player.begin(tasks, self.config.sampling, self._reply_seed(step))

    @property
    def _learners(self) -> int:
        """How many trajectories an episode gives: one for each seat that learns."""
        return sum(player == "learner" for player in self.envs.seats)

    def _reply_seed(self, step: int, rollout: int = 0) -> int:
        """Return the start of the seeds of a rollout's replies."""
        return self.config.run.seed * 10**6 + step + (rollout << 40)

    def _rng(self, step: int) -> np.random.Generator:
        """Return what draws the seeds of a step."""
        return np.random.default_rng([self.config.run.seed, step])

    def _tasks(self, step: int, rng: np.random.Generator, rollout: int, count: int) -> list[Task]:
        """Return the next tasks of a step: their seeds, and their rows where there are some."""
        seeds, rows = training_seeds(rng, count), self.actor.rows
        if rows is None:
            return [Task(seed, group) for group, seed in enumerate(seeds)]
        order = rows.order(step, rollout, self.config.rollout.prompts_per_step, count)
        return [Task(seed, group, row) for group, (seed, row) in enumerate(zip(seeds, order, strict=True))]

    def _tell_of_missing(self, step: int, trajectories: Sequence[Trajectory]) -> None:
        """Say once in a run why scores are missing; `scores_missing` counts them in every step.

        Raises:
            TrainingError: Several steps in a row had no score at all, and taught nothing.
        """
        reasons = [trajectory.score_error for trajectory in trajectories if trajectory.score is None]
        reason = next(iter(reasons), None) or "its environment does not say why"
        scored = len(reasons) < len(trajectories)
        taught = scored or any(self.algorithm.teaches(group) for group in _groups(trajectories))
        self._unscored = 0 if taught else self._unscored + 1
        if self._unscored >= _MAX_UNSCORED:
            raise TrainingError(f"No episode of {_MAX_UNSCORED} steps in a row has a score. One reason: {reason}.")
        if reasons and "missing" not in self._told:
            self._told.add("missing")
            notify(f"Step {step}: {len(reasons)} of {len(trajectories)} episodes have no score, one since {reason}")

    def _tell_of_cut_off(self, step: int, share: float) -> None:
        """Say once in a run that most replies are cut off; `share` is that of this step."""
        if share > 0.5 and "cut off" not in self._told:
            self._told.add("cut off")
            notify(
                f"Step {step}: {share:.0%} of replies did not end by themselves; max_tokens "
                f"({self.envs.within_limits(self.config.sampling).max_tokens}) or the context cut them off."
            )

    def _demonstrations(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Return an episode of the expert for each group in which something was said."""
        tasks = {own.group: own for own in trajectories if own.replies}
        seeds, rows = [own.seed for own in tasks.values()], [own.data_row for own in tasks.values()]
        with contextlib.closing(self.actor.make_expert_env()) as env:
            shown = demonstrate(env, seeds, rows)
        codec = self.actor.codec
        written = [transcribe(codec, one.prompt, one.completion, tools=one.tools, seed=one.seed) for one in shown]
        return [replace(one, group=group) for group, one in zip(tasks, written, strict=True)]

    # Learning.

    def _update(self, step: int, batch: TensorDict) -> dict[str, float]:
        """Complete a batch and take its optimiser steps; return what was measured."""
        config = self.config.updates
        off = self._correct(batch)
        if self.algorithm.needs_reference:
            batch["ref_log_probs"] = self.learner.reference.log_probs(batch)
        measured = self._measure(batch[: _rows_of_groups(batch, _MEASURED_GROUPS)])
        found = dict(self.algorithm.complete(batch, self.learner) or {})
        order = np.random.default_rng([self.config.run.seed, step])
        updates, begun = [], time.perf_counter()
        for epoch in range(config.epochs):
            for part in split_by_group(batch, config.updates_per_step, order if epoch else None):
                updates.append(self.learner.update(part))
                if epoch == 0:
                    self._note(part, "entropies", "policy_entropies")
                # In the first forward pass the policy has the weights that sampled: its log-probs come for free.
                if not off:
                    off = self._mismatch(part["policy_log_probs"], part)
                    self._note(part, "learner_log_probs", "policy_log_probs")
        found["updating_seconds"] = time.perf_counter() - begun
        self._note(batch, "advantages", "advantage")
        self._note(batch, "learner_log_probs", "old_log_probs")
        for name, key in _SPREADS.items():
            if key in batch:
                found |= _spread_of_tokens(name, batch[key], batch)
        return {**measured, **off, **found, **_mean_of_updates(updates)}

    def _note(self, batch: TensorDict, name: str, key: str) -> None:
        """Keep what a batch has under a key [B, T], if anything, with the episodes that it is of."""
        if key not in batch or not (known := batch["mask"] & ~batch[key].isnan()).any():
            return
        values = batch[key].masked_fill(~known, math.nan).float().cpu().numpy()
        of_rows = (batch[of].tolist() for of in ("number", "start", "length"))
        for row, number, start, length in zip(values, *of_rows, strict=True):
            if 0 <= number < len(self._played[0]):  # an expert's has none, and other ranks have no episodes
                self._played[0][number].note_learnt(name, start, row[:length])

    def _measure(self, batch: TensorDict) -> dict[str, float]:
        """Compare the policy, before it is updated, with the engine and the reference, where that is asked for."""
        bound, measures_kl = self.config.engine.check, self.algorithm.measures_kl
        if bound is None and not measures_kl:
            return {}
        ours = batch.get("old_log_probs")
        if ours is None:
            ours = log_probs_of(self.actor.policy, batch, self.learner.micro_batch_tokens)
        if bound is not None:
            check_log_probs(ours, batch, bound)
        if not measures_kl:
            return {}
        reference = batch.get("ref_log_probs")
        if reference is None:
            reference = self.learner.reference.log_probs(batch)
        return {"kl": kl_from(ours, reference, batch)}

    def _correct(self, batch: TensorDict) -> dict[str, float]:
        """Weigh a batch, if asked to, for the difference between who sampled it and who learns; return its measures."""
        config = self.config.mismatch if isinstance(self.config, PolicyGradientConfig) else None
        if config is None or config.correction == "none":
            return {}
        batch["old_log_probs"] = log_probs_of(self.actor.policy, batch, self.learner.micro_batch_tokens)
        batch["importance_weight"], beyond = mismatch.importance_weights(
            batch["old_log_probs"], batch, config.correction, config.level, config.threshold
        )
        found = {**self._mismatch(batch["old_log_probs"], batch), "mismatch/corrected": beyond}
        if config.level == "token":
            found |= _spread_of_tokens("mismatch/weight", batch["importance_weight"], batch)
        return found

    def _mismatch(self, log_probs: Tensor, batch: TensorDict) -> dict[str, float]:
        return mismatch.measure(log_probs, batch, full_support=self.config.sampling.full_support)


def _spread_of_tokens(name: str, values: Tensor, batch: TensorDict) -> dict[str, float]:
    """Return what values [B, T] of sampled tokens are like."""
    return spread(name, values[batch["mask"]].double().cpu().numpy())


def _mean_of_updates(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return what several optimiser steps measured, on average; those left out are counted."""
    names = dict.fromkeys(name for update in updates for name in update)
    means = {name: float(np.mean([update[name] for update in updates if name in update])) for name in names}
    return {**means, "updates_skipped": sum(update["updates_skipped"] for update in updates)}


def _rows_of_groups(batch: TensorDict, groups: int) -> int:
    """Return how many rows the first `groups` groups of a batch have."""
    lengths = batch["group"].unique_consecutive(return_counts=True)[1]
    return int(lengths[:groups].sum())


def _groups(trajectories: Sequence[Trajectory]) -> list[list[Trajectory]]:
    """Return the groups; the trajectories of a group are adjacent."""
    return [list(group) for _, group in itertools.groupby(trajectories, key=lambda trajectory: trajectory.group)]


def _staleness(step: int, trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return how many hand-overs ago tokens were sampled, and how many episodes are of several versions."""
    versions = [[one for reply in each.replies for one in reply.token_versions] for each in trajectories]
    tokens = [step - 1 - one for each in versions for one in each] or [0]
    mixed = sum(len({*each}) > 1 for each in versions)
    return {"staleness": sum(tokens) / len(tokens), "staleness_max": max(tokens), "episodes_in_flight": mixed}
