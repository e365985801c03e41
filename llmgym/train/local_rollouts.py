"""`LocalRollouts`: an engine in the process that learns."""

import functools
from collections.abc import Sequence

from transformers import PreTrainedModel

from llmgym.config.presets import directory_of
from llmgym.engines.base import (
    Completion,
    CountsLogProbs,
    Engine,
    GenerationRequest,
    LendsMemory,
    complete,
    require_log_probs,
    taking_weights,
)
from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.make import engine_kind, make_engine
from llmgym.engines.shared import SharedEngine
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import ConfigError
from llmgym.models.causal_lm import load_causal_lm
from llmgym.models.lora import plain_copy
from llmgym.report.console import notify
from llmgym.rollout.collector import Collector
from llmgym.scorers import AnyScorer
from llmgym.train.actor import Actor


class LocalRollouts:
    """An engine in this process.

    Args:
        actor: Whose policy it samples from.
        in_flight: Whether another thread gives the engine other weights in the middle of replies.
    """

    plays_here = True

    def __init__(self, actor: Actor, *, in_flight: bool = False) -> None:
        self._actor, self._in_flight = actor, in_flight

    def player(
        self, envs: TextVectorEnv, scorer: AnyScorer | None, *, split: str | None = None, needs_scores: bool = True
    ) -> Collector:
        """Return what plays environments with the policy; their split is theirs."""
        config = self._actor.config
        return Collector(
            envs,
            self._actor.codec,
            self.engine,
            scorer,
            max_overlong=config.conversation.max_overlong,
            max_failure_rate=config.environment.max_failure_rate,
            frozen=self._frozen_engine if "frozen" in envs.seats else None,
            needs_scores=needs_scores,
            env_retries=config.environment.env_retries,
            groups_at_once=self._actor.groups_at_once if split is None else None,
        )

    @functools.cached_property
    def engine(self) -> Engine:
        """What samples replies."""
        actor, config = self._actor, self._actor.config
        reads = actor.stops_at_strings or engine_kind(config.engine) == "local"  # others load a tokenizer for it
        engine = make_engine(
            config.engine,
            actor.engine_model,
            actor.model_path,
            context_length=actor.context_length,
            text_of=actor.codec.spell if reads else None,
            seed=config.run.seed,
            notify=notify,
        )
        if not self._in_flight:
            return engine
        if not isinstance(engine, LocalEngine):
            raise ConfigError(
                "weights_in_flight: expected the embedded engine (--engine local), which goes on with other weights in "
                f"the middle of a reply, got {type(engine).__name__}."
            )
        return SharedEngine(engine)

    def keep_frozen(self) -> None:
        """Have frozen seats played by the weights as they are now, unless others are given."""
        _ = self._frozen_engine

    @functools.cached_property
    def _frozen_engine(self) -> Engine:
        """What samples the replies of frozen seats: the weights as they are when it is first asked for, or others."""
        actor, config = self._actor, self._actor.config
        if engine_kind(config.engine) != "local":
            raise ConfigError("Frozen seats are played by the embedded engine: expected --engine local.")
        other = config.environment.frozen_model
        own = actor.engine_model
        return make_engine(
            config.engine,
            plain_copy(own, own.dtype) if other is None else self._other_weights(directory_of(other)),
            actor.model_path,
            context_length=actor.context_length,
            text_of=actor.codec.spell,
            notify=notify,
        )

    def _other_weights(self, path: str) -> PreTrainedModel:
        """Load another model that reads and writes the policy's tokens."""
        actor = self._actor
        model, tokenizer = load_causal_lm(path, actor.model.dtype)
        for what, own, others in (
            ("vocabulary", actor.tokenizer.get_vocab(), tokenizer.get_vocab()),
            ("chat template", actor.tokenizer.chat_template, tokenizer.chat_template),
        ):
            if own != others:
                raise ConfigError(
                    f"frozen_model {path!r} has another {what} than the trained model: expected a checkpoint of the "
                    "same model, since both play in the same tokens."
                )
        return model.to(actor.model.device)

    def require_training(self, *, log_probs: bool) -> None:
        """Refuse an engine that takes no weights, or whose replies cannot be learnt from."""
        taking_weights(self.engine)
        if log_probs:
            require_log_probs(self.engine)

    def load_weights(self, version: int) -> None:
        """Sample with the weights that the model has now."""
        taking_weights(self.engine).load_weights(self._actor.weights(), version=version)

    def probe(self, requests: Sequence[GenerationRequest]) -> list[list[Completion]]:
        """Return what the engine replies, if it counts log-probabilities."""
        if not isinstance(self.engine, CountsLogProbs):
            return []
        return [complete(self.engine, requests)]

    @functools.cached_property
    def lends_memory(self) -> bool:
        """Whether the engine can make room on an accelerator, and was told to."""
        saver = self._actor.config.engine.arguments.get("enable_memory_saver")
        return bool(saver) and isinstance(self.engine, LendsMemory)

    def lend_memory(self) -> None:
        """Make room on an accelerator."""
        if isinstance(self.engine, LendsMemory):
            self.engine.lend_memory()

    def abandon(self) -> None:
        """Do nothing: nothing is played ahead."""

    def close(self) -> None:
        """Give back what the engines hold."""
        for name in ("engine", "_frozen_engine"):
            if name in self.__dict__:
                getattr(self, name).close()
