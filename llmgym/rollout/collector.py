"""`Collector`: many episodes at once, whose replies an engine samples."""

from typing import Any

from llmgym.config.sections import Sampling
from llmgym.engines.base import Engine
from llmgym.envs.vector import TextVectorEnv
from llmgym.envs.waiting import WaitingRoom
from llmgym.rollout.base_collector import BaseCollector
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.dispatcher import Dispatcher
from llmgym.rollout.token_play import TokenPlay
from llmgym.scorers.asking import AnyScorer
from llmgym.types import Player


class Collector(BaseCollector):
    """Plays episodes: environments on one side, an engine on the other; see `BaseCollector`.

    All seats that learn are played by the engine; those that are frozen, by an engine of their own. A reply that was
    sampled by other weights than the engine's current ones raises `StaleCompletionError`.

    Args:
        envs: The environments.
        codec: Turns their texts into tokens.
        engine: Samples the replies.
        scorer: See `BaseCollector`.
        max_overlong: The same.
        max_failure_rate: The same.
        frozen: Samples the replies of frozen seats.
        options: ``needs_scores``, ``env_retries`` and ``groups_at_once``; see `BaseCollector`.

    Raises:
        ConfigError: There are frozen seats, and nothing to play them.
    """

    def __init__(
        self,
        envs: TextVectorEnv,
        codec: ChatCodec,
        engine: Engine,
        scorer: AnyScorer | None = None,
        max_overlong: float = 0.25,
        max_failure_rate: float = 0.2,
        frozen: Engine | None = None,
        **options: Any,
    ) -> None:
        self.codec, self.engine = codec, engine
        self._engines: dict[Player, Engine] = {"learner": engine}
        if frozen is not None and "frozen" in envs.seats:
            self._engines["frozen"] = frozen
        limits: dict[str, Any] = {"max_overlong": max_overlong, "max_failure_rate": max_failure_rate}
        super().__init__(envs, scorer, **limits, players=self._engines.keys(), **options)

    def _rules(self, sampling: Sampling, seed: int, room: WaitingRoom) -> TokenPlay:
        dispatchers = {player: Dispatcher(engine, self.watch) for player, engine in self._engines.items()}
        context_length = min(engine.context_length for engine in self._engines.values())
        of_seat = [dispatchers[player] for player in self.envs.seats]
        return TokenPlay(self.codec, of_seat, sampling, seed, context_length)

    def _abort(self) -> None:
        for engine in self._engines.values():
            engine.abort()
