"""The loop that all agents share: roll out, prepare, update, hand the weights back."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium
import numpy as np
import torch
import transformers

from llmgym.agents.config import BUNDLED_MODEL
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import ConfigError, LLMGymError
from llmgym.evaluate import Evaluation, evaluate, summarise
from llmgym.learn import mismatch
from llmgym.learn.batch import split_by_group
from llmgym.learn.checkpoint import save_checkpoint
from llmgym.learn.engine_check import check_log_probs
from llmgym.learn.learner import Learner
from llmgym.learn.policy import Policy
from llmgym.learn.reference import Reference, kl_from, log_probs_of
from llmgym.models import TINY_PATH
from llmgym.models.causal_lm import load_causal_lm, stop_token_ids_of
from llmgym.models.threads import use_available_processors
from llmgym.registry import resolve_env
from llmgym.report.console import Progress, make_console, print_evaluations
from llmgym.report.curve import draw_learning_curve
from llmgym.report.run_directory import RunDirectory
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector, Sampling, Task
from llmgym.rollout.engines.base import LendsMemory
from llmgym.rollout.engines.make import make_engine
from llmgym.rollout.trajectory import Trajectory

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.agents.base import Agent

_FIRST_TRAINING_SEED = 1_000_000  # seeds below are for evaluation
_KL_GROUPS = 2  # groups per step on which the KL from the start is measured


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
    metrics: list[dict[str, float]]
    before: Evaluation | None
    after: Evaluation | None


class Training:
    """A model, its engine and learner, and the environments, put together for an agent.

    Args:
        agent: Whose configuration, preparation and loss to use.
    """

    def __init__(self, agent: Agent) -> None:
        transformers.utils.logging.disable_progress_bar()
        use_available_processors()
        self.steps_done = 0
        self.agent, self.config = agent, agent.config
        config = self.config
        bundled = config.model == BUNDLED_MODEL
        self.env_id = resolve_env(config.env)
        self.envs = self._make_envs(config.prompts_per_step * config.group_size)
        model_path = str(TINY_PATH) if bundled else config.model
        self.model, self.tokenizer = load_causal_lm(model_path)
        self.model.to(_device(config.device))
        self.codec = ChatCodec(self.tokenizer, stop_token_ids_of(self.model), config.history)
        notify = functools.partial(make_console().print, style="yellow", soft_wrap=True, markup=False)
        if self.codec.notice:
            notify(self.codec.notice)
        self.engine = make_engine(
            config.engine,
            self.model,
            model_path,
            context_length=config.context_length,
            kv_cache_gib=config.kv_cache_gib,
            dtype=config.engine_dtype,
            text_of=self.codec.text if config.stop else None,
            urls=config.engine_url,
            servers=config.engine_servers,
            options=config.engine_kwargs,
            weights_dir=config.engine_weights_dir,
            seed=config.seed,
            notify=notify,
        )
        self.collector = Collector(self.envs, self.codec, self.engine)
        self.policy = Policy(
            self.model,
            config.temperature,
            dtype=getattr(torch, config.dtype),
            gradient_checkpointing=config.gradient_checkpointing,
        )
        self.learner = Learner(
            self.policy,
            agent.loss(self.policy),
            learning_rate=config.learning_rate or (5e-4 if bundled else 1e-6),
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            micro_batch_tokens=config.micro_batch_tokens,
            aggregation=config.aggregation,
        )
        self.reference = Reference(self.policy, self.learner.micro_batch_tokens)

    def run(self, steps: int) -> Result:
        """Train for `steps`, and write a run directory that is complete even if this is interrupted."""
        console = make_console()
        label = f"{self.agent.name}-{self.env_id.rpartition('/')[2]}"
        facts = {
            "env_id": self.env_id,
            "seed": self.config.seed,
            "parameters": self.model.num_parameters(),
            "device": str(self.model.device),
            "threads": torch.get_num_threads(),
            "template": self.codec.notice,
        }
        run = RunDirectory(self.config.output_dir, label, self.config.to_yaml(), facts)
        console.print(f"[bold]{label}[/bold]: {self.config.model}, {facts['parameters']:,} parameters, {steps} steps")
        evaluations: dict[str, Evaluation] = {}
        metrics: list[dict[str, float]] = []
        try:
            self._evaluate_into(evaluations, "before training", run)
            progress = Progress(steps, console)
            progress.header()
            for number in range(1, steps + 1):
                self.steps_done += 1
                step = self.steps_done
                trajectories, measured = self._step(step)
                metrics.append(measured)
                run.add_metrics(measured)
                run.add_trajectories(step, trajectories)
                progress.add(number, measured)
                if self.config.sample_every and number % self.config.sample_every == 0:
                    progress.conversation(step, trajectories[0])
            self._evaluate_into(evaluations, "after training", run)
        finally:  # also when interrupted: what was learnt until here is not lost
            if metrics:
                self.save(run.checkpoint)
                draw_learning_curve(run.learning_curve, label, metrics, evaluations)
            console.print(f"Run directory: {run.path}", soft_wrap=True, markup=False)
        if evaluations:
            print_evaluations(console, evaluations)
        return Result(run.path, metrics, evaluations.get("before training"), evaluations.get("after training"))

    def evaluate(self) -> Evaluation:
        """Play the held-out episodes: of the split ``eval`` if the environment has one, at the training temperature."""
        if not self.config.eval_episodes:
            raise ConfigError("evaluate needs eval_episodes of at least 1, got 0.")
        takes_split = "split" in inspect.signature(type(self.envs.envs[0].unwrapped)).parameters
        envs = self._make_envs(min(256, self.config.eval_episodes), **({"split": "eval"} if takes_split else {}))
        with contextlib.closing(envs):
            collector = Collector(envs, self.codec, self.engine)
            return evaluate(collector, range(self.config.eval_episodes), self._sampling(seed=0))

    def close(self) -> None:
        """Give back what the engine holds."""
        self.engine.close()

    def save(self, path: Path) -> None:
        """Write the model and its tokenizer to a new directory."""
        save_checkpoint(path, self.model, self.tokenizer)

    def _step(self, step: int) -> tuple[list[Trajectory], dict[str, float]]:
        """Roll out a batch and learn from it."""
        begun = time.perf_counter()
        sampling = self._sampling(seed=self.config.seed * 10**6 + step)
        trajectories = self.collector.collect(self._draw_tasks(step), sampling)
        rolled_out = time.perf_counter()
        if isinstance(self.engine, LendsMemory) and self.config.engine_kwargs.get("enable_memory_saver"):
            self.engine.lend_memory()  # until load_weights
        batch = self.agent.prepare(trajectories).to(self.model.device)
        few = int((batch["group"] < _KL_GROUPS).sum())
        if self.config.engine_check is not None:
            ours = log_probs_of(self.policy, batch[:few], self.learner.micro_batch_tokens)
            check_log_probs(ours, batch[:few], self.config.engine_check)
        reference = self.reference.log_probs(batch if self.agent.needs_reference else batch[:few])
        kl = kl_from(reference[:few], batch[:few])
        if self.agent.needs_reference:
            batch["ref_log_probs"] = reference
        off = self._correct(batch)
        parts = split_by_group(batch, self.config.updates_per_step)
        updates = [self.learner.update(part) for part in parts]
        # In the first update's forward pass the policy has the weights that sampled: its log-probs come for free.
        off = off or mismatch.measure(parts[0]["policy_log_probs"], parts[0])
        self.engine.load_weights(self.model.named_parameters(), version=step)
        seconds = time.perf_counter() - begun
        sampled = sum(trajectory.sampled_tokens for trajectory in trajectories)
        names = dict.fromkeys(name for update in updates for name in update)
        learning = {name: float(np.mean([update[name] for update in updates if name in update])) for name in names}
        return trajectories, {
            "step": step,
            **_summary(trajectories),
            "entropy": -float((batch["log_probs"] * batch["mask"]).sum() / batch["mask"].sum().clamp(min=1)),
            "kl": kl,
            "tokens_per_second": sampled / seconds,
            "seconds": seconds,
            "rollout_seconds": rolled_out - begun,
            **off,
            **learning,
        }

    def _correct(self, batch: TensorDict) -> dict[str, float]:
        """Weigh a batch, if asked to, for the difference between who sampled it and who learns; return its measures."""
        config = self.config
        if config.mismatch_correction == "none":
            return {}
        batch["old_log_probs"] = log_probs_of(self.policy, batch, self.learner.micro_batch_tokens)
        batch["importance_weight"], beyond = mismatch.importance_weights(
            batch["old_log_probs"], batch, config.mismatch_correction, config.mismatch_level, config.mismatch_threshold
        )
        return {**mismatch.measure(batch["old_log_probs"], batch), "mismatch/corrected": beyond}

    def _sampling(self, seed: int) -> Sampling:
        config = self.config
        return Sampling(
            config.max_tokens,
            config.temperature,
            seed,
            top_p=config.top_p,
            top_k=config.top_k,
            stop=config.stop,
            max_episode_tokens=config.max_episode_tokens,
        )

    def _draw_tasks(self, step: int) -> list[Task]:
        rng = np.random.default_rng([self.config.seed, step])
        seeds = rng.integers(_FIRST_TRAINING_SEED, 2**31, self.config.prompts_per_step)
        return [Task(int(seed), group) for group, seed in enumerate(seeds) for _ in range(self.config.group_size)]

    def _make_envs(self, count: int, **overrides: object) -> TextVectorEnv:
        options = {**self.config.env_kwargs, **overrides}
        if self.agent.scorer is not None:
            options["scorer"] = self.agent.scorer
        try:
            return TextVectorEnv([lambda: gymnasium.make(self.env_id, disable_env_checker=True, **options)] * count)
        except LLMGymError:
            raise
        except (TypeError, ValueError, gymnasium.error.Error) as error:
            raise ConfigError(f"Cannot make {self.env_id} with {options}: {error}") from error

    def _evaluate_into(self, evaluations: dict[str, Evaluation], label: str, run: RunDirectory) -> None:
        if self.config.eval_episodes:
            evaluations[label] = self.evaluate()
            run.add_evaluations({name: dataclasses.asdict(evaluation) for name, evaluation in evaluations.items()})


def _device(name: str) -> str:
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("--device cuda: expected a CUDA GPU that torch sees, found none.")
    return ("cuda" if there else "cpu") if name == "auto" else name


def _summary(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """What a batch of episodes looked like."""
    seen = summarise(trajectories)
    replies = [reply for trajectory in trajectories for reply in trajectory.replies]
    rewards: dict[int, set[float | None]] = {}
    for trajectory in trajectories:
        rewards.setdefault(trajectory.group, set()).add(trajectory.score)
    return {
        "reward": seen.reward,
        "success": seen.success,
        **{f"part/{name}": value for name, value in seen.parts.items() if name != "success"},
        "reply_tokens": sum(reply.stop - reply.start for reply in replies) / len(replies),
        "replies_cut_off": sum(reply.finish_reason == "length" for reply in replies) / len(replies),
        "scores_missing": seen.missing,
        "groups_without_signal": sum(len(scores) == 1 for scores in rewards.values()),
    }
