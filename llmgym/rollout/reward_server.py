"""`RewardServer`: a reward model that an SGLang server has."""

import threading
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar

from llmgym.addresses import fault_of_url, key_in, quoted
from llmgym.envs.waiting import each
from llmgym.errors import ConfigError, ModelError, import_extra, said_by
from llmgym.models.causal_lm import find_model, load_tokenizer
from llmgym.models.pretrained import load_config
from llmgym.rollout.template import ChatTemplate
from llmgym.types import Episode, Message, Score

KEY = "LLMGYM_REWARD_KEY"
"""The environment variable in which the server's key is read, if it asks for one."""

_LARGEST = 1e300  # reward; JSON may have numbers beyond what a float holds


class RewardServer:
    """Scores conversations by asking an SGLang server for their rewards.

    Conversations are rendered here and sent as tokens, so that a server reads what a model in this process would read:
    what somebody says cannot be a control token.

    Args:
        url: Where it is, such as ``http://127.0.0.1:30000``.
        path: Directory or hub name of its tokenizer and chat template; None for what the server says.
        key: The secret that it asks for, if it does.
        concurrency: Requests under way, at most.
        timeout: Seconds that a request may take.
        retries: How often one is tried again if the server cannot be reached, is late, has too much to do, or fails.

    Raises:
        ConfigError: The server cannot be reached, or serves no reward model.
        ModelError: Its tokenizer cannot be loaded here, or has no chat template.
    """

    per: ClassVar[str] = "episode"
    waits = True

    def __init__(
        self,
        url: str,
        path: str | None = None,
        key: str | None = None,
        *,
        concurrency: int = 32,
        timeout: float = 60.0,
        retries: int = 4,
    ) -> None:
        if fault := fault_of_url(url):
            raise ConfigError(f"reward_model: {fault}")
        transport: Any = import_extra("llmgym.scorers.judges.transport", "judge")
        self._client = transport.client_of(url, key, timeout=timeout, retries=retries)
        self._url, self._key = url, key
        self._places = threading.BoundedSemaphore(concurrency)
        name, options = self._found(path or self._tokenizer_path())
        self._template = ChatTemplate(load_tokenizer(name, options))
        self._padding: int | None = load_config(name, options).get_text_config().pad_token_id

    @classmethod
    def named(cls, url: str) -> "RewardServer":
        """Return the scorer of a server, whose key, if it asks for one, is in the environment variable `KEY`."""
        return cls(url, key=key_in(KEY))

    def score(self, episodes: Sequence[Episode]) -> list[Score] | Awaitable[list[Score]]:
        """Return the reward of every episode; one that the server does not give is missing, with the reason."""
        return each(self._score, ((episode,) for episode in episodes), blocking=True)

    def _score(self, episode: Episode) -> Score:
        if not episode.messages:
            return Score(None, error="nothing was said that a reward model could read")
        tokens = whole_conversation(self._template, episode.messages, self._padding)
        with self._places:
            try:
                answer = self._client.post("/classify", body={"input_ids": tokens}, cast_to=object)
            except Exception as error:  # noqa: BLE001  # whatever it sends, it costs this score and no other
                return Score(None, error=self._said(f"gave no answer: {said_by(error)}"))
        reward = _reward(answer)
        if reward is None:
            return Score(None, error=self._said(f"answered with what is no reward: {answer!r:.200}"))
        return Score(reward, kind="log_odds")

    def _tokenizer_path(self) -> str:
        """Ask the server where the tokenizer of its model is."""
        try:
            facts = self._client.get("/model_info", cast_to=object)
        except Exception as error:  # noqa: BLE001  # whatever it sends, it is no reward model's server
            said = self._said(f"gave no answer: {said_by(error)}")
            raise ConfigError(f"reward_model:{self._url}: {said}") from None
        path = facts.get("tokenizer_path") if isinstance(facts, dict) else None
        if not isinstance(path, str) or facts.get("is_generation") is not False:
            raise ConfigError(
                f"reward_model:{self._url}: expected an SGLang server of a reward model, started with --is-embedding: "
                + self._said(f"says {facts!r:.200}")
            )
        return path

    def _found(self, path: str) -> tuple[str, dict[str, Any]]:
        """Return what transformers loads the tokenizer from."""
        try:
            return find_model(path)
        except ModelError as error:
            raise ModelError(
                f"reward_model:{self._url}: its tokenizer is not here: {error} Expected a directory that both see, or "
                "RewardServer(url, path) of `llmgym.rollout.reward_server` with one that is here."
            ) from error

    def _said(self, how: str) -> str:
        """Return what went wrong."""
        return quoted(self._url, how, self._key)


def whole_conversation(template: ChatTemplate, messages: Sequence[Message], padding: int | None) -> list[int]:
    """Return the tokens of a conversation without padding at its end, which transformers leaves out too."""
    text = template.render(messages, generate=False)
    tokens = list(template.tokenizer(text, add_special_tokens=False)["input_ids"])
    while tokens and tokens[-1] == padding:
        tokens.pop()
    return tokens


def _reward(answer: object) -> float | None:
    """Return the one finite number that a server answers with."""
    found = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    numbers = found.get("embedding") if isinstance(found, dict) else None
    if not isinstance(numbers, list) or len(numbers) != 1 or type(numbers[0]) not in (int, float):
        return None
    return float(numbers[0]) if abs(numbers[0]) < _LARGEST else None
