"""`SGLang`: what an SGLang is asked and what it answers, over HTTP or in this process."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmgym.engines.base import Completion, FinishReason, GenerationRequest
from llmgym.engines.served.dialect import (
    Call,
    Facts,
    FaultyAnswerError,
    TransientError,
    UnknownCallError,
    WorkerLostError,
    shown,
    succeeded,
)
from llmgym.engines.served.group import WeightsGroup
from llmgym.engines.served.weights import Bucket
from llmgym.engines.sglang.versions import installed_version, require_version
from llmgym.errors import EngineError

_FLUSH_TIMEOUT = 30.0  # seconds


class SGLang:
    """SGLang's words; see `Dialect`.

    Of the sampling parameters, a request's own seed counts only if SGLang runs with
    ``enable_deterministic_inference``, which not every attention backend supports; without
    it SGLang samples from one stream of its own (``random_seed``). Sampling also ends at the
    model's own end-of-sequence tokens, whether they are asked for or not.

    Log-probabilities are those of the softmax of logits / temperature over the whole
    vocabulary. With ``top_p`` below 1 or ``top_k`` above 0 SGLang samples from fewer tokens,
    and does not renormalise: each log-probability is then too small by the logarithm of the
    mass that those tokens have. At temperature 0 a token is certain: 0.
    """

    name = "SGLang"
    health = "/health"

    # How it is started.

    def require_installed(self) -> None:
        """Raise `EngineError` if SGLang is missing here or too old."""
        require_version(installed_version(), "in this environment")

    def arguments(
        self, given: Mapping[str, Any], *, number: int, seed: int, first_gpu: int, dtype: str | None, strings: bool
    ) -> dict[str, Any]:
        """Return arguments of SGLang's server and of `sglang.Engine`."""
        gpus = 0 if given.get("device") == "cpu" else int(given.get("tp_size", 1))
        first = int(given.get("base_gpu_id", first_gpu))
        chosen = {
            "random_seed": seed + number,
            "skip_tokenizer_init": not strings,
            **({"dtype": dtype} if dtype else {}),
        }
        return {**chosen, **given, "base_gpu_id": first + number * gpus}

    def serve(self, model_path: str, arguments: Mapping[str, Any], port: int, key: str) -> None:
        """Run SGLang's HTTP server; the key is also the one of administrative calls."""
        from sglang.srt.entrypoints.http_server import launch_server  # half a minute
        from sglang.srt.server_args import ServerArgs  # likewise

        options = {"model_path": model_path, "log_level": "error", "host": "127.0.0.1", **arguments}
        launch_server(ServerArgs(**options, port=port, api_key=key, admin_api_key=key))

    def facts(self, info: Mapping[str, Any], where: str) -> Facts:
        """Read ``/server_info``, which is `sglang.Engine.get_server_info` too."""
        with _reading("/server_info", info):
            version = info["version"]
            if not isinstance(version, str) or len(version) > 100:
                raise ValueError("its version is no version")
            require_version(version, f"in {where}")
            parallel = {name: _count(info.get(name) or 1, 2**16) for name in ("pp_size", "dp_size")}
            return Facts(
                # Longer prompts are refused: SGLang keeps a few tokens of the context for itself.
                context_length=_count(info["max_req_input_len"], 2**31),
                processes=_count(info.get("tp_size") or 1, 2**16),
                no_strings="start it without skip_tokenizer_init" if info.get("skip_tokenizer_init") else "",
                no_group=f"expected pp_size and dp_size of 1, got {parallel}" if max(parallel.values()) > 1 else "",
            )

    # What is sampled.

    def payload(self, request: GenerationRequest) -> dict[str, Any]:
        """Return a request as the keywords of ``/generate``, which `sglang.Engine.async_generate` takes too."""
        return {
            "input_ids": list(request.tokens),
            "sampling_params": {
                "max_new_tokens": request.max_tokens,
                "temperature": request.sampling.temperature,
                "top_p": request.sampling.top_p,
                "top_k": request.sampling.top_k or -1,
                "min_p": request.sampling.min_p,
                "stop_token_ids": list(request.stop_token_ids),
                "stop": list(request.sampling.stop),
                "no_stop_trim": True,
                "sampling_seed": _fold(request.seed),
            },
            "return_logprob": True,
        }

    def completion(self, request: GenerationRequest, reply: Mapping[str, Any], weight_version: int) -> Completion:
        """Read a reply.

        The tokens come from the list that holds their log-probabilities, so that the two cannot
        disagree: the plain list of tokens may have lost a stop token.

        Raises:
            TransientError: The request was aborted.
            FaultyAnswerError: The reply holds something else than tokens with log-probabilities, or more than were
                asked for.
        """
        with _reading("/generate", reply):
            meta = reply["meta_info"]
            reason = meta["finish_reason"]["type"]
            sampled = [(log_prob, token) for log_prob, token, *_ in meta.get("output_token_logprobs") or []]
            plain = list(reply.get("output_ids") or [])
        if reason == "abort":
            raise TransientError(f"the request was aborted: {shown(meta['finish_reason'])}")
        if fault := _fault(request, reason, sampled, plain):
            raise FaultyAnswerError(f"Expected {fault} from {self.name}.")
        finish_reason: FinishReason = "stop" if reason == "stop" else "length"
        greedy = request.sampling.temperature == 0  # then a token is certain; SGLang reports it at temperature 1
        return Completion(
            request_id=request.request_id,
            tokens=[token for _, token in sampled],
            log_probs=[0.0 if greedy else float(log_prob) for log_prob, _ in sampled],
            finish_reason=finish_reason,
            weight_version=weight_version,
        )

    def tag(self, reply: Mapping[str, Any]) -> str | None:
        """Return what a reply says of its weights."""
        tag: str | None = reply["meta_info"].get("weight_version")
        return tag

    # The calls of a server.

    async def info(self, call: Call) -> dict[str, Any]:
        """Ask for ``/server_info``."""
        return await call("GET", "/server_info")

    async def generate(self, call: Call, rid: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for a reply."""
        return await call("POST", "/generate", {"rid": rid, **payload})

    async def abort(self, call: Call, rid: str) -> None:
        """Drop a request."""
        await call("POST", "/abort_request", {"rid": rid})

    async def release_memory(self, call: Call) -> None:
        """Release weights and cache, which SGLang can if it runs with ``enable_memory_saver``."""
        await call("POST", "/release_memory_occupation", {})

    async def resume_memory(self, call: Call) -> None:
        """Take the memory again."""
        await call("POST", "/resume_memory_occupation", {})

    # The calls that give it weights.

    @contextlib.asynccontextmanager
    async def paused(self, call: Call) -> AsyncIterator[None]:
        """Pause, flush the cache and check it; go on afterwards."""
        # "abort" leaves no request behind that would go on with the old cache.
        await call("POST", "/pause_generation", {"mode": "abort"})
        try:
            await call("POST", f"/flush_cache?timeout={_FLUSH_TIMEOUT}")  # any status but 200 is an error
            yield
        finally:
            await call("POST", "/continue_generation", {})

    async def read(self, call: Call, directory: Path, tag: str) -> None:
        """Have it read a directory."""
        await _told(call, "update_weights_from_disk", model_path=str(directory), weight_version=tag)

    async def join(self, call: Call, group: WeightsGroup) -> None:
        """Have it join a group, as the members that follow the learner."""
        await _told(
            call,
            "init_weights_update_group",
            master_address=group.address,
            master_port=group.port,
            rank_offset=1,
            world_size=group.size,
            group_name=group.name,
            backend=group.backend,
        )
        # An update that was broken off is still open there.
        with contextlib.suppress(EngineError, TransientError, WorkerLostError):
            await _told(call, "end_weight_update")

    @contextlib.asynccontextmanager
    async def update(self, call: Call) -> AsyncIterator[None]:
        """Say where an update begins and ends, which later versions want to know."""
        has_sessions = True
        try:
            await _told(call, "begin_weight_update")
        except UnknownCallError:
            has_sessions = False
        yield
        if has_sessions:
            await _told(call, "end_weight_update")

    async def receive(self, call: Call, group: WeightsGroup, bucket: Bucket, tag: str) -> None:
        """Announce tensors."""
        await _told(
            call,
            "update_weights_from_distributed",
            names=[name for name, _ in bucket],
            dtypes=[str(tensor.dtype).removeprefix("torch.") for _, tensor in bucket],
            shapes=[list(tensor.shape) for _, tensor in bucket],
            group_name=group.name,
            weight_version=tag,
            flush_cache=False,
        )

    async def leave(self, call: Call, group: WeightsGroup) -> None:
        """Have it leave a group."""
        await call("POST", "/destroy_weights_update_group", {"group_name": group.name})

    async def current_tag(self, call: Call) -> str | None:
        """Ask for ``/model_info``."""
        tag: str | None = (await call("GET", "/model_info")).get("weight_version")
        return tag


async def _told(call: Call, name: str, **arguments: Any) -> None:
    """Make one of the calls that say whether they succeeded."""
    answer = await call("POST", f"/{name}", arguments)
    with _reading(f"/{name}", answer):
        success, message = answer["success"], shown(answer.get("message"))
        if not isinstance(success, bool):
            raise ValueError("success is neither true nor false")
    succeeded(name, success, message)


@contextlib.contextmanager
def _reading(name: str, answer: object) -> Iterator[None]:
    """Say of an answer that cannot be read that it is not SGLang's."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise FaultyAnswerError(
            f"Expected SGLang's answer to {name}, got {shown(answer)} ({type(error).__name__}: {error!s:.100})."
        ) from None


def _count(number: object, most: int) -> int:
    """Return a number of something."""
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
        raise ValueError(f"{shown(number)} is no number from 1 to {most}")
    return number


def _fault(
    request: GenerationRequest, reason: object, sampled: Sequence[tuple[Any, Any]], plain: list[Any]
) -> str | None:
    """Return what is expected of a reply and what it has instead; None if nothing is wrong."""
    if reason not in ("stop", "length"):
        return f"'stop' or 'length' as finish_reason, got {shown(reason)}"
    if not 1 <= len(sampled) <= request.max_tokens:
        return f"1 to {request.max_tokens} tokens, got {len(sampled)}"
    for log_prob, token in sampled:
        if not (_is_token(token) and _is_log_prob(log_prob)):
            return f"tokens with their log-probabilities, got token {shown(token)} with {shown(log_prob)}"
    tokens = [token for _, token in sampled]
    if plain != tokens[: len(plain)]:
        return f"the log-probabilities of tokens {shown(plain)}, got those of {shown(tokens)}"
    if any(token in request.stop_token_ids for token in tokens[:-1]):
        return f"no tokens after a stop token, got {shown(tokens)}"
    return None


def _is_token(token: object) -> bool:
    return isinstance(token, int) and not isinstance(token, bool) and 0 <= token < 2**31


def _is_log_prob(log_prob: object) -> bool:
    # Rounding may take it a little above 0. One of -infinity, or nearly so, is of a token that cannot be sampled.
    return isinstance(log_prob, int | float) and not isinstance(log_prob, bool) and -1e5 < log_prob <= 1e-2


def _fold(seed: int) -> int:
    """Fold a seed of any size into the 31 bits that every version of SGLang takes."""
    return int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=4).digest()) >> 1
