"""`Actor`: a policy that acts: its model, the engine that samples from it, and the environments it plays."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import torch
from tensordict import TensorDict
from torch import Tensor
from transformers import PreTrainedModel

from llmgym.calls import Schemas
from llmgym.config.sections import AgentConfig, OnlineConfig
from llmgym.engines.make import engine_kind
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import ConfigError
from llmgym.evaluate import Evaluation, evaluate
from llmgym.learn.checkpoint import Origin, hash_of, save_checkpoint
from llmgym.learn.learner import Learner
from llmgym.learn.losses import LanguageModelLoss
from llmgym.learn.needs import Needs, some_tokens, training_needs
from llmgym.learn.policy import Policy
from llmgym.learn.reference import log_probs_of
from llmgym.learn.sharding import Shards
from llmgym.models.causal_lm import load_causal_lm, stop_token_ids_of
from llmgym.models.context import context_notice, longest_context
from llmgym.models.lora import merged_weights, plain_copy
from llmgym.models.shards import whole
from llmgym.registry import make_env
from llmgym.report.console import notify
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.task import Task
from llmgym.rollout.transcript import Scribe
from llmgym.scorers import AnyScorer, judges_alone
from llmgym.train.canary import LENGTHS, Canary
from llmgym.train.environments import made_with, make_envs
from llmgym.train.rollouts import Rollouts
from llmgym.train.setting import put, source_of
from llmgym.train.tasks import RunRows
from llmgym.types import Message


class Actor:
    """A policy with what it takes to play.

    Args:
        config: Its model, and how it samples.
        keeps_reference: Whether a frozen copy of what is trained is kept.
        plays: Whether it plays at all; otherwise no weights are handed to an engine.
        rows: What its environments play, if they take rows.

    Attributes:
        rollouts: What plays episodes with the policy; whoever puts a trainer together chooses it.
        stops_at_strings: Whether strings end replies.
    """

    def __init__(self, config: AgentConfig, *, keeps_reference: bool, plays: bool, rows: RunRows | None = None) -> None:
        self.rows = rows
        self.config, self._keeps_reference, self._plays = config, keeps_reference, plays
        self.model_path, dtype = source_of(config)
        self.model, self.tokenizer = load_causal_lm(self.model_path, dtype)
        put(self.model, config)
        self.codec = ChatCodec(self.tokenizer, stop_token_ids_of(self.model), config.conversation.history)
        context = config.conversation.context_length
        asked = None if context == config.default_of("context_length") else context
        for notice in (self.codec.notice, context_notice(self.model.config, asked)):
            if notice:
                notify(notice)
        self._told_of_tools = False
        self.stops_at_strings = bool(config.sampling.stop)  # an environment may name some, too
        temperature, checkpointing = config.sampling.temperature, config.policy.gradient_checkpointing
        self.policy = Policy(self.model, temperature, gradient_checkpointing=checkpointing)
        self.rollouts: Rollouts
        self._apart: PreTrainedModel | None = None
        self.shards = Shards(self.model, wanted=config.learner.sharded)

    @property
    def context_length(self) -> int:
        """Tokens of the longest conversation that there is room for."""
        return min(self.config.conversation.context_length, longest_context(self.model.config))

    @property
    def groups_at_once(self) -> int | None:
        """Groups that are played side by side; None for all."""
        return self.config.rollout.groups_at_once if isinstance(self.config, OnlineConfig) else None

    @property
    def plays_ahead(self) -> bool:
        """Whether the next step's episodes are played while this step learns."""
        return isinstance(self.config, OnlineConfig) and self.config.cluster.max_staleness > 0

    @property
    def in_flight(self) -> bool:
        """Whether engines take weights in the middle of episodes."""
        return isinstance(self.config, OnlineConfig) and self.config.cluster.weights_in_flight

    @property
    def scribe(self) -> Scribe:
        """What writes down conversations that it did not sample."""
        return Scribe(self.codec, self.context_length)

    # Playing.

    def make_envs(self, count: int, *, split: str | None = None) -> TextVectorEnv:
        """Make environments; of a split, if they have splits."""
        envs = make_envs(self.config, self.rows, count, split=split)
        self.tell_of(envs.tools(0))
        self.stops_at_strings |= bool(envs.within_limits(self.config.sampling).stop)
        return envs

    def make_expert_env(self) -> gymnasium.Env[str, str]:
        """Make an environment in this process, for its expert to play in."""
        env_id, options = made_with(self.config, self.rows, None)
        return make_env(env_id, **options)

    @functools.cached_property
    def held_out_tasks(self) -> list[Task]:
        """The tasks of an evaluation: seeds from 0 on, or each row that is held out, once."""
        count = self.config.held_out_episodes
        rows = range(count) if self.rows is None else self.rows.evaluated(count)
        return [Task(i, i, None if self.rows is None else row) for i, row in enumerate(rows)]

    def tell_of(self, tools: Schemas) -> None:
        """Say, the first time that there are tools, what the chat template makes of them."""
        if tools and not self._told_of_tools and self.codec.tool_notice:
            notify(self.codec.tool_notice)
        self._told_of_tools = self._told_of_tools or bool(tools)

    # Sharding.

    def shard(self, loss: LanguageModelLoss) -> None:
        """Part the parameters of a loss among ranks, if that was asked for; an engine in this process keeps a copy."""
        engine = self.config.engine
        plays_here = self._plays and self.rollouts.plays_here and (engine_kind(engine) == "local" or engine.urls)
        if self.shards.wanted and plays_here:
            self._apart = copy.deepcopy(self.model)
        self.shards.part(loss)

    @property
    def engine_model(self) -> PreTrainedModel:
        """The model that an engine in this process is made with: that which learns, unless that is sharded."""
        return self.model if self._apart is None else self._apart

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the model's weights as they are now, adapters merged; all ranks if they are in shards."""
        return merged_weights(self.model)

    def trained_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what is trained of the model, as it is now; all ranks if it is in shards."""
        return ((name, whole(one)) for name, one in self.model.named_parameters() if one.requires_grad)

    def calls(self, learner: Learner) -> Mapping[str, Callable[..., Any]]:
        """Return the functions that read parameters, which all ranks have to call if those are in shards."""
        return {
            "load_weights": self.rollouts.load_weights,
            "log_probs": self._log_probs,
            "needs": functools.partial(self._needs, learner),
        }

    def _log_probs(self, batch: TensorDict) -> Tensor:
        """Return the policy's log-probability of the tokens of a few short replies.  [B, T]"""
        return log_probs_of(self.policy, batch.to(self.model.device), micro_batch_tokens=2048).cpu()

    # What a trainer asks for.

    def begin(self, learner: Learner) -> None:
        """Refuse an engine that takes no weights; let the learner keep the policy as its reference, if it has one."""
        if self._plays:
            self.rollouts.require_training(log_probs=isinstance(self.config, OnlineConfig))
        if self._keeps_reference:
            learner.keep_reference(self.policy)

    def hand_over(self, version: int) -> None:
        """Give engines the weights as they are now, and see whether they arrived, unless they are busy.

        Raises:
            EngineError: They did not, or not all of them.
        """
        if self._plays:
            self.shards.call("load_weights", self.rollouts.load_weights, version)
            if not self.plays_ahead or self.in_flight:
                self.check_hand_over(version)

    def check_hand_over(self, version: int) -> None:
        """See whether the weights of a version arrived, if it is time to look.

        Raises:
            EngineError: They did not, or not all of them.
        """
        every = self.config.engine.canary_every
        if every and version % every == 0:
            self._canary.check(version)

    @functools.cached_property
    def _canary(self) -> Canary:
        """What sees whether weights arrive."""
        dtype = self.config.engine.dtype
        return Canary(
            self.rollouts.probe,
            lambda batch: self.shards.call("log_probs", self._log_probs, batch),
            # Open questions: an answer that is certain says nothing of the weights.
            [self.codec.prompt([Message("user", f"What do you see{' there' * n}?")]) for n in range(len(LENGTHS) // 2)],
            self.codec.stop_token_ids,
            temperature=self.policy.temperature,
            dtypes=(self.model.dtype, self.model.dtype if dtype is None else getattr(torch, dtype)),
        )

    def needs(self, learner: Learner) -> Needs:
        """Return what a training step will take, from a forward and a backward pass over a few tokens."""
        return self.shards.call("needs", functools.partial(self._needs, learner))

    def _needs(self, learner: Learner) -> Needs:
        tokens = some_tokens(self.model, rows=1)
        mask = torch.arange(tokens.shape[1])[None] > 0
        batch = TensorDict({"tokens": tokens, "mask": mask, "prompt_length": torch.tensor([1])}, batch_size=[1])
        batch = batch.to(self.model.device)
        return training_needs(
            learner.loss,
            policy=self.policy,
            run=lambda: self.policy.log_probs(batch).sum(),
            tokens=int(mask.sum()),
            batch_tokens=learner.micro_batch_tokens,
            reference=self._keeps_reference,
        )

    def settled(self) -> dict[str, object]:
        """Return what options came to that are left to llmgym."""
        return {
            "context_length": self.context_length,
            "date": self.codec.template.now,
            "eval_episodes": len(self.held_out_tasks),
            "engine": engine_kind(self.config.engine),
        }

    def facts(self) -> dict[str, object]:
        """Return what the chat template does to earlier turns, if anything, and what time it is told."""
        told = [self.codec.notice, self.codec.tool_notice if self._told_of_tools else None]
        return {"template": " ".join(filter(None, told)) or None, "date": self.codec.template.now.isoformat()}

    def tokenizer_hash(self) -> str:
        """Return a hash of the tokenizer and its chat template."""
        return hash_of(self.tokenizer)

    def save(self, path: Path, origin: Origin) -> None:
        """Write the model, or its adapters, and its tokenizer to a new directory."""
        model = self.shards.whole()
        merge = self.config.policy.lora_merge and self.config.model.lora_rank
        save_checkpoint(path, plain_copy(model, model.dtype) if merge else model, self.tokenizer, origin)

    def close(self) -> None:
        """Give back what engines hold."""
        self.rollouts.close()


class HeldOutEpisodes:
    """Judges a policy by episodes of tasks that it is not trained on.

    They are of the split ``eval`` if the environment has one, and sampled as in training.

    Args:
        actor: Who plays.
        scorer: Scores episodes in place of the environments; one that compares siblings is not used.
    """

    def __init__(self, actor: Actor, scorer: AnyScorer | None = None) -> None:
        self._actor, self._scorer = actor, judges_alone(scorer)
        self.size = len(actor.held_out_tasks)

    def evaluate(self) -> Evaluation:
        """Play all of them."""
        if not self.size:
            raise ConfigError("evaluate needs eval_episodes of at least 1, or rows that are held out, got 0.")
        actor = self._actor
        count = min(256, self.size) if actor.rollouts.plays_here else 1
        with contextlib.closing(actor.make_envs(count, split="eval")) as envs:
            player = actor.rollouts.player(envs, self._scorer, split="eval", needs_scores=False)
            return evaluate(player, actor.held_out_tasks, actor.config.sampling, seed=0)
