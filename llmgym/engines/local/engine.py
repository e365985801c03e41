"""`LocalEngine`: continuous batching over a transformers model in this process."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llmgym.engines.base import Completion, FinishReason, GenerationRequest, require_room
from llmgym.engines.local.decode_graphs import CaptureError, DecodeGraphs
from llmgym.engines.local.decoders import FusedDecoder, make_decoder
from llmgym.engines.local.forward_pass import ForwardPass, Span
from llmgym.engines.local.kv_cache import Store, bytes_per_token
from llmgym.engines.local.probe import cached_logits
from llmgym.engines.local.sampling import sample, uniforms
from llmgym.engines.local.scheduler import PREFILL_TOKENS, Run, Scheduler
from llmgym.engines.local.slots import Slots
from llmgym.engines.stop_strings import completes
from llmgym.errors import EngineError, ModelError
from llmgym.models.causal_lm import float32_by_default
from llmgym.models.context import context_notice, longest_context
from llmgym.models.self_test import reason_for_nan, self_test

_CHUNK = 512  # tokens of a sequence that run at once
_PREFILL_SCORES = 2**19  # pairs of a token and one that it may see, by head


class LocalEngine:
    """Samples from a transformers causal LM, a batch of episodes at a time.

    Every episode in flight has a row of a KV cache and keeps it between its turns, so that a
    turn costs its own tokens and no more. A prompt that several requests begin with, such as
    the siblings of a group, is cached once and read once for all of them. Each step runs the
    newest token of every running request; these have the first rows of the cache, which
    a forward pass reads as one view. What finds no room waits. When episodes outgrow the
    memory, those between two turns lose their rows, then some of the requests wait again;
    both are prefilled again when there is room. If an allocation fails, the engine goes on
    with half as many episodes at once, and forgets nothing that was sampled.

    The engine samples with the very parameters it is given: where the learner trains the
    same module, there is nothing to load.

    Args:
        model: A decoder-only causal LM. It is used in evaluation mode.
        memory_gib: Bound of the KV cache.
        max_running: Episodes in flight, at most.
        context_length: Tokens of prompt and replies that fit; the model's own length if None.
        text_of: Returns the text of some of a reply's tokens; needed for requests that have stop strings.

    Raises:
        ModelError: The cache is too small for one context, or the model is of a kind that
            the engine cannot run: a self-test compares it with the model itself.
    """

    counts_log_probs: Literal[True] = True

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        memory_gib: float = 2.0,
        max_running: int = 512,
        context_length: int | None = None,
        text_of: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        config = model.config.get_text_config(decoder=True)
        self._decoder = make_decoder(model)
        self_test(
            model,
            partial(cached_logits, self._decoder, config, model.device),
            f"The embedded engine cannot run models of type {model.config.model_type!r}",
        )
        self.model = model
        limit = longest_context(model.config)
        self.context_length = min(context_length or limit, limit)
        notice = context_notice(model.config, context_length)
        if notice:
            warnings.warn(notice, stacklevel=2)
        self.weight_version = 0
        # A processor multiplies small float32 matrices faster than small bfloat16 ones.
        dtype = torch.float32 if model.device.type == "cpu" else model.dtype
        per_token = bytes_per_token(config, dtype)
        capacity = int(memory_gib * 2**30) // per_token  # in tokens
        if capacity < self.context_length:
            raise ModelError(
                f"A KV cache of {memory_gib} GiB holds no context of {self.context_length} tokens of this model, "
                f"which takes {per_token * self.context_length / 2**30:.2f} GiB: "
                "raise kv_cache_gib, or lower context_length."
            )
        self._text_of = text_of
        self._slots = Slots(
            Store(config, dtype, model.device),
            Store(config, dtype, model.device),
            capacity=capacity,
            max_rows=max_running,
            context_length=self.context_length,
        )
        self._graphs = (
            DecodeGraphs(self._decoder, self._slots.episode_store, self._slots.prompt_store)
            if model.device.type == "cuda" and isinstance(self._decoder, FusedDecoder)
            else None
        )
        self._scheduler = Scheduler(self._slots)
        self._smaller = False  # whether an allocation has failed

    # The protocol.

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Take requests.

        Raises:
            ContextOverflowError: A prompt leaves no room for a single token.
            ModelError: A request has stop strings, and the engine has no `text_of`.
        """
        for request in requests:
            require_room(request, self.context_length)
            if request.sampling.stop and self._text_of is None:
                raise ModelError("Stop strings need an engine that was made with text_of, which turns tokens to text.")
        self._scheduler.add([Run(request, uniforms(request.seed, request.max_tokens)) for request in requests])

    def wait(self) -> list[Completion]:
        """Decode until at least one request is finished; [] only if there is none."""
        while not self._scheduler.idle:
            if finished := self.poll():
                return finished
        return []

    @float32_by_default()
    @torch.inference_mode()
    def poll(self) -> list[Completion]:
        """Sample a token for every running request, after those that fit are taken in; return what this finished.

        Raises:
            EngineError: There is no memory, not even for half as many requests at once as before, or the model's logits
                are not numbers.
        """
        try:
            for spans, store in self._scheduler.admit():
                self._run_all(spans, store)
            return self._sample(self._step())
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        self._go_on_smaller(reason)  # no exception holds on to tensors any more
        return []

    def abort(self) -> None:
        """Drop every request and forget every episode."""
        self._scheduler.drop()

    def release(self, episode_ids: Iterable[int]) -> None:
        """Free the rows of episodes that are over."""
        self._slots.release(episode_ids)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Sample with `weights` from now on, and forget what was cached under the old ones.

        Args:
            weights: Names and values. What the engine already samples with, because the
                learner trains the very module, is not copied.
            version: Stamped on every completion from now on.
        """
        if not self._scheduler.idle:
            raise RuntimeError("load_weights needs an idle engine, got one with requests under way.")
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in weights:
                if parameters[name] is not value:
                    parameters[name].copy_(value)
        self._decoder.refresh()
        if self._graphs is not None:
            self._graphs.follow(self.model.parameters())
        self._slots.clear()
        self.weight_version = version

    @contextlib.contextmanager
    def set_aside(self) -> Iterator[None]:
        """Set aside what is under way, within a ``with`` block; afterwards it goes on, and is prefilled again."""
        aside = self._scheduler.set_aside()
        try:
            yield
        finally:
            self._scheduler.drop()
            self._scheduler.add(aside)

    def close(self) -> None:
        """Give the cache back."""
        self.abort()
        self._slots.episode_store.resize(0, 0)
        self._slots.prompt_store.resize(0, 0)

    def _go_on_smaller(self, reason: str) -> None:
        """Let everything wait again, and run half as much at once; but only once."""
        before = min(self._scheduler.start_over(), self._slots.max_rows)
        if self._smaller or before < 2:
            raise EngineError(
                f"The embedded engine has no memory for {before} episode{'s' * (before > 1)} at once ({reason}). Lower "
                "kv_cache_gib, context_length or the number of episodes per step (prompts_per_step times group_size)."
            )
        self._smaller = True
        self._slots.shrink(before // 2)
        if self._graphs is not None:
            self._graphs.forget()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            f"The embedded engine ran out of memory with {before} episodes at once ({reason}). It goes on with at most "
            f"{before // 2}; a smaller kv_cache_gib leaves more memory to the rest.",
            stacklevel=3,
        )

    # A step.

    def _step(self) -> Tensor:
        """Run what the running requests' rows lack, mostly the newest token; return what comes after it.  [B, V]"""
        spans = [self._scheduler.lacking(run) for run in self._scheduler.running]
        if self._graphs is not None and all(len(span.tokens) == 1 for span in spans):
            try:
                return self._graphs.logits(spans, self._slots.prompt_lengths)
            except CaptureError as error:
                self._graphs = None
                warnings.warn(f"Decoding without CUDA graphs, because a step cannot be captured: {error}", stacklevel=2)
        hidden = self._run(spans, self._slots.episode_store)
        if len(hidden) > len(spans):
            ends = torch.tensor([len(span.tokens) for span in spans], device=hidden.device).cumsum(0)
            hidden = hidden[ends - 1]
        return self._decoder.logits(hidden)

    def _run(self, spans: Sequence[Span], store: Store) -> Tensor:
        """Run spans; return their last hidden states, packed.  [N, C]"""
        prompts = self._slots.prompt_store, self._slots.prompt_lengths
        return self._decoder.hidden(ForwardPass(spans, store, *prompts))

    def _sample(self, logits: Tensor) -> list[Completion]:
        """Sample a token for every running request; return those that this finished."""
        running = self._scheduler.running
        u = torch.tensor([run.u[len(run.tokens)] for run in running], device=logits.device)
        sampled = [found.tolist() for found in sample(logits, [run.request.sampling for run in running], u)]
        if any(map(math.isnan, sampled[1])):
            raise EngineError(f"The logits of the model are not numbers: {reason_for_nan(self.model)}.")
        finished: list[Completion] = []
        self._scheduler.running = []
        for run, token, log_prob in zip(running, *sampled, strict=True):
            run.tokens.append(token)
            run.log_probs.append(log_prob)
            run.versions.append(self.weight_version)
            reason = self._finish_reason(run)
            if reason is None:
                self._scheduler.running.append(run)
            else:
                self._slots.park(run.episode_id)
                versions = tuple(run.versions) if run.versions[0] != self.weight_version else ()
                finished.append(
                    Completion(run.request.request_id, run.tokens, run.log_probs, reason, self.weight_version, versions)
                )
        return finished

    def _finish_reason(self, run: Run) -> FinishReason | None:
        request = run.request
        if run.tokens[-1] in request.stop_token_ids:
            return "stop"
        if (
            request.sampling.stop
            and self._text_of is not None
            and completes(run.tokens, request.sampling.stop, self._text_of)
        ):
            return "stop"
        full = run.length >= self.context_length
        return "length" if full or len(run.tokens) >= request.max_tokens else None

    def _run_all(self, spans: Sequence[Span], store: Store) -> None:
        """Run spans in passes of bounded size."""
        for batch in _passes(spans):
            self._run(batch, store)


def _out_of_memory(error: Exception) -> bool:
    """Tell whether an allocation failed, on a GPU or a processor."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _passes(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Cut spans into chunks, and group the chunks that can run side by side."""
    while spans:
        batch: list[Span] = []
        later: list[Span] = []
        width = seen = 0
        for span in spans:
            # A long row sees many keys: shorter chunks keep the scores within their bound.
            chunk = max(1, min(len(span.tokens), _CHUNK, _PREFILL_SCORES // (span.start + len(span.tokens))))
            wider, more = max(width, chunk), max(seen, span.start + chunk)
            size = wider * (len(batch) + 1)
            if batch and (size > PREFILL_TOKENS or size * more > _PREFILL_SCORES):
                later.append(span)
                continue
            width, seen = wider, more
            batch.append(Span(span.row, span.start, span.tokens[:chunk], span.prompt))
            if chunk < len(span.tokens):
                later.append(Span(span.row, span.start + chunk, span.tokens[chunk:], span.prompt))
        yield batch
        spans = later
