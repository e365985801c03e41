"""The sections that configurations share; each goes as a whole to what it configures."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from llmgym.config.base import Config
from llmgym.config.choices import Aggregation, Correction, EngineKind, History, KLEstimator, Level, WeightTransfer
from llmgym.config.command_line import Kwargs

BUNDLED_MODEL = "tiny"

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16"]

_EVAL_EPISODES = 500


class Run(Config):
    """The run as a whole."""

    steps: Positive = 40
    """Training steps."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of tasks and sampling: the same seed on the same machine gives the same run."""

    output_dir: Path = Path("runs")
    """Directory in which each run makes a directory of its own."""


class Environment(Config):
    """The task."""

    env: str = "AIOpsTriage"
    """Environment: a registered id, with or without its version, or `package.module:Id`."""

    env_kwargs: Kwargs = Field(default_factory=dict)
    """Arguments of the environment, such as `difficulty=2 language=zh`."""


class Model(Config):
    """The model that learns."""

    name: str = Field(default=BUNDLED_MODEL, alias="model")
    """`tiny` (the bundled model), a local directory, or a hub name of a causal LM with a chat template."""

    dtype: Dtype = "float32"
    """Of the weights, where the hardware multiplies it. The optimiser steps a float32 copy of narrower weights."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model learns, and the embedded engine samples. `auto`: on a CUDA GPU where there is one."""

    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Rank of the adapters that are trained instead of the model's own weights; 0 trains the weights."""

    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale of the adapters: what they add is multiplied by this over the rank."""

    date: datetime | None = None
    """The date, such as 2026-11-28, that chat templates are told which ask for it. None: when the run starts."""

    @field_validator("name", mode="before")
    @classmethod
    def _directory_as_text(cls, name: object) -> object:
        return str(name) if isinstance(name, Path) else name

    @property
    def bundled(self) -> bool:
        """Whether the model is the one that ships with the package."""
        return self.name == BUNDLED_MODEL


class Learner(Config):
    """The optimiser, AdamW."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Learning rate after warm-up. None: the algorithm's own, one for the bundled model and one for others, ten times
    as much where adapters are trained."""

    warmup_steps: Annotated[int, Field(ge=0)] = 3
    """Optimiser steps over which the learning rate rises linearly."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of AdamW."""

    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Longer gradients are scaled down to this norm."""

    micro_batch_tokens: Positive | None = None
    """Tokens per forward pass of the learner, at most. None: 2048 on a processor, 16384 on a GPU."""


class Policy(Config):
    """The language model under training."""

    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass instead of keeping it: less memory, more time."""

    lora_merge: bool = False
    """Save a checkpoint with the adapters merged into the weights, instead of the adapters alone."""


class Conversation(Config):
    """How episodes become tokens."""

    history: History = "append"
    """What the model sees of earlier turns: what was said, token by token, or what the chat template makes of it."""

    context_length: Positive = 4096
    """Tokens of prompt and replies together; no more than the model's own limit is used."""

    max_overlong: Share = 0.25
    """Largest share of tasks that may not fit the context: they are left out, and more of them end the run."""


class Sampling(Config):
    """How replies are sampled."""

    max_tokens: Positive = 128
    """Tokens per reply, at most."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Divides the logits, when sampling and when learning. 0, where nothing is learnt, takes the likeliest token."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Samples from the likeliest tokens that together have this probability; 1 for all."""

    top_k: Annotated[int, Field(ge=0)] = 0
    """Samples from so many of the likeliest tokens; 0 for all."""

    min_p: Share = 0.0
    """Samples from tokens that are at least so likely as a share of the likeliest's probability; 0 for all."""

    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings after which a reply ends; they stay part of it."""

    max_episode_tokens: Positive | None = None
    """Tokens of all replies of an episode together, at most. None: no bound but the context's."""

    @property
    def full_support(self) -> bool:
        """Whether every token of the vocabulary can be sampled."""
        return self.top_p == 1 and self.top_k == 0 and self.min_p == 0


class Engine(Config):
    """The inference engine."""

    kind: EngineKind = Field(default="auto", alias="engine")
    """What samples: the embedded engine (`local`) or SGLang. `auto`: SGLang where it and a CUDA GPU are there."""

    dtype: Dtype | None = Field(default=None, alias="engine_dtype")
    """What replies are sampled in. None: as the weights are. In another type the engine holds a copy of them."""

    kv_cache_gib: Annotated[float, Field(gt=0)] = 4.0
    """Bound of the embedded engine's KV cache."""

    urls: tuple[str, ...] = Field(default=(), alias="engine_url")
    """SGLang servers that run already; their key is in the environment variable LLMGYM_ENGINE_KEY."""

    servers: Annotated[int, Field(ge=0)] = Field(default=0, alias="engine_servers")
    """SGLang servers to start, each on GPUs of its own. 0: one SGLang in this process."""

    arguments: Kwargs = Field(default_factory=dict, alias="engine_kwargs")
    """Arguments of SGLang, such as `mem_fraction_static=0.6 tp_size=2`."""

    weights_dir: Path | None = Field(default=None, alias="engine_weights_dir")
    """Where weights are written for SGLang servers to read; those on other machines have to see it too."""

    transfer: WeightTransfer = Field(default="directory", alias="engine_transfer")
    """How weights reach SGLang servers: in that directory, or over a process `group`, NCCL between GPUs."""

    check: Annotated[float, Field(gt=0)] | None = Field(default=None, alias="engine_check")
    """Stop if the engine's log-probabilities differ from the learner's by more nats per token, on average."""


class Evaluation(Config):
    """What is shown of how it does."""

    episodes: Annotated[int, Field(ge=0)] | None = Field(default=None, alias="eval_episodes")
    """Held-out episodes before and after training; 0 for none. None: 500, and none where `data` is learnt from."""

    sample_every: Annotated[int, Field(ge=0)] = 20
    """Print one whole conversation every so many steps; 0 for never."""


class Rollout(Config):
    """The episodes of a step."""

    scorer: str | None = None
    """What scores in the environment's place: a registered scorer, `package.module:name`, or `reward_model:PATH`."""

    prompts_per_step: Positive = 16
    """Tasks drawn per step."""

    group_size: Positive = 8
    """Episodes per task: at least two, unless the algorithm compares an episode with something else."""

    rollouts_per_step: Positive = 1
    """Rollouts per step, at most, to replace groups that nothing is learnt from (dynamic sampling); 1 keeps all."""


class Updates(Config):
    """The optimiser steps of a step."""

    epochs: Positive = 1
    """Times that a training step goes over its batch."""

    updates_per_step: Positive = 2
    """Optimiser steps per epoch: the batch is split into so many, by tasks."""

    reference_every: Annotated[int, Field(ge=0)] = 0
    """Training steps after which the reference policy becomes the current one; 0 keeps the one of the start."""

    measure_kl: Literal["auto", "always", "never"] = "auto"
    """Whether each step's divergence from the reference is reported, which needs a frozen copy of what is trained.
    `auto`: where the loss reads one anyway, or it is small: that of adapters, or of the bundled model."""


class Objective(Config):
    """The loss of algorithms that weigh each sampled token's likelihood by an advantage."""

    aggregation: Aggregation = "token-mean"
    """What counts the same in the loss: every sampled token, or every episode; see `llmgym.learn.aggregation`."""

    loss_scale_factor: Annotated[float, Field(gt=0)] | None = None
    """What `seq-mean-token-sum-norm` divides by. None: `max_episode_tokens` or, if there is none, `max_tokens`."""

    kl_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence to the reference policy; 0 for none."""

    kl_estimator: KLEstimator = "k3"
    """How it is estimated in the loss; see `llmgym.learn.kl` for what each has for a gradient."""


class Mismatch(Config):
    """What to do where the policy that samples and the one that learns differ."""

    correction: Correction = Field(default="none", alias="mismatch_correction")
    """Nothing, weigh the loss by their ratio truncated at `mismatch_threshold`, or the same with those left out that
    are beyond it."""

    level: Level = Field(default="token", alias="mismatch_level")
    """Whether each token has a ratio of its own, or the tokens of an episode one together."""

    threshold: Annotated[float, Field(gt=1)] = Field(default=2.0, alias="mismatch_threshold")
    """Largest ratio; with `mask`, one over it is the smallest."""


class Data(Config):
    """What is learnt from."""

    path: Path | None = Field(default=None, alias="data")
    """A file to learn from, Parquet or JSON lines (`.jsonl`). None: examples are made from the environment, by its
    expert."""

    skip_bad_rows: bool = False
    """Leave out rows of `data` that cannot be read, do not fit the context, or that the chat template refuses."""

    examples: Positive = 1000
    """How many examples are made from the environment where there is no `data`."""

    batch_size: Positive = 32
    """Examples per training step, which is one optimiser step."""


class LearningConfig(Config):
    """What everything that learns has."""

    bundled_learning_rate: ClassVar[float] = 5e-4
    """The learning rate for the bundled model unless one is given."""

    usual_learning_rate: ClassVar[float] = 1e-6
    """The same for any other model."""

    run: Run = Run()
    environment: Environment = Environment()
    model: Model = Model()
    learner: Learner = Learner()

    @property
    def learning_rate(self) -> float:
        """The learning rate that is asked for, or left to the algorithm."""
        if self.learner.learning_rate is not None:
            return self.learner.learning_rate
        if self.model.bundled:
            return self.bundled_learning_rate
        return self.usual_learning_rate * (
            10 if self.model.lora_rank else 1
        )  # Schulman et al. 2025, LoRA Without Regret


class AgentConfig(LearningConfig):
    """What everything that trains a policy has."""

    policy: Policy = Policy()
    conversation: Conversation = Conversation()
    sampling: Sampling = Sampling()
    engine: Engine = Engine()
    evaluation: Evaluation = Evaluation()

    @field_validator("sampling")
    @classmethod
    def _samples_what_can_be_learnt(cls, sampling: Sampling) -> Sampling:
        if sampling.temperature == 0:
            raise ValueError("temperature: 0 takes the likeliest token, which nothing is learnt from; expected more")
        return sampling

    @property
    def held_out_episodes(self) -> int:
        """What `eval_episodes` comes to."""
        return _EVAL_EPISODES if self.evaluation.episodes is None else self.evaluation.episodes


class OnlineConfig(AgentConfig):
    """What everything that learns from its own episodes has."""

    least_group: ClassVar[int] = 2
    """Episodes that a group has to have: one alone has nothing to be compared with."""

    rollout: Rollout = Rollout()
    updates: Updates = Updates()

    @field_validator("rollout")
    @classmethod
    def _has_siblings(cls, rollout: Rollout) -> Rollout:
        if rollout.group_size < cls.least_group:
            raise ValueError(f"group_size: expected at least {cls.least_group}, got {rollout.group_size}")
        return rollout


class PolicyGradientConfig(OnlineConfig):
    """What everything has that weighs each sampled token's likelihood by an advantage."""

    objective: Objective = Objective()
    mismatch: Mismatch = Mismatch()

    @model_validator(mode="after")
    def _corrected_where_supports_differ(self) -> Self:
        if self.mismatch.correction == "none" and not self.sampling.full_support:
            raise ValueError(
                "mismatch_correction: with top_p below 1, top_k above 0 or min_p above 0 tokens are sampled from "
                "another distribution than the one that learns, which also has the tokens that were cut off; expected "
                "'truncate' or 'mask', or top_p 1, top_k 0 and min_p 0"
            )
        return self

    @property
    def loss_options(self) -> dict[str, Any]:
        """Keyword arguments for token-level losses."""
        objective, sampling = self.objective, self.sampling
        return {
            "kl_coef": objective.kl_coef,
            "kl_estimator": objective.kl_estimator,
            "aggregation": objective.aggregation,
            "loss_scale_factor": objective.loss_scale_factor or sampling.max_episode_tokens or sampling.max_tokens,
            "old_log_probs": "log_probs" if self.mismatch.correction == "none" else "old_log_probs",
        }


class RewardConfig(LearningConfig):
    """What everything that trains a reward model on preferences has."""

    data: Data = Data()

    held_out: Annotated[int, Field(ge=0)] = 200
    """Preferences that it is judged on before and after, and does not learn from; 0 for none."""


class OfflineConfig(AgentConfig):
    """What everything that learns from data has."""

    data: Data = Data()

    @property
    def held_out_episodes(self) -> int:
        """What `eval_episodes` comes to: data need have nothing to do with an environment."""
        return 0 if self.data.path is not None and self.evaluation.episodes is None else super().held_out_episodes
