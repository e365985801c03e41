"""`make_engine`: the engine that a configuration asks for."""

import os
from collections.abc import Callable, Sequence
from functools import partial

import torch
from transformers import PreTrainedModel

from llmgym.addresses import is_overheard, key_in
from llmgym.config.choices import EngineKind
from llmgym.config.sections import Engine as EngineConfig
from llmgym.engines.base import Engine
from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.served.engine import ServedEngine
from llmgym.engines.served.limits import Limits
from llmgym.engines.served.worker import Worker
from llmgym.engines.sglang.dialect import SGLang
from llmgym.engines.sglang.in_process import InProcess
from llmgym.engines.sglang.versions import installed_version
from llmgym.errors import ConfigError
from llmgym.models.lora import has_adapters, merged_weights, plain_copy
from llmgym.secrets import with_secrets

KEY_VARIABLE = "LLMGYM_ENGINE_KEY"
"""The environment variable with the key of servers given by URL."""


def engine_kind(config: EngineConfig) -> EngineKind:
    """Return which engine a configuration means.

    ``auto`` stands for SGLang if a URL is given, or if it is installed and a CUDA GPU is
    there; else for the embedded engine.
    """
    if config.kind != "auto":
        return config.kind
    return "sglang" if config.urls or (installed_version() and torch.cuda.is_available()) else "local"


def make_engine(
    config: EngineConfig,
    model: PreTrainedModel,
    model_path: str,
    *,
    context_length: int,
    text_of: Callable[[Sequence[int]], str] | None = None,
    seed: int = 0,
    notify: Callable[[str], object],
) -> Engine:
    """Return an engine with the weights of `model`.

    Args:
        config: Which engine, and its options.
        model: What the learner trains. The embedded engine samples with it as it is, or with a copy where it has
            adapters, which are merged there, or weights of another type.
        model_path: The directory or hub name that `model` was loaded from.
        context_length: Tokens of prompt and replies, at most.
        text_of: Returns the text of some of a reply's tokens; needed if requests have stop strings.
        seed: Of the sampling of SGLangs that are started here.
        notify: Is given a sentence when an SGLang is lost or back.

    Raises:
        ConfigError: Options that only SGLang takes are given to the embedded engine, or those
            of a start to servers that run, or SGLang is to run code of the model directory.
        EngineError: SGLang is missing, or does not start.
    """
    urls, servers, transfer, dtype = config.urls, config.servers, config.transfer, config.dtype
    if engine_kind(config) == "local":
        if urls or servers or config.arguments or transfer == "group":
            raise ConfigError(
                "engine_url, engine_servers, engine_kwargs and engine_transfer are SGLang's: expected --engine sglang."
            )
        wanted = model.dtype if dtype is None else getattr(torch, dtype)
        if has_adapters(model) or wanted != model.dtype:
            model = plain_copy(model, wanted)
        return LocalEngine(model, memory_gib=config.kv_cache_gib, context_length=context_length, text_of=text_of)
    if config.weights_dir is not None and not config.weights_dir.is_dir():
        raise ConfigError(f"engine_weights_dir: expected a directory, got {str(config.weights_dir)!r}.")
    if urls and (servers or config.arguments or dtype):
        raise ConfigError(
            "engine_servers, engine_kwargs and engine_dtype are for starting SGLang, "
            "engine_url is for one that runs: expected one or the other."
        )
    if config.arguments.get("trust_remote_code"):
        raise ConfigError("engine_kwargs: expected no trust_remote_code: the code of a model directory is never run.")
    if transfer == "group" and not (urls or servers):
        raise ConfigError(
            "engine_transfer: expected engine_servers or engine_url beside 'group': "
            "an SGLang in this process is given the tensors themselves."
        )

    model_path, dialect = os.path.expanduser(model_path), SGLang()
    arguments = partial(
        dialect.arguments,
        with_secrets(config.arguments),
        seed=seed,
        # NCCL has no two members on one GPU, and the learner is on the first.
        first_gpu=1 if transfer == "group" and model.device.type == "cuda" else 0,
        dtype=dtype,
        strings=text_of is not None,
    )
    workers: list[Worker]
    if urls or servers:
        from llmgym.engines.served.server import OwnServer, Server  # needs aiohttp, of the extra `sglang`

        key = key_in(KEY_VARIABLE) if urls else None
        if overheard := [url for url in urls if key and is_overheard(url)]:
            notify(f"The key in {KEY_VARIABLE} goes to {overheard[0]} unencrypted: use https:// between machines.")
        limits = Limits(answer=config.answer_timeout)
        workers = [Server(dialect, url, key, transfer=transfer, limits=limits) for url in urls] or [
            OwnServer(dialect, model_path, arguments(number=i), i, transfer, config.start_timeout, limits)
            for i in range(servers)
        ]
    else:
        workers = [InProcess(model_path, arguments(number=0), config.start_timeout)]
    engine = ServedEngine(
        workers,
        context_length=context_length,
        directory=config.weights_dir,
        text_of=text_of,
        vocabulary=model.get_input_embeddings().num_embeddings,
        restarts=config.restarts,
        notify=notify,
    )
    if urls:  # whatever they have: the learner's weights are the ones to sample with
        engine.load_weights(merged_weights(model), version=0)
    return engine
