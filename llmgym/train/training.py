"""`Training`: what all agents train with: a model, its learner, its engine and the environments."""

from __future__ import annotations

import contextlib
import functools
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from tensordict import TensorDict
from transformers import PreTrainedModel

from llmgym.config.sections import AgentConfig
from llmgym.engines.base import Engine, taking_weights
from llmgym.engines.make import engine_kind, make_engine
from llmgym.envs.text_env import TextEnv
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import ConfigError
from llmgym.evaluate import Evaluation, evaluate
from llmgym.learn.checkpoint import save_checkpoint
from llmgym.learn.needs import Needs, training_needs
from llmgym.learn.policy import Policy
from llmgym.learn.reference import Reference
from llmgym.models import TINY_PATH
from llmgym.models.causal_lm import load_causal_lm, stop_token_ids_of
from llmgym.models.context import context_notice, longest_context
from llmgym.models.lora import add_adapters, merged_weights, plain_copy
from llmgym.models.threads import use_available_processors
from llmgym.registry import load_env_creator, make_env, resolve_env
from llmgym.report.console import notify
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.run_time import set_run_time
from llmgym.scorers import AnyScorer, Scorer
from llmgym.scorers.pointwise import Unscored
from llmgym.train.loop import Loop, device_of, dtype_of, make_learner

if TYPE_CHECKING:
    from llmgym.train.agent import Agent


class Training(Loop):
    """A model, its learner, its engine and the environments, put together for an agent.

    Args:
        agent: Whose configuration, preparation and loss to use.
    """

    def __init__(self, agent: Agent) -> None:
        transformers.utils.logging.disable_progress_bar()
        use_available_processors()
        config = agent.config
        self.config: AgentConfig = config
        self.name, self.sample_every = agent.name, config.evaluation.sample_every
        self._agent = agent
        self._model_path = str(TINY_PATH) if config.model.bundled else config.model.name
        self.env_id = resolve_env(config.environment.env)
        device = device_of(config.model.device)
        self.model, self.tokenizer = load_causal_lm(self._model_path, dtype_of(config.model.dtype, device))
        self.model.to(device)
        if config.model.lora_rank:
            add_adapters(self.model, config.model.lora_rank, config.model.lora_alpha, config.run.seed)
        set_run_time(config.model.date)
        self.codec = ChatCodec(self.tokenizer, stop_token_ids_of(self.model), config.conversation.history)
        context = config.conversation.context_length
        asked = None if context == config.default_of("context_length") else context
        for notice in (self.codec.notice, context_notice(self.model.config, asked)):
            if notice:
                notify(notice)
        temperature, checkpointing = config.sampling.temperature, config.policy.gradient_checkpointing
        self.policy = Policy(self.model, temperature, gradient_checkpointing=checkpointing)
        self.learner = make_learner(agent.loss(self.policy), config, agent.learning_rates, agent.kl)

    @property
    def context_length(self) -> int:
        """Tokens of the longest conversation that there is room for."""
        return min(self.config.conversation.context_length, longest_context(self.model.config))

    def begin(self) -> None:
        """Take the reference, if one is kept."""
        if self._agent.keeps_reference:
            self.learner.keep_reference(self.policy)

    @property
    def reference(self) -> Reference:
        """The policy as it was when training began, or was when it was last refreshed."""
        assert self.learner.reference is not None, "nothing said that a reference is kept"
        return self.learner.reference

    @functools.cached_property
    def engine(self) -> Engine:
        """What samples replies."""
        return make_engine(
            self.config.engine,
            self.model,
            self._model_path,
            context_length=self.context_length,
            text_of=self.codec.spell if self.config.sampling.stop else None,
            seed=self.config.run.seed,
            notify=notify,
        )

    def evaluate(self) -> Evaluation:
        """Play the held-out episodes: of the split ``eval`` if the environment has one, at the training temperature."""
        count = self.config.held_out_episodes
        if not count:
            raise ConfigError("evaluate needs eval_episodes of at least 1, got 0.")
        envs = self.make_envs(min(256, count), split="eval")
        with contextlib.closing(envs):
            scorer = self._agent.scorer  # one that compares siblings has nothing to say of single episodes
            collector = self.make_collector(envs, scorer if isinstance(scorer, Scorer) else None)
            return evaluate(collector, range(count), self.config.sampling, seed=0)

    @property
    def held_out_size(self) -> int:
        """How many episodes are played before training, and again after it."""
        return self.config.held_out_episodes

    def needs(self) -> Needs:
        """Return what a training step will take."""
        batch = _few_tokens(self.policy.model)
        return training_needs(
            self.learner.loss,
            policy=self.policy,
            run=lambda: self.policy.log_probs(batch).sum(),
            tokens=int(batch["mask"].sum()),
            batch_tokens=self.learner.micro_batch_tokens,
            reference=self._agent.keeps_reference,
        )

    def settled(self) -> dict[str, object]:
        """Return what options came to that are left to llmgym."""
        return {
            **super().settled(),
            "context_length": self.context_length,
            "date": self.codec.template.now,
            "eval_episodes": self.config.held_out_episodes,
            "engine": engine_kind(self.config.engine),
            **self._agent.settled,
        }

    def facts(self) -> dict[str, object]:
        """Return what the chat template does to earlier turns, if anything, and what time it is told."""
        return {"template": self.codec.notice, "date": self.codec.template.now.isoformat()}

    def close(self) -> None:
        """Give back what the engine holds."""
        if "engine" in self.__dict__:
            self.engine.close()

    def save(self, path: Path) -> None:
        """Write the model, or its adapters, and its tokenizer to a new directory."""
        if self.config.policy.lora_merge and self.config.model.lora_rank:
            save_checkpoint(path, plain_copy(self.model, self.model.dtype), self.tokenizer, self.origin)
        else:
            save_checkpoint(path, self.model, self.tokenizer, self.origin)

    def make_envs(self, count: int, *, split: str | None = None) -> TextVectorEnv:
        """Make environments; of a split, if they have splits."""
        options = dict(self.config.environment.env_kwargs)
        if self._agent.scorer is not None and not _scores_itself(self.env_id):
            options["scorer"] = Unscored()
        if split is not None and _takes_split(self.env_id):
            options["split"] = split
        return TextVectorEnv([lambda: make_env(self.env_id, **options)] * count)

    def make_collector(self, envs: TextVectorEnv, scorer: AnyScorer | None) -> Collector:
        """Return what plays environments with the policy."""
        return Collector(envs, self.codec, self.engine, scorer, self.config.conversation.max_overlong)

    def _hand_over(self, step: int) -> None:
        """Give the engine the weights that a step ended with."""
        taking_weights(self.engine).load_weights(merged_weights(self.model), version=step)


def _few_tokens(model: PreTrainedModel) -> TensorDict:
    """Return a batch of one row, of any tokens, to try a model with."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.get_input_embeddings().num_embeddings, (1, 65), generator=random)
    batch = {"tokens": tokens, "mask": torch.arange(65)[None] > 0, "prompt_length": torch.tensor([1])}
    return TensorDict(batch, batch_size=[1]).to(model.device)


def _takes_split(env_id: str) -> bool:
    return "split" in inspect.signature(load_env_creator(env_id)).parameters


def _scores_itself(env_id: str) -> bool:
    """Tell whether an environment has a score of its own, which goes on to say what a success is."""
    return getattr(load_env_creator(env_id), "score", None) is not TextEnv.score
