"""`LocalChat`: a language model in this process that answers questions, for judges."""

from collections.abc import Sequence
from typing import Literal

import torch

from llmgym.config.presets import directory_of
from llmgym.config.sections import Sampling
from llmgym.engines.base import Completion, GenerationRequest, complete
from llmgym.engines.local.engine import LocalEngine
from llmgym.models.causal_lm import load_causal_lm, stop_token_ids_of
from llmgym.rollout.chat import ChatCodec
from llmgym.scorers.judges.chat import Answer, Question


class LocalChat:
    """Answers questions with the embedded engine, many at once.

    Args:
        path: A directory or hub name of a causal LM with a chat template.
        device: Where it runs; ``auto`` is a CUDA GPU if there is one.
        temperature: Of sampling; 0 takes the likeliest token.
        max_tokens: Tokens of an answer, at most.

    Raises:
        ModelError: It cannot be loaded or run.
    """

    waits = False

    def __init__(
        self,
        path: str,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        temperature: float = 0.0,
        max_tokens: int = 512,
    ) -> None:
        model, tokenizer = load_causal_lm(directory_of(path), torch.float32)
        model.to("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")
        self._codec = ChatCodec(tokenizer, stop_token_ids_of(model))
        self._engine = LocalEngine(model)
        self._sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
        self.identity = {"path": directory_of(path), "temperature": temperature, "max_tokens": max_tokens}

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """Return an answer to each question; see `ChatModel`. One that leaves no room for an answer has none."""
        prompts = [self._codec.prompt(question.messages) for question in questions]
        room = self._engine.context_length - self._sampling.max_tokens
        requests = [
            self._request(number, tokens, questions[number].vote)
            for number, tokens in enumerate(prompts)
            if len(tokens) <= room
        ]
        replies = {reply.request_id: reply for reply in complete(self._engine, requests)}
        return [self._answer(len(tokens), replies.get(number), room) for number, tokens in enumerate(prompts)]

    def _request(self, number: int, tokens: list[int], vote: int) -> GenerationRequest:
        return GenerationRequest(
            request_id=number,
            episode_id=number,
            tokens=tokens,
            max_tokens=self._sampling.max_tokens,
            stop_token_ids=self._codec.stop_token_ids,
            sampling=self._sampling,
            seed=vote,
        )

    def _answer(self, asked: int, reply: Completion | None, room: int) -> Answer:
        if reply is None:
            return Answer(None, f"the question has {asked} tokens, expected at most {room}", calls=0)
        if reply.finish_reason == "length":
            return Answer(None, "the answer was cut off at max_tokens", asked, len(reply.tokens))
        return Answer(self._codec.text(reply.tokens), None, asked, len(reply.tokens))
