"""transformers' continuous batching: the manager behind `generate_batch`, kept for all works.

`generate_batch` itself takes one length for all and waits for the longest reply of a turn. Here
every request has its own length and an episode goes on as soon as its reply is there, which
is the better use of it. Log-probabilities are on.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from benchmarks.work import Work

_BLOCK = 32  # tokens; with the default of 256 siblings would not share their prompt
_BLOCKS = 4096  # the default takes the memory of a GPU as its measure
_BATCH_TOKENS = 256  # of 256, 512 and 1024 the fastest here: attention runs over all requests at once


def load(model: str, dtype: str) -> Callable[[Work], list[list[list[int]]]]:
    """Return the rollout with continuous batching."""
    lm = AutoModelForCausalLM.from_pretrained(Path(model), dtype=getattr(torch, dtype)).eval()
    manager = lm.init_continuous_batching(
        GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=-1),
        ContinuousBatchingConfig(
            block_size=_BLOCK, num_blocks=_BLOCKS, max_batch_tokens=_BATCH_TOKENS, return_logprobs=True, seed=0
        ),
    )
    manager.start()

    def rollout(work: Work) -> list[list[list[int]]]:
        contexts = [list(prompt) for prompt in work.prompts]
        replies: list[list[list[int]]] = [[] for _ in contexts]
        episode_of: dict[str | None, int] = {}

        def submit(episode: int) -> None:
            length = work.lengths[episode][len(replies[episode])]
            episode_of[manager.add_request(contexts[episode], max_new_tokens=length)] = episode

        for episode in range(len(contexts)):
            submit(episode)
        while episode_of:
            result = manager.get_result(timeout=1)
            if result is None:
                assert manager.is_running(), manager.fatal_error
                continue
            if not result.is_finished():
                continue
            episode = episode_of.pop(result.request_id)
            assert len(result.logprobs) == len(result.generated_tokens)
            replies[episode].append(result.generated_tokens)
            contexts[episode] += result.generated_tokens + work.bridge
            if len(replies[episode]) < work.turns:
                submit(episode)
        return replies

    return rollout
