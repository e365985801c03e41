"""`Loop`: the run around training steps, whatever they are steps of."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from llmgym.config.sections import LearningConfig
from llmgym.errors import ConfigError
from llmgym.evaluate import Evaluation
from llmgym.learn.checkpoint import Origin, origin_of
from llmgym.learn.kl import AdaptiveKL, FixedKL
from llmgym.learn.learner import Learner
from llmgym.learn.losses import LanguageModelLoss
from llmgym.learn.needs import Needs, seconds_of
from llmgym.report.console import make_console, notify
from llmgym.report.run_directory import RunDirectory
from llmgym.rollout.trajectory import Trajectory
from llmgym.train.journal import ConsoleReport, Journal, Metrics, RunFiles


@dataclasses.dataclass(frozen=True)
class Result:
    """What a training run came to.

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


class Loop(ABC):
    """Takes steps, measures, evaluates before and after, and keeps everything in a run directory.

    Attributes:
        name: Of the algorithm.
        config: With the steps' number, and where to write.
        env_id: The environment that the run is about.
        model: What learns.
        learner: What takes optimiser steps.
        steps_done: Training steps so far, over all runs.
        sample_every: Steps between two conversations that are printed; 0 for none.
    """

    name: str
    config: LearningConfig
    env_id: str
    model: PreTrainedModel
    learner: Learner
    steps_done: int = 0
    sample_every: int = 0

    def run(self, steps: int) -> Result:
        """Train for `steps`, and write a run directory that is complete even if this is interrupted."""
        self.check()
        if (origin := origin_of(self.config.model.name)) is not None:
            notify(self._begins_anew(origin))
        console = make_console()
        label = f"{self.name}-{self.subject}"
        facts = {
            "env_id": self.env_id,
            "seed": self.config.run.seed,
            "parameters": self.model.num_parameters(),
            "device": str(self.model.device),
            "threads": torch.get_num_threads(),
            **self.facts(),
        }
        config = self.config.with_options(steps=steps, **self.settled())
        rate = f"learning rate {self.config.learning_rate:g}"
        console.print(f"[bold]{label}[/bold]: {self._model_in_words}, {steps} steps, {rate}", soft_wrap=True)
        self._say_what_it_takes(steps)
        self.begin()
        run = RunDirectory(self.config.run.output_dir, label, config.to_yaml(), facts)
        self.learner.skipped_batches = run.path / "skipped_batches"
        console.print(f"Run directory: {run.path}", soft_wrap=True, markup=False)
        journal = Journal([RunFiles(run, label), ConsoleReport(console, steps, self.sample_every)])
        try:
            self._evaluate(journal, "before training")
            for _ in range(steps):
                self.steps_done += 1
                journal.note_step(*self._step(self.steps_done))
            self._evaluate(journal, "after training")
        finally:  # also when interrupted: what was learnt until here is not lost
            if journal.metrics:
                self.save(run.checkpoint)
            journal.close()
        before, after = map(journal.evaluations.get, ("before training", "after training"))
        return Result(run.path, journal.metrics, before, after)

    @property
    def subject(self) -> str:
        """What the run is called after: its environment."""
        return self.env_id.rpartition("/")[2]

    @abstractmethod
    def _step(self, step: int) -> tuple[Sequence[Trajectory], dict[str, float]]:
        """Take training step number `step`; return the episodes played for it, and what was measured."""

    @abstractmethod
    def evaluate(self) -> Evaluation:
        """Judge the model as it is now on what is held out."""

    @property
    @abstractmethod
    def held_out_size(self) -> int:
        """How many episodes, or pairs, are held out to be judged on."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the model and its tokenizer to a new directory."""

    def begin(self) -> None:
        """Get ready for the first step; called again, do nothing."""
        return

    def check(self) -> None:
        """Refuse what cannot be trained on, before anything is written."""
        return

    @abstractmethod
    def needs(self) -> Needs:
        """Return what a training step will take."""

    def time_of_run(self, needs: Needs, steps: int) -> str:
        """Say how long training and evaluations may take; empty if that depends on what nobody knows yet."""
        return ""

    @property
    def _model_in_words(self) -> str:
        trained = self.model.num_parameters(only_trainable=True)
        some = f", of which {trained:,} are trained" if trained < self.model.num_parameters() else ""
        return f"{self.config.model.name}, {self.model.num_parameters():,} parameters{some}"

    def _say_what_it_takes(self, steps: int) -> None:
        needs = self.needs()
        sampled, learnt = seconds_of(1000 * needs.forward), seconds_of(1000 * (needs.forward + needs.backward))
        notify(
            f"{needs} Time: about {sampled} per 1,000 tokens read or sampled and {learnt} per 1,000 tokens learnt from"
            f"{self.time_of_run(needs, steps)}.",
            warning=not needs.fits,
        )
        if not needs.fits:
            notify(
                "This may not fit. What makes it smaller: lora_rank, gradient_checkpointing, a smaller "
                "micro_batch_tokens or a smaller model."
            )

    @property
    def origin(self) -> Origin:
        """What a checkpoint notes of this run."""
        config = self.config
        return Origin(self.name, self.env_id, config.model.name, self.steps_done, config.learning_rate, config.run.seed)

    def _begins_anew(self, origin: Origin) -> str:
        """Say what training from a checkpoint takes over from the run that wrote it, and what it does not."""
        config, rate = self.config, self.config.learning_rate
        return (
            f"{config.model.name!r} is a checkpoint of llmgym: {origin.algorithm} on {origin.env}, {origin.steps} "
            f"steps with a learning rate of {origin.learning_rate:g} and seed {origin.seed}. Only its weights are "
            f"taken: this run begins anew, with a learning rate of {rate:g} after {config.learner.warmup_steps} steps "
            f"of warm-up, a fresh optimiser, these weights as its reference, and the tasks of seed {config.run.seed}. "
            f"To come close to going on, give --learning-rate {origin.learning_rate:g} --warmup-steps 0 "
            f"--seed {origin.seed + 1}."
        )

    def settled(self) -> dict[str, object]:
        """Return what options came to that are left to llmgym, None or ``auto``, by their names."""
        return {
            "learning_rate": self.config.learning_rate,
            "micro_batch_tokens": self.learner.micro_batch_tokens,
            "device": self.model.device.type,
        }

    def facts(self) -> dict[str, object]:
        """Return what else the run directory should note."""
        return {}

    def close(self) -> None:
        """Give back what is held."""
        return

    def _evaluate(self, journal: Journal, label: str) -> None:
        if self.held_out_size:
            make_console().print(f"Evaluation {label}: {self.held_out_size} held-out tasks.")
            journal.note_evaluation(label, self.evaluate())


def make_learner(
    loss: LanguageModelLoss,
    config: LearningConfig,
    learning_rates: Mapping[str, float] | None = None,
    kl: FixedKL | AdaptiveKL | None = None,
) -> Learner:
    """Return what takes optimiser steps as a configuration says; see `Learner` for the rest."""
    return Learner(
        loss,
        learning_rate=config.learning_rate,
        learning_rates=learning_rates,
        warmup_steps=config.learner.warmup_steps,
        weight_decay=config.learner.weight_decay,
        max_grad_norm=config.learner.max_grad_norm,
        micro_batch_tokens=config.learner.micro_batch_tokens,
        kl=kl,
    )


def mean_of_updates(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return what several optimiser steps measured, on average; those left out are counted."""
    names = dict.fromkeys(name for update in updates for name in update)
    means = {name: float(np.mean([update[name] for update in updates if name in update])) for name in names}
    return {**means, "updates_skipped": sum(update["updates_skipped"] for update in updates)}


def device_of(name: str) -> str:
    """Return the device that ``--device`` stands for."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("--device cuda: expected a CUDA GPU that torch sees, found none.")
    return ("cuda" if there else "cpu") if name == "auto" else name


def dtype_of(name: str, device: str) -> torch.dtype:
    """Return the type of weights that ``--dtype`` stands for, if a device multiplies it."""
    dtype: torch.dtype = getattr(torch, name)
    if dtype == torch.bfloat16 and not _multiplies_bfloat16(device):
        raise ConfigError(
            "--dtype bfloat16: expected a GPU or a processor with bfloat16 instructions (AVX512-BF16 or AMX), which "
            "this one has not; float32 is faster on it."
        )
    return dtype


def _multiplies_bfloat16(device: str) -> bool:
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last: of ARM
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
