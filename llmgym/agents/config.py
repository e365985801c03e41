"""The options that all agents share."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from llmgym.config import Config, Kwargs
from llmgym.engines.base import EngineKind, WeightTransfer
from llmgym.learn.aggregation import Aggregation
from llmgym.learn.kl import KLEstimator
from llmgym.learn.mismatch import Correction, Level
from llmgym.rollout.chat import History

BUNDLED_MODEL = "tiny"

Positive = Annotated[int, Field(ge=1)]

_EVAL_EPISODES = 500


class LearningConfig(Config):
    """What everything that learns needs to know."""

    bundled_learning_rate: ClassVar[float] = 5e-4
    """The learning rate for the bundled model unless one is given."""

    usual_learning_rate: ClassVar[float] = 1e-6
    """The same for any other model."""

    env: str = "AIOpsTriage"
    """Environment: a registered id, with or without its version, or `package.module:Id`."""

    env_kwargs: Kwargs = Field(default_factory=dict)
    """Arguments of the environment, such as `difficulty=2 language=zh`."""

    model: str = BUNDLED_MODEL
    """`tiny` (the bundled model), a local directory, or a hub name of a causal LM with a chat template."""

    steps: Positive = 40
    """Training steps."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW, after warm-up. None: the algorithm's own, one for the bundled model and one for others, ten times as
    much where adapters are trained."""

    warmup_steps: Annotated[int, Field(ge=0)] = 3
    """Optimiser steps over which the learning rate rises linearly."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW."""

    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Longer gradients are scaled down to this norm."""

    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Rank of the adapters that are trained instead of the model's own weights; 0 trains the weights."""

    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale of the adapters: what they add is multiplied by this over the rank."""

    micro_batch_tokens: Positive | None = None
    """Tokens per forward pass of the learner, at most. None: 2048 on a processor, 16384 on a GPU."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model learns, and the embedded engine samples. `auto`: on a CUDA GPU where there is one."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights, where the hardware multiplies it. The optimiser steps a float32 copy of narrower weights."""

    date: datetime | None = None
    """The date, such as 2026-11-28, that chat templates are told which ask for it. None: when the run starts."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of tasks and sampling: the same seed on the same machine gives the same run."""

    output_dir: Path = Path("runs")
    """Directory in which each run makes a directory of its own."""

    @field_validator("model", mode="before")
    @classmethod
    def _directory_as_text(cls, model: object) -> object:
        return str(model) if isinstance(model, Path) else model

    @property
    def own_learning_rate(self) -> float:
        """The learning rate where none is given."""
        if self.bundled:
            return self.bundled_learning_rate
        return self.usual_learning_rate * (
            10 if self.lora_rank else 1
        )  # as Schulman et al. 2025 found: LoRA Without Regret

    @property
    def bundled(self) -> bool:
        """Whether the model is the one that ships with the package."""
        return self.model == BUNDLED_MODEL


class SamplingConfig(LearningConfig):
    """How replies are sampled."""

    max_tokens: Positive = 128
    """Tokens of one reply at the most."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides the logits, when sampling and when learning."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Samples from the likeliest tokens that together have this probability; 1 for all."""

    top_k: Annotated[int, Field(ge=0)] = 0
    """Samples from so many of the likeliest tokens; 0 for all."""

    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings behind which a reply ends; they stay part of it."""

    max_episode_tokens: Positive | None = None
    """Tokens of all replies of an episode together at the most. None: no bound but the context's."""

    history: History = "append"
    """What the model sees of earlier turns: what was said, token by token, or what the chat template makes of it."""

    context_length: Positive = 4096
    """Tokens of prompt and replies together; no more than the model's own limit is used."""

    max_overlong: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Largest share of tasks that may not fit the context: they are left out, and more of them end the run."""


class EngineConfig(SamplingConfig):
    """What samples them."""

    engine: EngineKind = "auto"
    """What samples: the embedded engine (`local`) or SGLang. `auto`: SGLang where it and a CUDA GPU are there."""

    engine_dtype: Literal["float32", "bfloat16"] | None = None
    """What replies are sampled in. None: as the weights are. In another type the engine holds a copy of them."""

    kv_cache_gib: Annotated[float, Field(gt=0)] = 4.0
    """Bound of the embedded engine's KV cache."""

    engine_url: tuple[str, ...] = ()
    """SGLang servers that run already; their key stands in the environment variable LLMGYM_ENGINE_KEY."""

    engine_servers: Annotated[int, Field(ge=0)] = 0
    """SGLang servers to start, each on GPUs of its own. 0: one SGLang in this process."""

    engine_kwargs: Kwargs = Field(default_factory=dict)
    """Arguments of SGLang, such as `mem_fraction_static=0.6 tp_size=2`."""

    engine_weights_dir: Path | None = None
    """Where weights are written for SGLang servers to read; those on other machines have to see it too."""

    engine_transfer: WeightTransfer = "directory"
    """How weights reach SGLang servers: in that directory, or over a process `group`, NCCL between GPUs."""

    engine_check: Annotated[float, Field(gt=0)] | None = None
    """Stop if the engine's log-probabilities differ from the learner's by more nats a token, on average."""


class AgentConfig(EngineConfig):
    """What every agent needs to know besides."""

    lora_merge: bool = False
    """Save a checkpoint with the adapters merged into the weights, instead of the adapters alone."""

    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass instead of keeping it: less memory, more time."""

    eval_episodes: Annotated[int, Field(ge=0)] | None = None
    """Held-out episodes before and after training; 0 for none. None: 500, and none where `data` is learnt from."""

    sample_every: Annotated[int, Field(ge=0)] = 20
    """Print one whole conversation every so many steps; 0 for never."""

    @property
    def held_out_episodes(self) -> int:
        """What `eval_episodes` comes to."""
        return _EVAL_EPISODES if self.eval_episodes is None else self.eval_episodes


class OnlineConfig(AgentConfig):
    """What an agent needs to know that learns from its own episodes."""

    scorer: str | None = None
    """What scores in the environment's place: a registered scorer, `package.module:name`, or `reward_model:PATH`."""

    prompts_per_step: Positive = 16
    """Tasks drawn per step."""

    group_size: Annotated[int, Field(ge=2)] = 8
    """Episodes per task. A group of one has nothing to be compared with."""

    rollouts_per_step: Positive = 1
    """Rollouts of a step at the most, to replace groups that nothing is learnt from (dynamic sampling); 1 keeps all."""

    epochs: Positive = 1
    """Times that a training step goes over its batch."""

    updates_per_step: Positive = 2
    """Optimiser steps per epoch: the batch is split into so many, by tasks."""

    reference_every: Annotated[int, Field(ge=0)] = 0
    """Training steps after which the reference policy becomes the current one; 0 keeps the one of the start."""

    measure_kl: Literal["auto", "always", "never"] = "auto"
    """Whether each step's divergence from the reference is reported, which needs a frozen copy of what is trained.
    `auto`: where the loss reads one anyway, or it is small: that of adapters, or of the bundled model."""


class PolicyGradientConfig(OnlineConfig):
    """What an agent needs to know that weighs each sampled token's likelihood by an advantage."""

    aggregation: Aggregation = "token-mean"
    """What counts the same in the loss: every sampled token, or every episode; see `llmgym.learn.aggregation`."""

    loss_scale_factor: Annotated[float, Field(gt=0)] | None = None
    """What `seq-mean-token-sum-norm` divides by. None: `max_episode_tokens` or, if there is none, `max_tokens`."""

    kl_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence to the reference policy; 0 for none."""

    kl_estimator: KLEstimator = "k3"
    """How it is estimated in the loss; see `llmgym.learn.kl` for what each has for a gradient."""

    mismatch_correction: Annotated[Correction, Field(validate_default=True)] = "none"
    """What to do where sampling and training policy differ: nothing, weigh the loss by their ratio truncated at
    `mismatch_threshold`, or the same with those left out that are beyond it."""

    mismatch_level: Level = "token"
    """Whether each token has a ratio of its own, or the tokens of an episode one together."""

    mismatch_threshold: Annotated[float, Field(gt=1)] = 2.0
    """Largest ratio; with `mask`, one over it is the smallest."""

    @field_validator("mismatch_correction")
    @classmethod
    def _corrected_where_supports_differ(cls, correction: Correction, info: ValidationInfo) -> Correction:
        if correction == "none" and (info.data.get("top_p", 1.0) < 1 or info.data.get("top_k", 0) > 0):
            raise ValueError(
                "with top_p below 1 or top_k above 0 tokens are sampled from another distribution than the one that "
                "learns, which also has the tokens that were cut off; expected 'truncate' or 'mask', or top_p 1 and "
                "top_k 0"
            )
        return correction

    @property
    def loss_options(self) -> dict[str, Any]:
        """What a loss by token takes of this."""
        return {
            "kl_coef": self.kl_coef,
            "kl_estimator": self.kl_estimator,
            "aggregation": self.aggregation,
            "loss_scale_factor": self.loss_scale_factor or self.max_episode_tokens or self.max_tokens,
            "old_log_probs": "log_probs" if self.mismatch_correction == "none" else "old_log_probs",
        }


class OfflineConfig(AgentConfig):
    """What an agent needs to know that learns from data."""

    data: Path | None = None
    """A file to learn from, Parquet or JSON lines (`.jsonl`). None: examples are made from the environment, by its
    expert."""

    skip_bad_rows: bool = False
    """Leave out rows of `data` that cannot be read, do not fit the context, or that the chat template refuses."""

    examples: Positive = 1000
    """How many examples are made from the environment where there is no `data`."""

    batch_size: Positive = 32
    """Examples per training step, which is one optimiser step."""

    @property
    def held_out_episodes(self) -> int:
        """What `eval_episodes` comes to: data need have nothing to do with an environment."""
        return 0 if self.data is not None and self.eval_episodes is None else super().held_out_episodes
