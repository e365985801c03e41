"""The sections that configurations share; each goes as a whole to what it configures."""

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from llmgym.addresses import fault_of_url
from llmgym.config.base import Config
from llmgym.config.choices import (
    Aggregation,
    Correction,
    Decay,
    EngineKind,
    History,
    KLEstimator,
    Level,
    MetricNames,
    TrackerKind,
    WeightTransfer,
)
from llmgym.config.command_line import Kwargs
from llmgym.errors import ConfigError

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16"]

_EVAL_EPISODES = 500
_TIME = re.compile(r"\d{1,3}:[0-5]\d:[0-5]\d")
_A_WEEK = 7 * 86_400.0  # in seconds


class Run(Config):
    """The run as a whole."""

    steps: Positive = 40
    """Training steps."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of tasks and sampling. The same seed on the same machine repeats the run."""

    eval_every: Annotated[int, Field(ge=0)] = 0
    """Training steps between two held-out evaluations, always of the same tasks. 0: only before and after training."""

    output_dir: Path = Path("runs")
    """Directory in which each run makes a directory of its own."""


class Saving(Config):
    """Checkpoints, and what a run goes on from."""

    save_every: Annotated[int, Field(ge=0)] = 50
    """Training steps between two checkpoints. 0: only when the run ends or is interrupted."""

    keep: Positive = 1
    """Number of checkpoints to keep; older ones are deleted."""

    keep_best: str | None = None
    """Metric of the held-out evaluations: `success`, `reward` or a part of the score. The checkpoint with the highest
    value since training began is kept too, whatever its age."""

    resume: bool = False
    """Go on from the newest checkpoint of the newest run in `output_dir` that had the same options; begin a new run if
    there is none. `steps` counts from the beginning of that run."""

    resume_from: str | None = None
    """Run directory, `DIRECTORY@STEP`, or checkpoint, from which a new run goes on, with any other options. `steps`
    counts from the beginning of the earlier run. With `resume` too, a run that has begun so goes on itself."""

    grace: Annotated[float, Field(ge=0, le=_A_WEEK)] = 20.0
    """Seconds that the step under way may take when a run is asked to end by Ctrl-C, SIGTERM or SIGHUP. After them its
    episodes are abandoned. An update of the weights is never abandoned."""

    rescue_dir: Path | None = None
    """Directory for a checkpoint that cannot be written to `output_dir`. None: the directory for temporary files."""


class Budget(Config):
    """What a run may take."""

    max_time: str | None = None
    """Hours, minutes and seconds of training, as HH:MM:SS, after which the run saves and ends with exit code 75, for
    queues with a time limit. The time to start, such as that of loading a model, is not among them."""

    max_memory: Annotated[float, Field(gt=0)] | None = None
    """GiB of memory that this process may take. A run that has taken more saves and ends with exit code 75. The
    processes of environments, scorers, engines and rollout workers are not counted."""

    max_disk: Annotated[float, Field(gt=0)] | None = None
    """GiB that the run directory may take. Where episodes do not fit, those of every second step are deleted, then
    those of every second step that is left, and so on."""

    @field_validator("max_time", mode="before")
    @classmethod
    def _is_a_time(cls, max_time: object) -> object:
        if max_time is not None and not (isinstance(max_time, str) and _TIME.fullmatch(max_time)):
            raise ValueError('expected hours, minutes and seconds such as "11:50:00"')
        return max_time

    @property
    def seconds(self) -> float | None:
        """`max_time` in seconds."""
        if self.max_time is None:
            return None
        hours, minutes, seconds = map(int, self.max_time.split(":"))
        return 3600.0 * hours + 60 * minutes + seconds


class Environment(Config):
    """The task to learn."""

    env: str | None = None
    """Environment: a registered id, with or without its version, or `package.module:Id`. None: the environment that
    the model was made for, if the model ships with llmgym and one is needed."""

    env_kwargs: Kwargs = Field(default_factory=dict)
    """Arguments of the environment, such as `difficulty=2 language=zh`."""

    eval_env_kwargs: Kwargs = Field(default_factory=dict)
    """Arguments of the environment in held-out episodes, besides `env_kwargs`: `opponent=optimal` judges what games
    against oneself have taught."""

    frozen_model: str | None = None
    """Model that plays the frozen seats of an environment: another checkpoint of the trained model, a directory or a
    name on the Hugging Face hub. None: the trained model as it is at the start."""

    max_failure_rate: Share = 0.2
    """Largest share of episodes that may have no score because their environment raises an exception or takes too long,
    or because nobody could score them; a larger share ends the run."""

    env_retries: Annotated[int, Field(ge=0)] = 1
    """How often an episode may be played again, from the start and by a new environment, because its reset failed or
    its environment raised `InfrastructureError`. What fails after a reply for another reason is never tried again: the
    reply may be why."""

    isolate_env: bool = False
    """Whether each environment is a process of its own, so that one that hangs or crashes costs only its episode. What
    they print goes to `environments.log` in `output_dir`."""

    env_timeout: Annotated[float, Field(gt=0, le=_A_WEEK)] = 60.0
    """Seconds that a reset or a step of an isolated environment may take, unless it has a `step_timeout` of its own."""

    @model_validator(mode="after")
    def _bounds_what_can_be_ended(self) -> Self:
        if self.env_timeout != Environment.model_fields["env_timeout"].default and not self.isolate_env:
            raise ValueError("env_timeout: is about isolated environments; expected isolate_env too")
        return self

    @field_validator("env", mode="before")
    @classmethod
    def _by_its_id(cls, env: object) -> object:
        if not isinstance(env, str | None):
            raise ValueError(
                "expected the id of a registered environment: decorate its class with "
                "@llmgym.register_env('MyEnv-v0') and give 'MyEnv-v0'"
            )
        return env

    @property
    def required(self) -> str:
        """The environment that is given.

        Raises:
            ConfigError: No environment is given.
        """
        if self.env is None:
            raise ConfigError("env: expected an environment, such as AIOpsTriage or my_module:MyEnv-v0, got none.")
        return self.env


class Model(Config):
    """The model to train."""

    name: str = Field(default="tiny", alias="model")
    """Causal LM with a chat template: `tiny` (the bundled model), `tiny-tools` (its sibling that calls tools), a
    local directory, or a name on the Hugging Face hub."""

    dtype: Dtype = "float32"
    """Data type of the weights. bfloat16 is refused if the hardware cannot multiply it. The optimiser steps a float32
    copy of bfloat16 weights."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device on which the model learns and the embedded engine samples. `auto`: a CUDA GPU if there is one."""

    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Rank of the LoRA adapters that are trained instead of the model's own weights; 0 trains the weights."""

    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale of the LoRA adapters: their output is multiplied by `lora_alpha` / `lora_rank`."""

    date: datetime | None = None
    """Date that chat templates are given if they ask for it, such as 2026-11-28. None: the time when the run starts."""

    @field_validator("name", mode="before")
    @classmethod
    def _directory_as_text(cls, name: object) -> object:
        return str(name) if isinstance(name, Path) else name


class Learner(Config):
    """The optimiser, AdamW."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of AdamW after warm-up. None: the algorithm's default, ten times as high for adapters, or the rate
    that suits a model that ships with llmgym."""

    warmup_steps: Annotated[int, Field(ge=0)] = 3
    """Optimiser steps over which the learning rate rises linearly."""

    learning_rate_decay: Decay | None = None
    """How the learning rate falls from the first training step to the last: `linear` or `cosine`, both to 0. None: it
    does not, unless that suits a model that ships with llmgym. What falls depends on `steps`."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of AdamW."""

    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of a gradient; larger gradients are scaled down to it."""

    micro_batch_tokens: Positive | None = None
    """Tokens per forward pass of the learner, at most. None: 2048 on a processor, 16384 on a GPU."""

    sharded: bool = False
    """Let each of several ranks keep a part of parameters, gradients and optimiser (FSDP2), for a model that cannot be
    trained on one device. `torchrun` starts ranks; with one of them this changes nothing."""


class Policy(Config):
    """The language model that acts."""

    gradient_checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations: less memory, more time."""

    lora_merge: bool = False
    """Merge LoRA adapters into the weights when saving a checkpoint, instead of saving the adapters alone."""


class Conversation(Config):
    """How conversations become tokens."""

    history: History = "append"
    """How the model sees earlier turns. `append`: as they were said, token by token. `template`: as the chat template
    renders them now."""

    context_length: Positive = 4096
    """Tokens per conversation, at most; never more than the model supports."""

    max_overlong: Share = 0.25
    """Largest share of tasks that may be too long for the context. Such tasks are left out; a larger share ends the
    run."""


class Sampling(Config):
    """How replies are sampled."""

    max_tokens: Positive = 128
    """Tokens per reply, at most."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Sampling temperature. Logits are divided by it, in the learner too. 0 always takes the likeliest token, and
    nothing can be learnt from that."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: sample from the likeliest tokens that together have this probability; 1 samples from all
    tokens."""

    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample from this many of the likeliest tokens; 0 samples from all tokens."""

    min_p: Share = 0.0
    """Sample from tokens whose probability is at least this share of the likeliest token's; 0 samples from all
    tokens."""

    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a reply; the reply keeps them."""

    max_episode_tokens: Positive | None = None
    """Sampled tokens per episode, at most. None: only the context bounds them."""

    @property
    def full_support(self) -> bool:
        """Whether every token of the vocabulary can be sampled."""
        return self.top_p == 1 and self.top_k == 0 and self.min_p == 0


class Engine(Config):
    """The inference engine."""

    kind: EngineKind = Field(default="auto", alias="engine")
    """Inference engine: `local` (the embedded one) or `sglang`. `auto`: SGLang if it is installed and there is a
    CUDA GPU."""

    dtype: Dtype | None = Field(default=None, alias="engine_dtype")
    """Data type in which the engine samples. None: that of the weights. For another type the engine keeps a copy of
    the weights."""

    kv_cache_gib: Annotated[float, Field(gt=0)] = 4.0
    """Size of the embedded engine's KV cache in GiB, at most."""

    urls: tuple[str, ...] = Field(default=(), alias="engine_url")
    """URLs of SGLang servers that are already running. Their key is read from the environment variable
    LLMGYM_ENGINE_KEY."""

    servers: Annotated[int, Field(ge=0)] = Field(default=0, alias="engine_servers")
    """Number of SGLang servers to start, each on its own GPUs. 0: SGLang runs in this process."""

    arguments: Kwargs = Field(default_factory=dict, alias="engine_kwargs")
    """Arguments of SGLang, such as `mem_fraction_static=0.6 tp_size=2`."""

    start_timeout: Annotated[float, Field(gt=0)] = Field(default=1800.0, alias="engine_start_timeout")
    """Seconds that an SGLang may take to start, with the loading of its model."""

    answer_timeout: Annotated[float, Field(gt=0)] = Field(default=1800.0, alias="engine_answer_timeout")
    """Seconds that an SGLang server may take for a reply, or to read new weights."""

    restarts: Annotated[int, Field(ge=0)] = Field(default=10, alias="engine_restarts")
    """How often SGLangs that were lost are started again in a run; after that, the last one that is lost ends it. Each
    rollout worker counts its own."""

    weights_dir: Path | None = Field(default=None, alias="engine_weights_dir")
    """Directory through which SGLang servers receive weights. Servers on other machines must see it too."""

    transfer: WeightTransfer = Field(default="directory", alias="engine_transfer")
    """How SGLang servers receive weights. `directory`: as files. `group`: over a process group, which is NCCL between
    GPUs."""

    canary_every: Annotated[int, Field(ge=0)] = 1
    """Training steps between two probes of 64 tokens, which check after a hand-over of weights that engine and learner
    have the same ones. A difference ends the run. 0: no probe."""

    check: Annotated[float, Field(gt=0)] | None = Field(default=None, alias="engine_check")
    """Largest mean difference between the log-probabilities of engine and learner, in nats per token; a larger one
    ends the run. None: no check."""

    @model_validator(mode="after")
    def _has_addresses(self) -> Self:
        for url in self.urls:
            if fault := fault_of_url(url):
                raise ValueError(f"engine_url: {fault}")
        return self


class Evaluation(Config):
    """How progress is measured and shown."""

    episodes: Annotated[int, Field(ge=0)] | None = Field(default=None, alias="eval_episodes")
    """Held-out episodes to play in an evaluation; 0 plays none. None: 500, or each row of `eval_data` once if
    it has fewer. If `data` is given and nothing is held out, none."""

    data: Path | None = Field(default=None, alias="eval_data")
    """File of rows that are held out, for an environment that takes rows, such as qa. Rows of `data` with the same
    prompt are left out of training."""

    sample_every: Annotated[int, Field(ge=0)] = 20
    """Training steps between two conversations that are printed; 0 prints none."""


class Tasks(Config):
    """The rows of a data set, as tasks of an environment that takes rows, such as qa."""

    path: Path | None = Field(default=None, alias="data")
    """File of rows: Parquet, JSON lines (`.jsonl`) or CSV, with a column `prompt`. Every row is played once per epoch,
    in an order that `seed` chooses."""

    eval_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the prompts of `data` that are held out for evaluation, if there is no `eval_data`; `seed` chooses
    them."""

    skip_bad_rows: bool = False
    """Leave out rows that are not a task, such as those without a prompt."""


class Rollout(Config):
    """The episodes of a training step."""

    scorer: str | None = None
    """Scorer that replaces the environment's own: a registered name, `package.module:name`, `reward_model:` with a
    directory or a URL, or a weighted sum of these such as `0.7*exact + 0.3*my_module:brief`. `env` is the
    environment's own score, `env:PART` a part of it."""

    scorer_workers: Annotated[int, Field(ge=0)] = 0
    """Processes in which scorers of your own are asked, so that one that hangs or crashes costs only the score of its
    episode. What they print goes to `scorers.log` in `output_dir`. 0: they are asked in this process."""

    scorer_timeout: Annotated[float, Field(gt=0, le=_A_WEEK)] = 30.0
    """Seconds that a call of a scorer in such a process may take."""

    @model_validator(mode="after")
    def _bounds_what_can_be_ended(self) -> Self:
        if self.scorer_timeout != Rollout.model_fields["scorer_timeout"].default and not self.scorer_workers:
            raise ValueError("scorer_timeout: is about scorers in other processes; expected scorer_workers too")
        return self

    rollouts_from: Path | None = None
    """Directory of a run whose stored episodes are learnt from, step by step, with the scores that they have; nothing
    is played, and no engine is started."""

    rollouts_only: bool = False
    """Whether episodes are only played and stored, and nothing is learnt from them."""

    prompts_per_step: Positive = 16
    """Tasks per training step."""

    group_size: Positive = 8
    """Episodes per task; at least two if an episode is compared with its siblings."""

    groups_at_once: Positive | None = None
    """Groups that are played side by side, the others after them. None: all, or with `rollout_workers` an equal part
    for each worker. It changes no token, but log-probabilities in their last digits, since rounding depends on what is
    computed side by side. A scorer that is asked once per rollout is asked once per part."""

    rollouts_per_step: Positive = 1
    """Rollouts per training step, at most. If more than one, groups that teach nothing are replaced (dynamic
    sampling)."""


class Cluster(Config):
    """Where episodes are played besides the process that learns."""

    rollout_workers: Annotated[int, Field(ge=0)] = 0
    """Processes on Ray that play the episodes, each with an engine, environments and scorers. 0: the process that
    learns plays them."""

    worker_cpus: Positive = 1
    """Processor cores, and threads, of a rollout worker."""

    worker_gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of a rollout worker."""

    worker_restarts: Annotated[int, Field(ge=0)] = 10
    """How many rollout workers that were lost are replaced in a run. Once there are more, the run ends; what a lost
    worker had not finished is played again elsewhere."""

    max_staleness: Annotated[int, Field(ge=0)] = 0
    """Training steps by which the weights that sample may be older than those that learn. 1: the episodes of a step are
    played while the step before it learns. More: those of several steps are, which takes `weights_in_flight`."""

    weights_in_flight: bool = False
    """Give workers new weights at once, in the middle of episodes, whose tokens may then be of several versions.
    Otherwise workers take them before they play something new."""

    ray_address: str | None = None
    """Address of a Ray cluster that runs: `auto` on one of its machines, or `head:6379`. None: a local Ray, which only
    this machine can reach and which ends with the run."""

    @model_validator(mode="after")
    def _is_about_workers(self) -> Self:
        default = Cluster.model_fields
        for name in (
            "worker_cpus",
            "worker_gpus",
            "worker_restarts",
            "max_staleness",
            "weights_in_flight",
            "ray_address",
        ):
            if getattr(self, name) != default[name].default and not self.rollout_workers:
                raise ValueError(f"{name}: is about rollout workers; expected rollout_workers above 0 too")
        if self.ray_address is not None and "://" in self.ray_address:
            raise ValueError(
                f"ray_address: a run has to be on a machine of the cluster, and not a client of it; expected auto or "
                f"HOST:PORT, such as head:6379, got {self.ray_address!r}"
            )
        if self.weights_in_flight and not self.max_staleness:
            raise ValueError("weights_in_flight: nothing is played while a step learns; expected max_staleness above 0")
        if self.max_staleness > 1 and not self.weights_in_flight:
            raise ValueError("max_staleness: more than 1 takes weights in flight; expected weights_in_flight too")
        return self


class Updates(Config):
    """The optimiser steps of a training step."""

    epochs: Positive = 1
    """Passes over the batch of a training step."""

    updates_per_step: Positive = 2
    """Optimiser steps per epoch. The tasks of the batch are split among them."""

    reference_every: Annotated[int, Field(ge=0)] = 0
    """Training steps between two refreshes of the reference policy; 0 keeps the initial one."""

    measure_kl: Literal["auto", "always", "never"] = "auto"
    """Whether to report the divergence from the reference policy in each step, which takes a frozen copy of the trained
    weights. `auto`: only if the loss reads that copy anyway, or if it is small, as it is for adapters."""


class Objective(Config):
    """The policy-gradient loss."""

    aggregation: Aggregation = "token-mean"
    """How the loss averages over tokens and episodes; see `llmgym.learn.aggregation`."""

    loss_scale_factor: Annotated[float, Field(gt=0)] | None = None
    """Divisor of `seq-mean-token-sum-norm`. None: `max_episode_tokens`, or `max_tokens` if that is None."""

    kl_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence from the reference policy; 0 for none."""

    kl_estimator: KLEstimator = "k3"
    """Estimator of the KL divergence in the loss; `llmgym.learn.kl` compares their gradients."""


class Mismatch(Config):
    """The difference between the policy that samples and the policy that learns."""

    correction: Correction = Field(default="none", alias="mismatch_correction")
    """Correction for the difference between the sampling and the learning policy. `truncate`: weigh the loss by their
    ratio, at most `mismatch_threshold`. `mask`: do the same, but leave out what is beyond the threshold."""

    level: Level = Field(default="token", alias="mismatch_level")
    """Whether importance ratios are per token, or per episode (`sequence`)."""

    threshold: Annotated[float, Field(gt=1)] = Field(default=2.0, alias="mismatch_threshold")
    """Largest importance ratio; with `mask`, its inverse is the smallest."""


class Data(Config):
    """The examples to learn from."""

    path: Path | None = Field(default=None, alias="data")
    """File to learn from, Parquet or JSON lines (`.jsonl`). None: the environment's expert plays the examples."""

    skip_bad_rows: bool = False
    """Leave out rows of `data` that cannot be read, that do not fit the context, or that the chat template refuses."""

    examples: Positive = 1000
    """Examples to generate from the environment if there is no `data`."""

    batch_size: Positive = 32
    """Examples per training step, which is one optimiser step."""


class Tracking(Config):
    """Where the metrics of a run are shown besides its own directory."""

    kinds: tuple[TrackerKind, ...] = Field(default=(), alias="tracker")
    """Trackers: `tensorboard`, `trackio`, `wandb`, `mlflow`, or several of them. None of them needs a network; wandb
    writes files in the run directory unless `WANDB_MODE` says otherwise."""

    project: str | None = Field(default=None, alias="tracker_project")
    """Project that a tracker puts the run into. None: `llmgym`."""

    name: str | None = Field(default=None, alias="tracker_name")
    """Name of the run in trackers. None: that of its directory."""

    metric_names: MetricNames = "llmgym"
    """Whose names metrics have in trackers, where they mean the same: `trl`, `verl` or our own. docs/metrics.md lists
    them."""

    @model_validator(mode="after")
    def _is_about_trackers(self) -> Self:
        for option, given in (("tracker_project", self.project), ("tracker_name", self.name)):
            if given is not None and not self.kinds:
                raise ValueError(f"{option}: no tracker is told; expected tracker too")
        if self.metric_names != "llmgym" and not self.kinds:
            raise ValueError("metric_names: needs a tracker, since files keep our own names; expected tracker too")
        if len({*self.kinds}) < len(self.kinds):
            raise ValueError("tracker: expected each one once")
        return self


class LearningConfig(Config):
    """The sections that all algorithms have."""

    usual_learning_rate: ClassVar[float] = 1e-6
    """The learning rate unless one is given, or the model has a preset."""

    run: Run = Run()
    environment: Environment = Environment()
    model: Model = Model()
    learner: Learner = Learner()
    saving: Saving = Saving()
    budget: Budget = Budget()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _finds_the_best_on_the_way(self) -> Self:
        if self.saving.keep_best is not None and not self.run.eval_every:
            raise ValueError("keep_best: compares evaluations during training; expected eval_every above 0 too")
        return self

    @property
    def needs_env(self) -> bool:
        """Whether an environment takes part in training or in evaluation."""
        return True

    @property
    def learning_rate(self) -> float:
        """The learning rate: the given one, or else the algorithm's default."""
        if self.learner.learning_rate is not None:
            return self.learner.learning_rate
        return self.usual_learning_rate * (
            10 if self.model.lora_rank else 1
        )  # Schulman et al. 2025, LoRA Without Regret


class AgentConfig(LearningConfig):
    """The sections of algorithms that train a policy."""

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

    @model_validator(mode="after")
    def _plays_rows_that_are_held_out(self) -> Self:
        if self.evaluation.data is not None and self.evaluation.episodes == 0:
            raise ValueError("eval_data: its rows are played to evaluate; expected eval_episodes above 0 or left out")
        return self

    @property
    def held_out_episodes(self) -> int:
        """The number of held-out episodes, its default filled in."""
        return _EVAL_EPISODES if self.evaluation.episodes is None else self.evaluation.episodes


class OnlineConfig(AgentConfig):
    """The sections of algorithms that learn from their own episodes."""

    least_group: ClassVar[int] = 2
    """Fewest episodes per group: a single one has nothing to be compared with."""

    tasks: Tasks = Tasks()
    rollout: Rollout = Rollout()
    cluster: Cluster = Cluster()
    updates: Updates = Updates()

    @model_validator(mode="after")
    def _holds_rows_out_in_one_way(self) -> Self:
        if self.tasks.path is None:
            for name, given in (("eval_share", self.tasks.eval_share), ("skip_bad_rows", self.tasks.skip_bad_rows)):
                if given:
                    raise ValueError(f"{name}: is about the rows of data, and none is given; expected data too")
        if self.tasks.path is None and self.evaluation.data is not None:
            raise ValueError("eval_data: expected data too, the rows to train on")
        if self.tasks.eval_share and self.evaluation.data is not None:
            raise ValueError("eval_share: expected none beside eval_data, which holds rows out already")
        if self.evaluation.episodes and not self.holds_out:
            raise ValueError(
                "eval_episodes: data is given and none of its rows is held out; expected eval_data, or eval_share "
                "above 0"
            )
        return self

    @model_validator(mode="after")
    def _plays_ahead_what_is_known(self) -> Self:
        if self.cluster.max_staleness and self.rollout.rollouts_per_step > 1:
            raise ValueError(
                "max_staleness: which groups replace others is known only after they are played; expected "
                "rollouts_per_step 1"
            )
        if self.cluster.max_staleness and self.engine.check is not None:
            raise ValueError(
                "engine_check: compares the engine with weights that are newer than its own; expected max_staleness 0"
            )
        return self

    @property
    def holds_out(self) -> bool:
        """Whether there are tasks that training never sees: any seeds, or rows that are held out."""
        return self.tasks.path is None or self.evaluation.data is not None or self.tasks.eval_share > 0

    @property
    def held_out_episodes(self) -> int:
        """The number of held-out episodes; by default none where no row is held out."""
        return super().held_out_episodes if self.holds_out and self.rollout.rollouts_from is None else 0

    @model_validator(mode="after")
    def _plays_or_does_not(self) -> Self:
        if self.rollout.rollouts_from is not None:
            for name, given in (
                ("rollouts_only", self.rollout.rollouts_only),
                ("scorer", self.rollout.scorer),
                ("rollouts_per_step", self.rollout.rollouts_per_step > 1),
                ("rollout_workers", self.cluster.rollout_workers),
                ("eval_episodes", self.evaluation.episodes),
            ):
                if given:
                    raise ValueError(f"{name}: nothing is played or scored where rollouts_from is given; leave it out")
        return self

    @field_validator("rollout")
    @classmethod
    def _has_siblings(cls, rollout: Rollout) -> Rollout:
        if rollout.group_size < cls.least_group:
            raise ValueError(f"group_size: expected at least {cls.least_group}, got {rollout.group_size}")
        return rollout


class PolicyGradientConfig(OnlineConfig):
    """The sections of algorithms that weigh each sampled token's likelihood by an advantage."""

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
    """The sections of algorithms that train a reward model on preferences."""

    data: Data = Data()

    held_out: Annotated[int, Field(ge=0)] = 200
    """Preferences kept out of training, to evaluate the reward model on before and after it; 0 for none."""

    @property
    def needs_env(self) -> bool:
        """Whether an environment takes part: its expert plays the examples where no data is given."""
        return self.data.path is None


class OfflineConfig(AgentConfig):
    """The sections of algorithms that learn from data."""

    data: Data = Data()

    @property
    def held_out_episodes(self) -> int:
        """The number of held-out episodes: by default none with `data`, which may belong to no environment."""
        asked = self.evaluation.episodes is not None or self.evaluation.data is not None
        return super().held_out_episodes if asked or self.data.path is None else 0

    @property
    def needs_env(self) -> bool:
        """Whether an environment takes part: its expert plays the examples, or the policy plays to be evaluated."""
        return self.data.path is None or self.held_out_episodes > 0
