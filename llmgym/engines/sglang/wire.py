"""What SGLang is asked and what it answers: tokens in, tokens with log-probabilities out."""

import hashlib
from collections.abc import Mapping
from typing import Any

from llmgym.engines.base import Completion, FinishReason, GenerationRequest


class TransientError(Exception):
    """A request that came to nothing and may be sent again: refused for the moment, cut off, aborted by others."""


def payload_of(request: GenerationRequest) -> dict[str, Any]:
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


def completion_of(request: GenerationRequest, reply: Mapping[str, Any], weight_version: int) -> Completion:
    """Read a reply.

    The tokens come from the list that holds their log-probabilities, so that the two cannot
    disagree: the plain list of tokens may have lost a stop token.

    Raises:
        TransientError: The request was aborted, or the reply holds no tokens.
    """
    meta = reply.get("meta_info") or {}
    reason = (meta.get("finish_reason") or {}).get("type")
    sampled = meta.get("output_token_logprobs") or []
    if reason not in ("stop", "length") or not sampled:
        raise TransientError(f"a reply of {len(sampled)} tokens that finished by {reason!r}")
    finish_reason: FinishReason = "stop" if reason == "stop" else "length"
    greedy = request.sampling.temperature == 0  # then a token is certain; SGLang reports it at temperature 1
    return Completion(
        request_id=request.request_id,
        tokens=[int(token) for _, token, *_ in sampled],
        log_probs=[0.0 if greedy else float(log_prob) for log_prob, *_ in sampled],
        finish_reason=finish_reason,
        weight_version=weight_version,
    )


def _fold(seed: int) -> int:
    """Fold a seed of any size into the 31 bits that every version of SGLang takes."""
    return int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=4).digest()) >> 1
