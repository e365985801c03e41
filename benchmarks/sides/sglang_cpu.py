"""SGLang's engine in this process, on the CPU: a coroutine for every episode, radix cache on.

An episode goes on as soon as its reply is there. Log-probabilities are on, and tokens go in
and out without text.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import sglang

from benchmarks.work import Work

OPTIONS: dict[str, Any] = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "grammar_backend": "none",
    "disable_overlap_schedule": True,
    "disable_cuda_graph": True,
    "skip_server_warmup": True,
    "skip_tokenizer_init": True,
    "max_total_tokens": 200_000,
    "max_running_requests": 512,
}


def load(model: str, dtype: str) -> Callable[[Work], list[list[list[int]]]]:
    """Start the engine and return its rollout."""
    engine = sglang.Engine(model_path=model, dtype=dtype, **OPTIONS)

    async def play(work: Work, episode: int) -> list[list[int]]:
        context = list(work.prompts[episode])
        replies = []
        for length in work.lengths[episode]:
            options = {"max_new_tokens": length, "temperature": 1.0, "ignore_eos": True}
            output = await engine.async_generate(input_ids=context, sampling_params=options, return_logprob=True)
            reply = [token for _, token, *_ in output["meta_info"]["output_token_logprobs"]]
            replies.append(reply)
            context = context + reply + work.bridge
        return replies

    async def play_all(work: Work) -> list[list[list[int]]]:
        return await asyncio.gather(*(play(work, episode) for episode in range(len(work.prompts))))

    def rollout(work: Work) -> list[list[list[int]]]:
        engine.flush_cache()  # nothing is left of the repeat before
        return engine.loop.run_until_complete(play_all(work))

    return rollout
