"""`DecodeGraphs`: decoding steps of fixed shapes, which a GPU replays without being told each operation again."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from llmgym.engines.local.attention import attend, merge
from llmgym.engines.local.decoders import Decoder
from llmgym.engines.local.forward_pass import Span, bias
from llmgym.engines.local.kv_cache import Store


class DecodeStep:
    """The newest token of the rows 0 to B-1, as a decoder's forward pass whose shapes never change.

    It does what a `ForwardPass` over the same spans does, with more to compute and less to
    decide: every row is looked at in its whole capacity, and prompts are read once per row.

    Args:
        size: B.
        store: Where keys and values go.
        prompts: The store that the rows' prompts are in.
    """

    def __init__(self, size: int, store: Store, prompts: Store) -> None:
        self._store, self._prompts = store, prompts
        self._inputs = torch.zeros((5, size), dtype=torch.long, device=store.device)
        self._masks: dict[int | None, tuple[Tensor, Tensor]] = {}

    def fill(self, spans: Sequence[Span], prompt_lengths: Sequence[int]) -> None:
        """Say what runs: a token for each of the first rows. The rows after them are left as they are."""
        inputs = [
            (span.tokens[0], span.start, span.prompt or 0, 0 if span.prompt is None else prompt_lengths[span.prompt], 1)
            for span in spans
        ]
        unused = [(0, 0, 0, 0, 0)] * (self._inputs.shape[1] - len(spans))
        self._inputs.copy_(torch.tensor(inputs + unused).T)

    @property
    def tokens(self) -> Tensor:
        """What runs.  [B]"""
        return self._inputs[0]

    @property
    def positions(self) -> Tensor:
        """Of each token in its conversation.  [B]"""
        return self._inputs[1] + self._inputs[3]

    def logits(self, decoder: Decoder) -> Tensor:
        """Return what comes after each token: a fixed series of operations on fixed memory.  [B, V]"""
        self._masks = {}
        rows = torch.arange(self._inputs.shape[1], device=self._store.device)
        self._places = self._store.places(rows, self._inputs[1])
        return decoder.logits(decoder.hidden(self))

    def attend(
        self,
        layer: int,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        """See `Pass`, with N = B."""
        used = self._inputs[4, :, None, None].bool()
        before = self._store.at(layer, self._places)
        new = (torch.where(used, *pair) for pair in zip((keys, values), before, strict=True))
        self._store.write(layer, self._places, *new)
        size, heads, head_dim = query.shape
        query = (query.to(self._store.dtype) * scaling).view(size, keys.shape[1], -1, head_dim)  # [B, K, H/K, D]
        mask, prompt_mask = self._mask(window)
        attended, log_sum = attend(query, *self._store.read(layer, slice(size), self._store.length), mask, softcap)
        if self._prompts.length:
            prompt = self._prompts.read(layer, self._inputs[2], self._prompts.length)
            attended = merge(attended, log_sum, *attend(query, *prompt, prompt_mask, softcap))
        return attended.reshape(size, heads, head_dim).to(keys.dtype)

    def _mask(self, window: int | None) -> tuple[Tensor, Tensor]:
        """Which tokens of its row and of its prompt each token sees.  [B, 1, 1, L] each"""
        if window not in self._masks:
            column = torch.arange(max(self._store.length, self._prompts.length), device=self._store.device)
            own = bias(column[: self._store.length] - self._inputs[1, :, None], window, self._store.dtype)
            column = column[: self._prompts.length]
            inside = bias(column - (self._inputs[3, :, None] - 1), None, self._store.dtype)
            near = bias(column - self.positions[:, None], window, self._store.dtype)
            self._masks[window] = own[:, None, None], torch.minimum(inside, near)[:, None, None]
        return self._masks[window]


class CaptureError(Exception):
    """A step asks for what a CUDA graph cannot hold."""


class DecodeGraphs:
    """Decoding steps for every number of rows, to the next power of two; on a CUDA GPU each is captured as a graph.

    A graph holds on to the memory that it was captured with, so all of them are dropped when
    a store or a parameter has moved.

    Args:
        decoder: Runs the model, in operations that never wait for a result.
        store: Where keys and values go.
        prompts: The store that prompts are in.
    """

    def __init__(self, decoder: Decoder, store: Store, prompts: Store) -> None:
        self._decoder, self._store, self._prompts = decoder, store, prompts
        self.captures = store.device.type == "cuda"
        if self.captures:  # one of each for all graphs, which run one after the other
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream(store.device)  # type: ignore[no-untyped-call]  # torch does not say
        self._capacity = (0, 0)
        self._parameters: list[int] = []
        self._steps: dict[int, tuple[DecodeStep, Callable[[], Tensor]]] = {}

    def forget(self) -> None:
        """Give back what all graphs hold."""
        self._steps.clear()

    def follow(self, parameters: Iterable[Tensor]) -> None:
        """Forget all graphs if the model's parameters are not where they were."""
        places = [parameter.data_ptr() for parameter in parameters]
        if places != self._parameters:
            self._parameters = places
            self.forget()

    def logits(self, spans: Sequence[Span], prompt_lengths: Sequence[int]) -> Tensor:
        """Run one token for each of the first rows; return what comes after it.  [B, V]

        What is returned is overwritten by the next call.

        Raises:
            CaptureError: The step cannot be captured; nothing is lost.
        """
        capacity = self._store.resized, self._prompts.resized
        if capacity != self._capacity:
            self._capacity = capacity
            self.forget()
        size = min(self._store.rows, 1 << (len(spans) - 1).bit_length())
        step, run = self._steps.get(size) or (DecodeStep(size, self._store, self._prompts), None)
        step.fill(spans, prompt_lengths)
        if run is None:
            run = self._capture(step)
            self._steps[size] = step, run
        return run()[: len(spans)]

    def _capture(self, step: DecodeStep) -> Callable[[], Tensor]:
        """Return what runs the step."""

        def run() -> Tensor:
            return step.logits(self._decoder)

        if not self.captures:
            return run
        current = torch.cuda.current_stream(self._store.device)
        graph = torch.cuda.CUDAGraph()
        try:
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                run()  # libraries set themselves up, which a graph cannot hold
                graph.capture_begin(pool=self._pool)
                try:
                    output = run()
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            for one in (error, error.__context__):  # the end of a capture that failed fails, too
                if isinstance(one, torch.OutOfMemoryError):
                    raise one from None
            raise CaptureError(str(error)) from error
        finally:
            current.wait_stream(self._stream)

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay
