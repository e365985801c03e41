"""`EvalConfig`: what ``llmgym eval`` is asked."""

from __future__ import annotations  # torch is not imported here: `--help` is instant

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from llmgym.addresses import fault_of_url
from llmgym.config.base import Config
from llmgym.config.command_line import Kwargs
from llmgym.config.sections import Conversation, Dtype, Engine, Environment, Positive, Sampling


class Asked(Config):
    """What is evaluated, and on how many tasks."""

    models: tuple[str, ...] = Field(default=(), alias="model")
    """Models, one after another: `tiny`, a directory, a name on the Hugging Face hub, or the directory of a run, whose
    newest checkpoint is meant, or where `@40` follows, that after step 40. With `endpoint`: what it calls them. None:
    `tiny`."""

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


class Endpoint(Config):
    """A server of chat completions, in place of an engine."""

    url: str | None = Field(default=None, alias="endpoint")
    """Where an OpenAI-compatible API is, such as http://127.0.0.1:30000/v1; its key is read from the
    environment variable LLMGYM_ENDPOINT_KEY, or else OPENAI_API_KEY."""

    concurrency: Positive = 16
    """Requests to the endpoint that are under way, at most."""

    timeout: Annotated[float, Field(gt=0, le=86_400)] = Field(default=300.0, alias="endpoint_timeout")
    """Seconds that a request may take."""

    retries: Annotated[int, Field(ge=0)] = Field(default=8, alias="endpoint_retries")
    """How often a request is tried again if the endpoint cannot be reached, is late, has too much to do, or fails."""

    kwargs: Kwargs = Field(default_factory=dict, alias="endpoint_kwargs")
    """More fields of each request, such as `reasoning_effort=low`, or `seed=null` to leave one out."""

    price_read: Annotated[float, Field(ge=0)] | None = None
    """What a million tokens cost that the endpoint reads, in any currency."""

    price_written: Annotated[float, Field(ge=0)] | None = None
    """What a million tokens cost that the endpoint writes."""

    @model_validator(mode="after")
    def _is_about_an_endpoint(self) -> Self:
        fields = Endpoint.model_fields.items()
        given = [
            one.alias or name
            for name, one in fields
            if getattr(self, name) != one.get_default(call_default_factory=True)
        ]
        if self.url is None and given:
            raise ValueError(f"{given[0]}: is about an endpoint; expected endpoint too")
        if self.url is not None and (fault := fault_of_url(self.url)):
            raise ValueError(f"endpoint: {fault}")
        if own := sorted({"messages", "model", "n", "stream", "tools"} & self.kwargs.keys()):
            raise ValueError(f"endpoint_kwargs: expected other fields than {own[0]}, which llmgym fills in")
        try:
            json.dumps(self.kwargs, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"endpoint_kwargs: expected what JSON has ({error})") from None
        return self

    def cost(self, read: int | None, written: int | None) -> float | None:
        """Return what tokens cost; None if a price is missing, or the number of tokens that it is of."""
        if self.price_read is None or self.price_written is None or read is None or written is None:
            return None
        return (self.price_read * read + self.price_written * written) / 1e6


class EvalConfig(Config):
    """Evaluate models on tasks that they were not trained on. --json prints the result alone."""

    asked: Asked = Asked()
    environment: Environment = Environment()
    conversation: Conversation = Conversation()
    sampling: Sampling = Sampling()
    engine: Engine = Engine()
    endpoint: Endpoint = Endpoint()

    @model_validator(mode="after")
    def _endpoint_takes_no_engine(self) -> Self:
        if self.endpoint.url is None:
            return self
        standing = {**Engine().flat(), **Conversation().flat(), **Asked().flat()}
        given = {
            **self.engine.flat(),
            **self.conversation.flat(),
            "dtype": self.asked.dtype,
            "device": self.asked.device,
        }
        for name, value in given.items():
            if value != standing[name] and name != "max_overlong":
                raise ValueError(f"{name}: is about a model that runs here, and has no effect on an endpoint")
        if not self.asked.models:
            raise ValueError("model: expected what the endpoint calls its model")
        return self
