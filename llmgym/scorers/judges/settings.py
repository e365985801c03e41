"""A judge from a YAML file: ``--scorer judge:judge.yaml``."""

import importlib
import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from llmgym.addresses import fault_of_url, key_in
from llmgym.config.base import Config
from llmgym.config.plain import read_yaml
from llmgym.config.sections import Positive
from llmgym.errors import ConfigError, LLMGymError, did_you_mean, import_extra
from llmgym.scorers.judges.cache import Cached
from llmgym.scorers.judges.chat import ChatModel
from llmgym.scorers.judges.judge import Judge, PairJudge, Prices
from llmgym.scorers.judges.question import fields_of
from llmgym.scorers.judges.verdicts import Choice, Json, Number, Reader

RUBRICS = resources.files(__package__) / "rubrics"

_LOCAL = "llmgym.rollout.local_chat"  # which is imported by its name, because it needs torch
_ENDPOINT = "llmgym.scorers.judges.endpoint"  # which needs an extra

NotNegative = Annotated[float, Field(ge=0)]


class JudgeSettings(Config):
    """What a judge's file may say."""

    endpoint: str | None = None
    """Where an OpenAI-compatible API is, such as http://127.0.0.1:30000/v1. None: `model` is run in this process."""

    model: str
    """What the server calls the model; without an endpoint, a directory or a name on the Hugging Face hub."""

    key: str | None = None
    """Where the server's key is: `env:NAME`, an environment variable. None: it needs none."""

    rubric: str | None = None
    """A prompt that llmgym brings: `correct`, `helpful` or `better`. What this file says beside it goes first."""

    prompt: str | None = None
    """What the model is asked; {question}, {reply}, {conversation} and {column} stand for what is judged; for pairs,
    {first} and {second} are the replies."""

    system: str | None = None
    """What the model is told before."""

    pairs: bool = False
    """Whether it is asked which of two replies is better, and 1 is for the first."""

    opponents: Annotated[int, Field(ge=2, multiple_of=2)] | None = None
    """How many siblings each episode is compared with, an even number. None: all, which takes quadratic time."""

    read: Literal["number", "choice", "json"] | None = None
    """What its answers end with: a number, one of the `choices`, or a JSON object with a number as `field`."""

    low: float = 0.0
    """The number that is worth 0."""

    high: float = 10.0
    """The number that is worth 1."""

    choices: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    """What each word is worth, from 0 to 1."""

    field: str = "score"
    """The field of a JSON object that is the verdict."""

    votes: Positive = 1
    """How often it is asked about each reply; the mean counts."""

    temperature: NotNegative = 0.0
    """Of sampling."""

    max_tokens: Positive = 512
    """Tokens of an answer, at most; one that is cut off is no verdict."""

    concurrency: Positive = 16
    """Requests under way at a server, at most."""

    per_minute: Annotated[float, Field(gt=0)] | None = None
    """Requests to a server that are begun in a minute, at most. None: no limit."""

    timeout: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds that a request may take."""

    retries: Annotated[int, Field(ge=0)] = 4
    """How often a request is tried again if the server cannot be reached, is late, has too much to do, or fails."""

    extra: dict[str, Any] = Field(default_factory=dict)
    """More fields of requests to a server."""

    cache: Path | None = None
    """File that answers are kept in, for later runs. None: they are kept for this run."""

    price_read: NotNegative = 0.0
    """What a million tokens of questions cost."""

    price_written: NotNegative = 0.0
    """What a million tokens of answers cost."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a model without an endpoint runs."""

    @model_validator(mode="after")
    def _asks_and_reads(self) -> Self:
        if self.prompt is None or self.read is None:
            raise ValueError(f"prompt, read: expected both, or a rubric of {', '.join(rubrics())}")
        wanted = [{"first", "second"}] if self.pairs else [{"reply"}, {"conversation"}]
        if not any(names <= fields_of(self.prompt) for names in wanted):
            shown = "{first} and {second}" if self.pairs else "{reply} or {conversation}"
            raise ValueError(f"prompt: expected {shown} in it, or the model sees nothing of what it judges")
        if self.endpoint is not None and (fault := fault_of_url(self.endpoint)):
            raise ValueError(f"endpoint: {fault}")
        try:
            json.dumps(self.extra, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"extra: expected what JSON has ({error})") from None
        if (self.read == "choice") != (self.choices is not None):
            raise ValueError("choices: expected with read: choice, and only there")
        if self.opponents is not None and not self.pairs:
            raise ValueError("opponents: expected with pairs, and only there")
        if self.low >= self.high:
            raise ValueError(f"high: expected more than low, got {self.high:g} and {self.low:g}")
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("votes: at temperature 0 all of them are the same; expected a higher temperature")
        if self.key is not None and not self.key.startswith("env:"):
            raise ValueError("key: expected env:NAME, the name of an environment variable, so that no file has the key")
        return self

    @field_validator("choices", mode="before")
    @classmethod
    def _are_words(cls, choices: object) -> object:
        words = list(choices) if isinstance(choices, dict) else []
        if not all(isinstance(word, str) for word in words):
            raise ValueError("expected words; YAML takes yes and no without quotes for truth values")
        if isinstance(choices, dict) and len({word.strip().casefold() for word in words} - {""}) < max(1, len(words)):
            raise ValueError(f"expected at least one word, each of them different and not empty, got {words}")
        if any(word != word.strip() or "\n" in word for word in words):
            raise ValueError(f"expected words without space around them and without line breaks, got {words}")
        return choices

    @property
    def reader(self) -> Reader:
        """What reads answers."""
        if self.choices is not None:
            return Choice(self.choices)
        return Json(self.field, self.low, self.high) if self.read == "json" else Number(self.low, self.high)


def from_file(path: str) -> Judge | PairJudge:
    """Return the judge that a YAML file describes.

    Raises:
        ConfigError: The file says something else, or what it needs is not installed.
    """
    if "://" in path:  # in which a password may be
        raise ConfigError(
            "judge: expected a YAML file, in which the address of its model is `endpoint`, got an address."
        )
    try:
        return from_settings(_with_rubric(read_yaml(Path(path))))
    except LLMGymError as error:
        raise ConfigError(f"judge {path}: {error}") from error


def from_settings(settings: JudgeSettings) -> Judge | PairJudge:
    """Return the judge that settings describe."""
    assert settings.prompt is not None, "the settings see to it"
    model = Cached(_model(settings), settings.cache)
    options: dict[str, Any] = {"system": settings.system, "votes": settings.votes}
    if settings.pairs:
        return PairJudge(model, settings.prompt, settings.reader, opponents=settings.opponents, **options)
    prices = Prices(settings.price_read, settings.price_written)
    return Judge(
        model,
        settings.prompt,
        settings.reader,
        prices=prices if any((prices.read, prices.written)) else None,
        **options,
    )


def rubrics() -> list[str]:
    """Return the names of the rubrics that llmgym brings."""
    return sorted(one.name.removesuffix(".yaml") for one in RUBRICS.iterdir() if one.name.endswith(".yaml"))


def _with_rubric(said: dict[str, Any]) -> JudgeSettings:
    name = said.get("rubric")
    if name is None:
        return JudgeSettings.of(said)
    if name not in rubrics():
        hint = did_you_mean(str(name), rubrics())
        raise ConfigError(f"rubric: expected one of {', '.join(rubrics())}, got {name!r:.80}.{hint}")
    return JudgeSettings.of({**yaml.safe_load((RUBRICS / f"{name}.yaml").read_text(encoding="utf-8")), **said})


def _model(settings: JudgeSettings) -> ChatModel:
    options: dict[str, Any] = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    if settings.endpoint is None:
        local: ChatModel = importlib.import_module(_LOCAL).LocalChat(settings.model, device=settings.device, **options)
        return local
    for name in ("concurrency", "per_minute", "timeout", "retries", "extra"):
        options[name] = getattr(settings, name)
    endpoint = import_extra(_ENDPOINT, "judge").Endpoint
    served: ChatModel = endpoint(settings.endpoint, settings.model, _key(settings.key), **options)
    return served


def _key(key: str | None) -> str | None:
    if key is None:
        return None
    name = key.removeprefix("env:")
    found = key_in(name)
    if found is None:
        raise ConfigError(f"key: expected a key in the environment variable {name!r}, got none")
    return found
