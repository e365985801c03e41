"""`LocalEngine`: continuous batching over a transformers model in this process."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from llmgym.errors import ContextOverflowError, ModelError
from llmgym.models.causal_lm import logits_of
from llmgym.rollout.engines.base import Completion, FinishReason, GenerationRequest
from llmgym.rollout.engines.sampling import sample, uniforms
from llmgym.rollout.engines.slot_cache import ATTENTION, SlotCache

_CHUNK = 512  # tokens of a prompt that run at once
_PREFILL_TOKENS = 8192  # tokens of several prompts that run at once


@dataclass(slots=True)
class _Row:
    """What stands in one row of the cache.

    Attributes:
        episode_id: Whose row it is; None if it is free.
        cached: The tokens whose keys and values it holds.
    """

    episode_id: int | None = None
    cached: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Running:
    """A request that is being answered."""

    request: GenerationRequest
    u: NDArray[np.float64]
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)


class LocalEngine:
    """Samples from a transformers causal LM, a batch of episodes at a time.

    Every episode in flight has a row of a preallocated KV cache and keeps it between its
    turns, so that a turn costs its own tokens and no more. The rows of running requests are
    always the first ones: a forward pass reads them as one view. Requests with the same
    prompt, such as the siblings of a group, share its prefill. What finds no row waits.

    The engine samples with the very parameters it is given: where the learner trains the
    same module, there is nothing to load.

    Args:
        model: A decoder-only causal LM. It is used in evaluation mode.
        memory_gib: Bound of the KV cache.
        max_running: Episodes in flight at the most.
        context_length: Tokens of prompt and replies that fit; the model's own length if None.

    Raises:
        ModelError: The cache is too small for one context, or the model is of a kind that
            the engine cannot run: a short self-test compares it with the model itself.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        memory_gib: float = 2.0,
        max_running: int = 256,
        context_length: int | None = None,
    ) -> None:
        config = model.config.get_text_config(decoder=True)
        self.model = model
        self.context_length = min(context_length or config.max_position_embeddings, config.max_position_embeddings)
        self.weight_version = 0
        per_row = SlotCache.bytes_per_token(config, model.dtype) * self.context_length
        rows = min(max_running, int(memory_gib * 2**30 // per_row))
        if rows < 1:
            raise ModelError(
                f"A KV cache of {memory_gib} GiB holds no context of {self.context_length} tokens of this model, "
                f"which takes {per_row / 2**30:.2f} GiB: raise kv_cache_gib, or lower context_length."
            )
        self._hidden_size = config.hidden_size
        self._cache = SlotCache(config, rows, self.context_length, model.dtype, model.device)
        self._rows = [_Row() for _ in range(rows)]
        self._row_of: dict[int, int] = {}  # by episode, running or parked
        self._parked: dict[int, None] = {}  # episodes between turns, the longest-parked first
        self._waiting: list[GenerationRequest] = []
        self._running: list[_Running] = []  # the i-th runs in row i
        self._logits = torch.empty(0)  # what each running row predicts next  [B, V]
        self._self_test()

    # The protocol.

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Take requests.

        Raises:
            ContextOverflowError: A prompt leaves no room for a single token.
        """
        for request in requests:
            if len(request.tokens) >= self.context_length:
                raise ContextOverflowError(
                    f"A prompt of {len(request.tokens)} tokens leaves no room for a reply "
                    f"in a context of {self.context_length} tokens."
                )
        self._waiting.extend(requests)

    @torch.inference_mode()
    def wait(self) -> list[Completion]:
        """Decode until at least one request is finished; [] only if there is none."""
        with self._sampling():
            while self._waiting or self._running:
                self._admit()
                finished = self._sample()
                self._forward()
                if finished:
                    return finished
        return []

    def abort(self) -> None:
        """Drop every request and forget every episode."""
        self._waiting, self._running = [], []
        self.release(list(self._row_of))

    def release(self, episode_ids: Iterable[int]) -> None:
        """Free the rows of episodes that are over."""
        for episode_id in episode_ids:
            row = self._row_of.pop(episode_id, None)
            if row is not None:
                self._rows[row] = _Row()
                self._parked.pop(episode_id, None)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Sample with `weights` from now on, and forget what was cached under the old ones.

        Args:
            weights: Names and values. What the engine already samples with, because the
                learner trains the very module, is not copied.
            version: Stamped on every completion from now on.
        """
        if self._running or self._waiting:
            raise RuntimeError(f"load_weights needs an idle engine, got {len(self._running)} requests under way.")
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in weights:
                if parameters[name] is not value:
                    parameters[name].copy_(value)
        self.release(list(self._row_of))
        self.weight_version = version

    def close(self) -> None:
        """Give the cache back."""
        self.release(list(self._row_of))
        del self._cache

    @torch.inference_mode()
    def _self_test(self) -> None:
        """Compare a prefill and two steps in rows of the cache with the model's own forward pass."""
        tokens = torch.arange(3, 3 + min(10, self.context_length - 1), device=self.model.device)[None]
        tokens = tokens % self.model.get_input_embeddings().num_embeddings  # [1, T]
        expected = self.model(tokens, use_cache=False).logits[0].float()
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        kind = self.model.config.model_type
        pieces = [slice(0, -2), slice(-2, -1), slice(-1, None)]
        try:
            with self._sampling():
                hidden = [self._hidden(0, tokens[:, piece], positions[:, piece])[0] for piece in pieces]
            actual = logits_of(self.model, torch.cat(hidden)).float()
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ModelError(f"The embedded engine cannot run models of type {kind!r} ({error})") from error
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 0.1
        difference = float((actual.log_softmax(-1) - expected.log_softmax(-1)).abs().max())
        if not difference < tolerance:
            raise ModelError(
                f"The embedded engine cannot run models of type {kind!r}: in a self-test its log-probabilities "
                f"differed from the model's own by {difference:.2g}, expected less than {tolerance}."
            )

    # The scheduler.

    def _admit(self) -> None:
        """Give waiting requests a row behind the running ones and prefill what their rows lack."""
        first = len(self._running)
        room = len(self._rows) - first
        if not (self._waiting and room):
            return
        # Episodes that return to a row of their own come first, before pressure takes it from them.
        self._waiting.sort(key=lambda request: request.episode_id not in self._row_of)
        admitted, self._waiting = _siblings_last(self._waiting[:room]), self._waiting[room:]
        for row, request in enumerate(admitted, start=first):
            self._take_row(request.episode_id, row)
        self._running += [_Running(request, uniforms(request.seed, request.max_tokens)) for request in admitted]
        logits = self._prefill(first, admitted)
        self._logits = torch.cat([self._logits, logits]) if first else logits

    def _take_row(self, episode_id: int, row: int) -> None:
        """Move an episode to `row`: its own cache if it is parked, else an empty row."""
        current = self._row_of.get(episode_id)
        if current is None:
            current = next((i for i in range(row, len(self._rows)) if self._rows[i].episode_id is None), None)
        if current is None:  # pressure: whoever has been parked longest loses its cache
            victim = next(iter(self._parked))
            current = self._row_of[victim]
            self.release([victim])
        self._swap(current, row)
        self._parked.pop(episode_id, None)
        self._rows[row].episode_id = episode_id
        self._row_of[episode_id] = row

    def _swap(self, one: int, other: int) -> None:
        if one == other:
            return
        rows = self._rows
        length = max(len(rows[one].cached), len(rows[other].cached))
        if length:
            self._cache.swap_rows(one, other, length)
        rows[one], rows[other] = rows[other], rows[one]
        for row in (one, other):
            episode_id = rows[row].episode_id
            if episode_id is not None:
                self._row_of[episode_id] = row

    def _prefill(self, first: int, requests: list[GenerationRequest]) -> Tensor:
        """Run the tokens that the rows from `first` on lack; return what they predict next.  [B, V]

        Rows that have nothing yet and want the same prompt run once.
        """
        sources: dict[tuple[int, ...], int] = {}  # a prompt, and the row that runs it
        source_of = []
        for row, request in enumerate(requests, start=first):
            tokens, cached = list(request.tokens), self._rows[row].cached
            if cached != tokens[: len(cached)] or len(cached) == len(tokens):
                cached.clear()
            source_of.append(row if cached else sources.setdefault(tuple(tokens), row))
        missing = {
            row: list(request.tokens[len(self._rows[row].cached) :])
            for row, request in enumerate(requests, start=first)
            if source_of[row - first] == row
        }
        logits: dict[int, Tensor] = {}
        for rows in _batches(missing):
            logits.update(zip(rows, self._run(rows[0], [missing[row] for row in rows]), strict=True))
        for row, source in enumerate(source_of, start=first):
            self._rows[row].cached = list(requests[row - first].tokens)
            if row != source:
                self._cache.copy_row(source, row, len(self._rows[row].cached))
        return torch.stack([logits[source] for source in source_of])

    def _run(self, first: int, missing: list[list[int]]) -> Tensor:
        """Append tokens to consecutive rows, a chunk at a time; return the logits behind each row's last.  [B, V]"""
        device = self.model.device
        width = max(map(len, missing))
        starts = torch.tensor([len(self._rows[first + i].cached) for i in range(len(missing))], device=device)
        tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in missing], device=device)  # [B, T]
        positions = starts[:, None] + torch.arange(width, device=device)  # [B, T]
        positions.clamp_(max=self.context_length - 1)  # padding may run past the end
        last = torch.tensor([len(row) - 1 for row in missing], device=device)  # [B]
        behind_last = torch.empty((len(missing), self._hidden_size), dtype=self.model.dtype, device=device)
        for begin in range(0, width, _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            hidden = self._hidden(first, tokens[:, chunk], positions[:, chunk])
            rows = ((last >= begin) & (last < begin + _CHUNK)).nonzero()[:, 0]
            behind_last[rows] = hidden[rows, last[rows] - begin]
        return logits_of(self.model, behind_last)

    def _hidden(self, first: int, tokens: Tensor, positions: Tensor) -> Tensor:
        """Run tokens [B, T] of consecutive rows through the model's trunk.  [B, T, D]"""
        self._cache.select(first, positions)
        hidden: Tensor = self.model.base_model(
            input_ids=tokens, position_ids=positions, past_key_values=self._cache, use_cache=True, slots=self._cache
        )[0]
        return hidden

    def _sample(self) -> list[Completion]:
        """Sample a token for every running request; return those that this finished."""
        running = self._running
        temperatures = torch.tensor([run.request.temperature for run in running], device=self._logits.device)
        u = torch.tensor([run.u[len(run.tokens)] for run in running], device=self._logits.device)
        tokens, log_probs = sample(self._logits, temperatures, u)
        for run, token, log_prob in zip(running, tokens.tolist(), log_probs.tolist(), strict=True):
            run.tokens.append(token)
            run.log_probs.append(log_prob)
        reasons = [self._finish_reason(run) for run in running]
        return [self._retire(i, reason) for i, reason in reversed(list(enumerate(reasons))) if reason]

    def _finish_reason(self, run: _Running) -> FinishReason | None:
        request = run.request
        if run.tokens[-1] in request.stop_token_ids:
            return "stop"
        full = len(request.tokens) + len(run.tokens) >= self.context_length
        return "length" if full or len(run.tokens) >= request.max_tokens else None

    def _retire(self, index: int, reason: FinishReason) -> Completion:
        """Park the row behind the running ones, with the last running one in its place."""
        run, end = self._running[index], len(self._running) - 1
        self._swap(index, end)
        self._running[index] = self._running[end]
        self._running.pop()
        self._parked[run.request.episode_id] = None
        return Completion(run.request.request_id, run.tokens, run.log_probs, reason, self.weight_version)

    def _forward(self) -> None:
        """Run the newest token of every running request."""
        if not self._running:
            return
        device = self.model.device
        tokens = torch.tensor([[run.tokens[-1]] for run in self._running], device=device)  # [B, 1]
        positions = torch.tensor([[len(self._rows[i].cached)] for i in range(len(self._running))], device=device)
        self._logits = logits_of(self.model, self._hidden(0, tokens, positions)[:, 0])
        for i, run in enumerate(self._running):
            self._rows[i].cached.append(run.tokens[-1])

    @contextlib.contextmanager
    def _sampling(self) -> Iterator[None]:
        """Evaluation mode and slot attention, for the time of a call: the learner has its own."""
        config, training = self.model.config, self.model.training
        attention = config._attn_implementation
        self.model.eval()
        config._attn_implementation = ATTENTION
        try:
            yield
        finally:
            config._attn_implementation = attention
            self.model.train(training)


def _siblings_last(requests: list[GenerationRequest]) -> list[GenerationRequest]:
    """Put requests whose prompt another one has already behind the others, which then prefill side by side."""
    seen: set[tuple[int, ...]] = set()
    repeats = []
    for request in requests:
        prompt = tuple(request.tokens)
        repeats.append(prompt in seen)
        seen.add(prompt)
    return [request for _, request in sorted(zip(repeats, requests, strict=True), key=lambda pair: pair[0])]


def _batches(missing: dict[int, list[int]]) -> Iterator[list[int]]:
    """Split rows, in ascending order, into runs without gaps of at most `_PREFILL_TOKENS` tokens, padding included."""
    batch: list[int] = []
    width = 0
    for row, tokens in missing.items():
        width = max(width, len(tokens))
        if batch and (row != batch[-1] + 1 or width * (len(batch) + 1) > _PREFILL_TOKENS):
            yield batch
            batch, width = [], len(tokens)
        batch.append(row)
    yield batch
