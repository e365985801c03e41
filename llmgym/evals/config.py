"""`EvalConfig`: what ``llmgym eval`` is asked."""

from __future__ import annotations  # torch is not imported here: `--help` is instant

from pathlib import Path
from typing import Literal

from pydantic import Field

from llmgym.config.base import Config
from llmgym.config.sections import Conversation, Dtype, Engine, Environment, Positive, Sampling


class Asked(Config):
    """What is evaluated, and on how many tasks."""

    models: tuple[str, ...] = Field(default=("tiny",), alias="model")
    """Models, one after another: `tiny`, a directory, a name on the Hugging Face hub, or the directory of a run, whose
    newest checkpoint is meant, or that of step 40 where `@40` follows."""

    tasks: Positive = 500
    """Tasks of the split, at most; the same ones whatever the model. Also -n."""

    samples: Positive = 1
    """Episodes per task."""

    split: str = "eval"
    """Split of the tasks, where the environment has splits."""

    seed: int = Field(default=0, ge=0)
    """Of sampling."""

    scorer: str | None = None
    """Scores episodes in place of the environment."""

    data: Path | None = None
    """Rows of tasks, for an environment that takes rows."""

    dtype: Dtype = "float32"
    """Number type of the weights."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the embedded engine."""

    output_dir: Path = Path("evals")
    """Directory in which episodes are kept; an evaluation that was interrupted goes on from there."""


class EvalConfig(Config):
    """Evaluate models on tasks that they were not trained on. --json prints the result alone."""

    asked: Asked = Asked()
    environment: Environment = Environment()
    conversation: Conversation = Conversation()
    sampling: Sampling = Sampling()
    engine: Engine = Engine()
