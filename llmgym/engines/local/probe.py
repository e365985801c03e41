"""The conversations of a self-test, the way that the embedded engine runs them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PretrainedConfig

from llmgym.engines.local.decode_graphs import DecodeStep
from llmgym.engines.local.decoders import Decoder, FusedDecoder
from llmgym.engines.local.forward_pass import ForwardPass, Span
from llmgym.engines.local.kv_cache import Store
from llmgym.models.self_test import Probe


def cached_logits(decoder: Decoder, config: PretrainedConfig, device: torch.device, probe: Probe) -> list[Tensor]:
    """Run conversations through a cache: a prompt shared by siblings, ragged replies, then one token at a time.

    Args:
        decoder: What runs.
        config: Of its model.
        device: Where that is.
        probe: The conversations.

    Returns:
        The logits of each conversation's last tokens.  [n, V] each
    """
    first, second, stranger = (list(tokens) for tokens in probe.conversations)
    prompts, episodes = (Store(config, torch.float64, device) for _ in range(2))
    prompts.resize(1, probe.prompt)
    episodes.resize(3, max(map(len, probe.conversations)))
    decoder.hidden(ForwardPass([Span(0, 0, first[: probe.prompt])], prompts, prompts, []))
    rows = [(first[probe.prompt :], 0), (second[probe.prompt :], 0), (stranger, None)]

    def run(start: Sequence[int], stop: Sequence[int], *, fixed_shapes: bool = False) -> Sequence[Tensor]:
        """Run a part of every row; return its logits."""
        parts = [(tokens[i:j], i, prompt) for (tokens, prompt), i, j in zip(rows, start, stop, strict=True)]
        spans = [Span(row, i, tokens, prompt) for row, (tokens, i, prompt) in enumerate(parts)]
        if fixed_shapes:
            step = DecodeStep(len(spans), episodes, prompts)
            step.fill(spans, [probe.prompt])
            logits = step.logits(decoder)
        else:
            logits = decoder.logits(decoder.hidden(ForwardPass(spans, episodes, prompts, [probe.prompt])))
        return torch.split(logits, [len(span.tokens) for span in spans])

    before, newest, all_of_it = ([len(tokens) - rest for tokens, _ in rows] for rest in (2, 1, 0))
    parts = (
        run([0] * len(rows), before),
        run(before, newest),
        run(newest, all_of_it, fixed_shapes=isinstance(decoder, FusedDecoder)),  # as it decodes on a GPU
    )
    return [torch.cat(logits) for logits in zip(*parts, strict=True)]
