"""A session of a served environment, without a socket: what it answers to what."""

import json
from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest

import llmgym
from llmgym.envs.serving import SCHEMAS, Session
from llmgym.types import Said


class Countdown(llmgym.TextEnv):
    """Count down from a number."""

    max_turns = 4
    system_prompt = "Count."

    def begin(self) -> Said:
        self.left = int(self.np_random.integers(2, 4))
        return f"From {self.left}"

    def respond(self, action: str) -> llmgym.Outcome:
        if action == "break":
            raise RuntimeError("broken \x1b[2J at /somewhere")
        self.left -= action == str(self.left)
        return llmgym.Outcome(f"{self.left} left", reward=0.5, parts={"said": 1.0}, over=self.left == 0)

    def score(self, episode: llmgym.Episode) -> float:
        return float(self.left == 0)


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Countdown)
    yield session
    session.close()


def ask(session: Session, kind: str, **data: Any) -> dict[str, Any]:
    answer = session.answer(json.dumps({"type": kind, **({"data": data} if data else {})}))
    assert answer is not None
    assert json.loads(json.dumps(answer)) == answer
    return answer


def code(answer: dict[str, Any]) -> str:
    assert answer["type"] == "error"
    return str(answer["data"]["code"])


def test_a_session_plays_an_episode_as_gymnasium_does(session: Session) -> None:
    env = Countdown()
    for seed in range(10):
        observation, _ = env.reset(seed=seed)
        data = ask(session, "reset", seed=seed)["data"]
        assert (data["observation"]["content"], data["reward"], data["done"]) == (observation, None, False)
        assert data["observation"]["metadata"]["system_prompt"] == "Count."
        over = False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(str(env.left))
            over = terminated or truncated
            data = ask(session, "step", message=str(env.left + 1))["data"]
            assert (data["observation"]["content"], data["reward"], data["done"]) == (observation, reward, over)


def test_the_metadata_tell_a_turns_reward_from_the_score(session: Session) -> None:
    ask(session, "reset", seed=0)
    for _ in range(3):
        told = ask(session, "step", message="?")["data"]
        assert told["reward"] == told["observation"]["metadata"]["reward"] == 0.5
    told = ask(session, "step", message="?")["data"]
    metadata = told["observation"]["metadata"]
    assert told["done"]
    assert metadata["truncated"]
    assert metadata["parts"] == {"said": 1.0}
    assert metadata["score"]["value"] == 0.0


def test_the_state_counts_the_steps_of_the_episode_that_the_client_named(session: Session) -> None:
    ask(session, "reset", seed=1, episode_id="mine")
    ask(session, "step", message="x")
    assert ask(session, "state") == {"type": "state", "data": {"episode_id": "mine", "step_count": 1}}
    ask(session, "reset")
    assert ask(session, "state")["data"]["step_count"] == 0


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("{", "INVALID_JSON"),
        ("[]", "INVALID_JSON"),
        (b"\xff", "INVALID_JSON"),
        ("[" * 100_000, "INVALID_JSON"),
        ("{}", "UNKNOWN_TYPE"),
        ('{"type": ["reset"]}', "UNKNOWN_TYPE"),
        ('{"type": "restart"}', "UNKNOWN_TYPE"),
        ('{"type": "step"}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"message": 1}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"message": "1", "reply": "1"}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"seed": -1}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"seed": "one"}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"message": "1"}}', "EXECUTION_ERROR"),
    ],
)
def test_a_message_that_is_none_gets_the_protocols_error(session: Session, message: str, expected: str) -> None:
    answer = session.answer(message)
    assert answer is not None
    assert code(answer) == expected
    assert ask(session, "reset", seed=0)["type"] == "observation"


def test_what_else_a_reset_takes_are_its_options(session: Session) -> None:
    ask(session, "reset", seed=0, level=3)
    assert session._env is not None
    assert session._env.unwrapped.options == {"level": 3}  # type: ignore[attr-defined]
    ask(session, "reset", seed=0)
    assert session._env.unwrapped.options == {}  # type: ignore[attr-defined]


def test_a_step_after_the_end_is_refused(session: Session) -> None:
    ask(session, "reset", seed=0)
    while not ask(session, "step", message="?")["data"]["done"]:
        pass
    assert code(ask(session, "step", message="?")) == "EXECUTION_ERROR"


def test_an_environment_that_raises_is_told_without_a_traceback_and_made_anew(session: Session) -> None:
    ask(session, "reset", seed=0)
    failed = ask(session, "step", message="break")
    assert failed["data"] == {"code": "EXECUTION_ERROR", "message": "RuntimeError: broken \x1b[2J at /somewhere"}
    assert code(ask(session, "step", message="1")) == "EXECUTION_ERROR"
    assert ask(session, "reset", seed=0)["type"] == "observation"


def test_an_action_needs_one_text() -> None:
    assert SCHEMAS["action"]["required"] == ["message"]
    assert SCHEMAS["action"]["properties"]["message"]["type"] == "string"


class Plain(gymnasium.Env[str, str]):
    """An environment of Gymnasium's own."""

    observation_space = action_space = llmgym.UnicodeText()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "Hello.", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "", 0.25, False, True, {"length": float(len(action)), "note": "none"}


def test_any_environment_of_texts_can_be_served() -> None:
    session = Session(Plain)
    assert ask(session, "reset")["data"]["observation"]["content"] == "Hello."
    told = ask(session, "step", message="four")["data"]
    assert (told["reward"], told["done"]) == (0.25, True)
    assert told["observation"]["metadata"]["truncated"]
    assert told["observation"]["metadata"]["parts"] == {"length": 4.0}


def test_the_environment_is_closed_with_the_session() -> None:
    closed = []

    class Closing(Plain):
        def close(self) -> None:
            closed.append(self)

    session = Session(Closing)
    session.close()
    assert not closed
    ask(session, "reset")
    session.close()
    assert len(closed) == 1
