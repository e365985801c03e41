"""`Trainer`: the ring in which an algorithm, a learner and a journal take training steps.

                          tasks of step t
        +--------------------------------------------------+
        |                                                  v
    +-------+   trajectories   +-----------+   batch   +---------+   metrics   +---------+
    | Steps | ---------------> | Algorithm | --------> | Learner | ----------> | Journal |
    +-------+   or examples    +-----------+           +---------+             +---------+
        ^                                                  |
        +--------------------------------------------------+
                     weights of step t, for the engine

`Steps` is where the two kinds of training differ: `OnlineSteps` has a player (`Collector`) with
environments, an engine and a scorer; `OfflineSteps` draws from data. None of the four knows
what is inside another.
"""

import contextlib
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from tensordict import TensorDict
from transformers import PreTrainedModel

from llmgym.config.presets import made_for_others
from llmgym.config.sections import LearningConfig
from llmgym.errors import ConfigError, RunDirectoryError, TrainingError
from llmgym.evaluate import Evaluation
from llmgym.learn import ranks, sharding
from llmgym.learn.checkpoint import Origin, origin_of
from llmgym.learn.learner import Learner
from llmgym.learn.losses import LanguageModelLoss
from llmgym.learn.needs import Needs, peak_memory, seconds_of
from llmgym.models.causal_lm import float32_by_default
from llmgym.report.console import make_console, notify, say
from llmgym.report.run_directory import RunDirectory, versions
from llmgym.rollout.trajectory import Trajectory
from llmgym.secrets import without_secrets
from llmgym.train.algorithm import Algorithm
from llmgym.train.chance import random_state, set_random_state
from llmgym.train.checkpoints import final_path, go_back_to
from llmgym.train.held_out import HeldOut, Judge, gone_on
from llmgym.train.interrupts import Interruptions, LeaveAtOnceError, undisturbed
from llmgym.train.journal import AFTER, BEFORE, ConsoleReport, Journal, Metrics, RunFiles, Sink
from llmgym.train.keeper import Keeper
from llmgym.train.limits import Limits
from llmgym.train.own_states import KeepsState
from llmgym.train.resuming import Note, Past
from llmgym.train.state_files import packed_state
from llmgym.train.tracking import tracking

_TIMED = ("learning_seconds", "hand_over_seconds", "evaluation_seconds", "saving_seconds")  # parts of a run


@dataclass(frozen=True)
class Result:
    """The result of a training run.

    Attributes:
        path: The run directory.
        metrics: One mapping per step.
        before: The held-out evaluation before training; None if there was none.
        after: The one after.
    """

    path: Path
    metrics: Sequence[Metrics]
    before: Evaluation | None
    after: Evaluation | None


@dataclass(frozen=True)
class Experience:
    """The batch that a step learns from, and where it comes from.

    Attributes:
        batch: What the algorithm made of it; None if there is nothing to learn.
        trajectories: The episodes played for it, if any.
        measured: What was measured of it.
    """

    batch: TensorDict | None
    trajectories: Sequence[Trajectory] = ()
    measured: Metrics = field(default_factory=dict)


class Steps(Protocol):
    """The two halves of a training step: experience and learning."""

    def begin(self) -> None:
        """Refuse what cannot be trained with, before anything is written."""
        ...

    def experience(self, step: int, last: int) -> Experience:
        """Return what step number `step` of a run learns from, of which `last` is the last."""
        ...

    def learn(self, step: int, batch: TensorDict | None) -> dict[str, float]:
        """Take the optimiser steps of step number `step`; return what was measured."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that the experience of later steps depends on, besides the number of the step."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...

    def time_in_words(self, needs: Needs, steps: int) -> str:
        """Say how long training and evaluations may take; empty if that is not known yet."""
        ...

    def close(self) -> None:
        """Close what experience comes from."""
        ...


class Student(Protocol):
    """The model that is trained, with everything needed to measure, save and use it."""

    model: PreTrainedModel
    shards: sharding.Shards

    def calls(self, learner: Learner) -> Mapping[str, Callable[..., Any]]:
        """Return the functions that read parameters, which the first rank has all ranks call, by their names."""
        ...

    def begin(self, learner: Learner) -> None:
        """Get ready for the first step; called again, do nothing."""
        ...

    def hand_over(self, version: int) -> None:
        """Give the current weights, under this version, to whatever samples."""
        ...

    def needs(self, learner: Learner) -> Needs:
        """Return the memory and time that a training step will need."""
        ...

    def settled(self) -> Mapping[str, object]:
        """Return the values used for options that are left to llmgym (None or ``auto``), by name."""
        ...

    def facts(self) -> Mapping[str, object]:
        """Return what else the run directory should note, with the ``date`` that chat templates are told."""
        ...

    def tokenizer_hash(self) -> str:
        """Return a hash of the tokenizer and its chat template."""
        ...

    def save(self, path: Path, origin: Origin) -> None:
        """Write the model and its tokenizer to a new directory."""
        ...

    def close(self) -> None:
        """Release the resources that are held."""
        ...


class Trainer:
    """Takes steps, evaluates what they taught, and keeps everything in a run directory.

    Args:
        algorithm: Whose configuration says how many steps, and where to write.
        student: What is trained.
        learner: What takes optimiser steps.
        steps: What a step learns from, and how.
        judge: What evaluates.
        subject: What the run is called after, besides the algorithm; None for its environment.
        sample_every: Steps between two conversations that are printed; 0 for none.
        learns: Whether there is to be anything to learn from; without it, episodes are only stored.
        sinks: Others that are told what happens, besides the files and the console.

    Attributes:
        steps_done: Training steps so far, over all runs.
        past: What the next run goes on from, if anything.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        student: Student,
        learner: Learner,
        steps: Steps,
        judge: Judge,
        *,
        subject: str | None = None,
        sample_every: int = 0,
        learns: bool = True,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self.algorithm, self.student, self.learner, self.steps, self.judge = algorithm, student, learner, steps, judge
        self.sample_every, self._learns, self._sinks = sample_every, learns, sinks
        self.label = f"{algorithm.name}-{subject or str(algorithm.env_id).rpartition('/')[2]}"
        self.steps_done = 0
        self.past: Past | None = None
        self._begun = 0  # steps before the run under way
        self._boundary: dict[str, Any] = {}  # what playing changes, as it was after the last step
        self._whole = True  # no update is half done
        self._seconds: dict[str, float] = {}  # since the last step was noted

    @torch.enable_grad()  # an environment in the same process may have switched gradients off
    def train(self, steps: int) -> Result:
        """Train for `steps`, and write a run directory that is complete even if this is interrupted.

        A run that goes on from a checkpoint counts `steps` from where that run began.

        Raises:
            Interrupted: It was asked to end, and has saved what was learnt.
            RunDirectoryError: The directory cannot be written to.
        """
        if ranks.number():
            return self._follow()
        result = None
        try:
            result = self._lead(steps)
        finally:
            if self._whole and not ranks.out_of_step():
                ranks.end(result)
            else:  # others may be in the middle of an update, and wait for this rank
                ranks.leave()
        return result

    def _lead(self, steps: int) -> Result:
        """Train as the first rank, or the only one."""
        config, saving = self.algorithm.config, self.algorithm.config.saving
        interruptions = Interruptions(saving.grace, Limits(config.budget).reached, ranks.out_of_step)
        held_out = HeldOut(self.judge, config.run.eval_every, saving.keep_best)
        with interruptions.handling():
            self._announce(steps)
            self.student.begin(self.learner)
            self.steps.begin()
            past, self.past = self.past, None
            earlier = self._begin(past)
            if past is not None and earlier is not None and self._is_done(past, steps, earlier):
                return _result(past.run, earlier)
            with self._directory(past) as directory:
                journal = self._journal(directory, steps)
                if earlier is not None:
                    self._go_back(directory, journal, earlier, steps)
                keeper = Keeper(directory.path, saving, self, journal, held_out)
                keeper.require_space()
                directory.most_bytes = keeper.room_beside(config.budget.max_disk)
                self._take_steps(steps, journal, keeper, held_out, interruptions)
        return _result(directory.path, journal.state_dict())

    def _follow(self) -> Result:
        """Learn from what the first rank tells, until it says that it is over.

        Raises:
            SystemExit: The first rank was interrupted or has failed, and says why itself.
        """
        self.student.begin(self.learner)
        self.steps.begin()
        with undisturbed():
            result: Result | None = ranks.serve(self._calls)
        if result is None:
            raise SystemExit(0)
        return result

    @property
    def _calls(self) -> Mapping[str, Callable[..., Any]]:
        """What the first rank has all ranks call, by name."""
        learner = self.learner
        shared: dict[str, Callable[..., Any]] = {"learn": self._learn, "state": self._gathered}
        shared |= {"align": learner.align, "load": learner.load_state_dict}
        return {**shared, **self.student.shards.calls, **self.student.calls(learner)}

    def _is_done(self, past: Past, steps: int, earlier: Mapping[str, Any]) -> bool:
        """Tell whether a run that goes on has nothing left to do.

        Raises:
            ConfigError: It has done more than that already, or a new run would take no step.
        """
        last = self._begun + steps
        if self.steps_done + past.forks > last:
            raise ConfigError(
                f"steps: the run in {str(past.run)!r} has taken {self.steps_done - self._begun}; expected "
                f"{'more' if past.forks else 'at least as many'}, got {steps}."
            )
        evaluated = AFTER in earlier["evaluations"] or not self.judge.size
        done = self.steps_done == last and evaluated and past.checkpoint.path == final_path(past.run)
        if done:
            notify(f"All {steps} steps have been taken: there is nothing left to do.", warning=False)
        return done

    def _take_steps(
        self, steps: int, journal: Journal, keeper: Keeper, held_out: HeldOut, interruptions: Interruptions
    ) -> None:
        """Take the steps that are left of a run, and save what they taught, whatever ends it."""
        last = self._begun + steps
        try:
            self._evaluate(held_out, journal, last)
            for step in range(self.steps_done + 1, last + 1):
                with interruptions.step():
                    self.learner.progress = (step - self._begun - 1) / steps
                    self._take_step(step, last, journal, interruptions)
                self._evaluate(held_out, journal, last)
                with interruptions.step(), interruptions.saving(), self._timing("saving_seconds"):
                    keeper.save_in_series(last)
        except LeaveAtOnceError:
            raise
        except BaseException:
            if not (self.student.shards.wanted and ranks.out_of_step()):  # else parameters cannot be read
                with interruptions.saving():  # what was learnt until here is not lost
                    _end(journal, keeper, whole=self._whole)
            raise
        with interruptions.saving():
            _end(journal, keeper)

    def _take_step(self, step: int, last: int, journal: Journal, interruptions: Interruptions) -> None:
        """Take one training step."""
        begun = time.perf_counter()
        experience = self.steps.experience(step, last)  # episodes played and scored, or examples drawn
        interruptions.updating = True
        self._whole = False
        learning = step, self.learner.progress, experience.batch
        with self._timing("learning_seconds"):
            learnt = ranks.call("learn", self._learn, *learning, fails=ranks.SHARED_ERRORS)
        with self._timing("hand_over_seconds"):
            self.student.hand_over(step)  # the next episodes are sampled with the new weights
        self.steps_done, self._boundary, self._whole = step, self._played(), True
        journal.note_step(experience.trajectories, self._metrics(step, experience, learnt, begun))
        interruptions.updating = False

    @float32_by_default()
    def _learn(self, step: int, progress: float, batch: TensorDict | None) -> dict[str, float]:
        """Learn from the batch of a step, on every rank."""
        self.learner.progress = progress
        learnt = self.steps.learn(step, batch)
        if ranks.number():  # the first rank has more to do before the step is done
            self.steps_done = step
        return learnt

    def _evaluate(self, held_out: HeldOut, journal: Journal, last: int) -> None:
        """Evaluate what was learnt so far, if it is time; a scorer may keep something of that."""
        with self._timing("evaluation_seconds"):
            held_out.evaluate(journal, self.steps_done, last)
        self._boundary = self._played()

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, as it was after the last step, although the next may be under way."""
        watches = [one.state_dict() for one in self._sinks if isinstance(one, KeepsState)]
        learner = self.student.shards.call("state", self._gathered)
        return {**self._boundary, "step": self.steps_done, "learner": learner, "watches": watches}

    def _gathered(self) -> Any:
        """Return the learner's state, whole on the first rank."""
        return sharding.gathered(self.learner.state_dict())

    def _played(self) -> dict[str, Any]:
        """Return what playing changes."""
        return {"random": random_state(), "steps": self.steps.state_dict()}

    def _begin(self, past: Past | None) -> dict[str, Any] | None:
        """Get ready for the first step of a run; return what the journal of the run that it goes on from noted."""
        self._seconds = dict.fromkeys(_TIMED, 0.0)
        earlier = None if past is None else self._go_on_from(past)
        self._begun = self.steps_done if past is None else past.note.begun
        if self.learner.changed:  # by a step that was interrupted, or by a state that was loaded
            self.student.hand_over(self.steps_done)
        self._boundary = self._played()
        ranks.call("align", self.learner.align)
        packed_state(self._boundary)  # what environments and scorers keep is refused now, and not at the first save
        return earlier

    @contextlib.contextmanager
    def _directory(self, past: Past | None) -> Iterator[RunDirectory]:
        """Open the directory of a run; delete it if the run comes to nothing."""
        first, new = self.steps_done, past is None or past.forks
        if past is None or past.forks:
            directory = RunDirectory.new(self.algorithm.config.run.output_dir, self.label)
        else:
            directory = RunDirectory(past.run)
        try:
            if past is not None and not past.forks:
                past.require_unchanged()
                go_back_to(past.checkpoint, past.run)
            yield directory
        finally:
            directory.close(discard=new and self.steps_done == first)

    def _go_on_from(self, past: Past) -> dict[str, Any]:
        """Take over the state of a checkpoint, and return that of the journal."""
        if past.note.tokenizer != self.student.tokenizer_hash():
            raise ConfigError(
                f"The model {self.algorithm.config.model.name!r} has another tokenizer or chat template than that of "
                f"the run in {str(past.run)!r}: expected the same."
            )
        if not past.forks:
            past.require_unchanged()
        state = past.checkpoint.state()
        with past.checkpoint.taking_over():
            learner = state["learner"]
            told = [ranks.outline(learner)]
            ranks.call("load", self.learner.load_state_dict, learner, told=told, fails=(TrainingError,))
            self.steps.load_state_dict(state["steps"])
            watches = [one for one in self._sinks if isinstance(one, KeepsState)]
            for watch, own in zip(watches, state["watches"], strict=True):
                watch.load_state_dict(own)
            set_random_state(state["random"])
            self.steps_done = operator.index(state["step"])
            journal: dict[str, Any] = state["journal"]
            if past.forks:
                journal["evaluations"] = {}  # it is evaluated where it begins
            Journal([]).load_state_dict(journal)
        how = "A new run goes on from" if past.forks else "Going on from"
        notify(f"{how} step {self.steps_done} of {past.run}.", warning=False)
        return journal

    def _go_back(self, directory: RunDirectory, journal: Journal, earlier: dict[str, Any], steps: int) -> None:
        """Let the directory and the journal of a run have what was noted until it goes on, and nothing later."""
        directory.go_back(earlier["metrics"])
        if self.steps_done < self._begun + steps:
            earlier["evaluations"] = gone_on(earlier["evaluations"])
        journal.load_state_dict(earlier)

    def note(self) -> Note:
        """Return what a checkpoint says of the run under way."""
        algorithm, date = self.algorithm, str(self.student.facts()["date"])
        tokenizer = self.student.tokenizer_hash()
        return Note(algorithm.name, algorithm.config.plain(), date, self._begun, tokenizer, versions())

    @property
    def checkpoint_bytes(self) -> int:
        """About how many bytes a checkpoint takes: the model, what is trained and its two moments, the reference."""
        state, weights = self.learner.state_dict(), self.student.model.parameters()
        kept = [*weights, *(state["reference"] or ()), *(3 * list(state["parameters"].values()))]
        return sum(one.numel() * one.element_size() for one in kept)

    def close(self) -> None:
        """Close what experience comes from, and release what the student holds."""
        self.steps.close()
        self.student.close()

    def save(self, path: Path) -> None:
        """Write the model and its tokenizer to a new directory, with a note of where they come from.

        All ranks have to ask for it; the first one writes.
        """
        sharded = self.student.shards.wanted
        if not ranks.number():
            try:
                self.write(path)
            finally:
                if sharded:
                    ranks.end(None)
        elif sharded:
            ranks.serve(self._calls)

    def write(self, path: Path) -> None:
        """Write the model, as the first rank, while the others serve."""
        config = self.algorithm.config
        origin = Origin(
            self.algorithm.name,
            self.algorithm.env_id or self.label,
            config.model.name,
            self.steps_done,
            config.learning_rate,
            config.run.seed,
            without_secrets(config.environment.env_kwargs),
        )
        self.student.save(path, origin)

    def _metrics(self, step: int, experience: Experience, learnt: Metrics, begun: float) -> Metrics:
        """Return all that a step measured; it began at `begun`."""
        seconds = time.perf_counter() - begun
        sampled = sum(trajectory.sampled_tokens for trajectory in experience.trajectories)
        speed = {"tokens_per_second": sampled / seconds} if experience.trajectories else {}
        spent, self._seconds = self._seconds, dict.fromkeys(_TIMED, 0.0)
        memory = peak_memory(self.student.model.device)
        return {"step": step, **experience.measured, **speed, "seconds": seconds, **spent, **memory, **learnt}

    @contextlib.contextmanager
    def _timing(self, name: str) -> Iterator[None]:
        """Add the time that a block takes to what the next step reports under a name."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - begun

    def _journal(self, directory: RunDirectory, steps: int) -> Journal:
        """Describe a run in its directory, and return the journal that writes to it."""
        config, model = self.algorithm.config, self.student.model
        trackers = tracking(config, directory.path, self.algorithm.env_id or self.label)  # refused before it is told of
        settled = {
            "learning_rate": config.learning_rate,
            "micro_batch_tokens": self.learner.micro_batch_tokens,
            "device": model.device.type,
            **self.student.settled(),
            **self.algorithm.settled,
        }
        facts = {
            "env_id": self.algorithm.env_id,
            "seed": config.run.seed,
            "parameters": model.num_parameters(),
            "device": str(model.device),
            "threads": torch.get_num_threads(),
            **self.student.facts(),
        }
        directory.describe(config.with_options(steps=steps, resume=False, **settled).to_yaml(), facts)
        self.learner.skipped_batches = directory.path / "skipped_batches"
        console = make_console()
        say(f"Run directory: {directory.path}")
        report = ConsoleReport(console, steps, self.sample_every, learns=self._learns)
        return Journal([RunFiles(directory, self.label), report, *self._sinks, *trackers])

    def _announce(self, steps: int) -> None:
        """Say what is trained, from where it starts, and what it will take."""
        config, env_id, model = self.algorithm.config, self.algorithm.env_id, self.student.model
        misplaced = None if env_id is None else made_for_others(config.model.name, env_id)
        if misplaced is not None:
            notify(
                f"{misplaced}: it may well not learn {env_id}. Name a model of your own: a directory or a name on the "
                "Hugging Face hub."
            )
        if (origin := origin_of(config.model.name)) is not None:
            notify(_begins_anew(origin, config))
        trained = model.num_parameters(only_trainable=True)
        some = f", of which {trained:,} are trained" if trained < model.num_parameters() else ""
        say(
            f"{self.label}: {config.model.name}, {model.num_parameters():,} parameters{some}, "
            f"{steps} step{'s' * (steps > 1)}, learning rate {config.learning_rate:g}{_ranks_in_words(config)}"
        )
        if config.learner.sharded and ranks.count() == 1:
            notify("sharded: there is one rank, which has the whole model; expected torchrun, which starts several.")
        needs = self.student.needs(self.learner)
        sampled, learnt = seconds_of(1000 * needs.forward), seconds_of(1000 * (needs.forward + needs.backward))
        notify(
            f"{needs} Time: about {sampled} per 1,000 tokens read or sampled and {learnt} per 1,000 tokens learnt from"
            f"{self.steps.time_in_words(needs, steps)}.",
            warning=not needs.fits,
        )
        if not needs.fits:
            notify(
                "This may not fit. What makes it smaller: lora_rank, gradient_checkpointing, a smaller "
                "micro_batch_tokens or a smaller model."
            )


def _result(path: Path, noted: Mapping[str, Any]) -> Result:
    """Return what a run came to, by what its journal noted."""
    found = {label: Evaluation(**one) for label, one in noted["evaluations"].items()}
    return Result(path, noted["metrics"], found.get(BEFORE), found.get(AFTER))


def _end(journal: Journal, keeper: Keeper, *, whole: bool = True) -> None:
    """Save what was learnt, and close the journal, whatever hinders either."""
    try:
        if journal.metrics:
            keeper.save_at_end(whole=whole)
    except RunDirectoryError:
        with contextlib.suppress(OSError):  # it says already what cannot be written to
            journal.close()
        raise
    journal.close()


def make_learner(algorithm: Algorithm, loss: LanguageModelLoss) -> Learner:
    """Return the learner that an algorithm's configuration describes."""
    config = algorithm.config
    return Learner(
        loss,
        learning_rate=config.learning_rate,
        learning_rates=algorithm.learning_rates,
        warmup_steps=config.learner.warmup_steps,
        decay=config.learner.learning_rate_decay or "none",
        weight_decay=config.learner.weight_decay,
        max_grad_norm=config.learner.max_grad_norm,
        micro_batch_tokens=config.learner.micro_batch_tokens,
        kl=algorithm.kl,
    )


def _ranks_in_words(config: LearningConfig) -> str:
    """Return among how many ranks it is learnt, if there are several."""
    if (count := ranks.count()) > 1:
        return f", {count} ranks{', each with a part of the model' if config.learner.sharded else ''}"
    return ""


def _begins_anew(origin: Origin, config: LearningConfig) -> str:
    """Say what training from a checkpoint takes over from the run that wrote it, and what it does not."""
    words = " ".join(f"{key}={value}" for key, value in origin.env_kwargs.items())
    played = f" ({words})" if words else ""
    steps = f"{origin.steps} step{'s' * (origin.steps > 1)}"
    return (
        f"{config.model.name!r} is a checkpoint of llmgym: {origin.algorithm} on {origin.env}{played}, {steps} with a "
        f"learning rate of {origin.learning_rate:g} and seed {origin.seed}. Only its weights are taken: this run "
        f"begins anew, with a learning rate of {config.learning_rate:g} after {config.learner.warmup_steps} steps of "
        f"warm-up, a fresh optimiser, these weights as its reference, and the tasks of seed {config.run.seed}. To go "
        f"on with all of them, give --resume-from {config.model.name} in place of --model."
    )
