"""What training expects of an engine, and evaluation does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmgym
from llmgym.agents import GRPO, SFT
from llmgym.config.sections import Engine
from llmgym.engines import make
from llmgym.engines.base import Completion, CountsLogProbs, LendsMemory, TakesWeights
from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.scripted import ScriptedEngine
from llmgym.engines.served.engine import ServedEngine
from llmgym.errors import ConfigError
from llmgym.train import local_rollouts


class PlaysOnly:
    """Samples, and has nothing that the engine protocol does not ask for."""

    weight_version = 0
    context_length = 4096

    def __init__(self) -> None:
        self._plays = ScriptedEngine(lambda request: [*range(50, 55), request.stop_token_ids[0]])
        self.submit, self.abort = self._plays.submit, self._plays.abort
        self.release, self.close = self._plays.release, self._plays.close

    def wait(self) -> list[Completion]:
        return self._plays.wait()


class Follows(PlaysOnly):
    """Takes weights, and cannot say how likely a token was."""

    def load_weights(self, weights: Any, version: int) -> None:
        self.weight_version = version


@pytest.mark.parametrize(("kind", "lacks"), [(PlaysOnly, "takes no weights"), (Follows, "does not count log-prob")])
def test_an_engine_that_cannot_be_trained_with_is_refused_by_name_and_evaluated(
    kind: type[PlaysOnly], lacks: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local_rollouts, "make_engine", lambda *_, **__: kind())
    agent = GRPO(prompts_per_step=1, group_size=2, eval_episodes=4, output_dir=tmp_path)
    assert agent.evaluate().episodes == 4
    with pytest.raises(ConfigError, match=f"^{kind.__name__} {lacks}"):
        agent.train(steps=1)
    assert not list(tmp_path.iterdir())  # before anything is written
    agent.close()


def test_engines_have_what_training_expects() -> None:
    for kind in (LocalEngine, ServedEngine, ScriptedEngine):
        engine = kind.__new__(kind)
        assert isinstance(engine, TakesWeights)
        assert isinstance(engine, CountsLogProbs)
        assert isinstance(engine, LendsMemory) == (kind is ServedEngine)


@pytest.mark.parametrize(("own", "asked"), [((), ()), (("!",), ()), ((), ("?",))])
def test_an_engine_can_stop_at_strings_if_the_run_or_its_environment_names_some(
    own: tuple[str, ...], asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asking(llmgym.TextEnv):
        stop = own

        def begin(self) -> str:
            return "Well?"

        def score(self, episode: llmgym.Episode) -> float:
            return 0.0

    llmgym.register_env("Asking-test-v0")(Asking)
    told: dict[str, Any] = {}

    def make_engine(config: Engine, *arguments: Any, **options: Any) -> Any:
        told.update(options)
        return make.make_engine(Engine(engine="local"), *arguments, **options | {"text_of": str})

    monkeypatch.setattr(local_rollouts, "make_engine", make_engine)
    agent = GRPO(env="Asking-test-v0", stop=asked, eval_episodes=2, engine="sglang")
    assert agent.evaluate().episodes == 2
    assert (told["text_of"] is not None) == bool(own or asked)
    agent.close()


def test_what_learns_without_playing_is_evaluated_where_strings_end_replies(tmp_path: Path) -> None:
    class Short(llmgym.TextEnv):
        stop = ("!",)

        def begin(self) -> str:
            return f"Say {self.np_random.integers(9)}."

        def score(self, episode: llmgym.Episode) -> float:
            return 0.0

        def expert(self) -> Iterator[str]:
            yield "Well!"

    llmgym.register_env("Short-test-v0")(Short)
    result = SFT(env="Short-test-v0", eval_episodes=2, output_dir=tmp_path).train(steps=1)
    assert result.after is not None
    assert result.after.episodes == 2
