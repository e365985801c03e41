"""What an environment says is a text, or messages of users and tools; Gymnasium sees their text."""

from typing import Any

import gymnasium
import pytest
from transformers import PreTrainedTokenizerFast

import llmgym
from llmgym import Message
from llmgym.config.sections import Sampling
from llmgym.engines.scripted import ScriptedEngine
from llmgym.errors import EnvironmentContractError
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector, Task

RESULTS = (Message("tool", "disk: 40 %", name="metrics", call_id="c0"), Message("tool", "no errors", name="log"))


class Toolbox(llmgym.TextEnv):
    """Answers every reply with what two tools said, and a question."""

    max_turns = 3

    def begin(self) -> Message:
        return Message("user", "Which service failed?")

    def respond(self, action: str) -> list[Message]:
        return [*RESULTS, Message("user", "Go on.")]

    def score(self, episode: llmgym.Episode) -> float:
        return float(len(episode.messages))


def test_gymnasium_sees_the_text_of_messages() -> None:
    env = Toolbox()
    observation, _ = env.reset(seed=0)
    assert observation == "Which service failed?"
    observation, *_ = env.step("I look.")
    assert observation == "disk: 40 %\n\nno errors\n\nGo on."
    assert observation in env.observation_space
    assert env.episode.turns[0].observation == "Which service failed?"
    env.step("Again.")
    assert env.episode.turns[1].heard == (*RESULTS, Message("user", "Go on."))
    assert env.episode.messages[2:5] == [*RESULTS, Message("user", "Go on.")]
    assert env.episode.actions == ["I look.", "Again."]


def test_a_rollout_has_the_messages_and_not_their_text_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    end = tokenizer.eos_token_id
    codec = ChatCodec(tokenizer)
    engine = ScriptedEngine(lambda request: [50, end])
    envs = llmgym.TextVectorEnv([Toolbox])
    (trajectory,) = Collector(envs, codec, engine).collect([Task(0, 0)], Sampling(max_tokens=5))
    reply = Message("assistant", codec.text([50, end]))
    answer = [*RESULTS, Message("user", "Go on.")]
    assert trajectory.messages == [Message("user", "Which service failed?"), reply, *answer, reply, *answer, reply]
    assert trajectory.tokens == [*codec.prompt(trajectory.messages[:-1]), 50, end]
    assert trajectory.score == 10


def test_a_wrapper_that_changes_what_is_said_is_heard() -> None:
    class Louder(gymnasium.ObservationWrapper):  # type: ignore[type-arg]
        def observation(self, observation: str) -> str:
            return observation.upper()

    envs = llmgym.TextVectorEnv([lambda: Louder(Toolbox())])
    observation, _ = envs.reset_one(0, seed=0)
    assert envs.opening(0, observation) == [Message("user", "WHICH SERVICE FAILED?")]
    assert envs.step_one(0, "x").messages == (Message("user", "DISK: 40 %\n\nNO ERRORS\n\nGO ON."),)


@pytest.mark.parametrize(
    "said", [3, [], ["text"], Message("assistant", "I did it."), [Message("system", "x")], {"role": "user"}]
)
@pytest.mark.parametrize("method", ["begin", "respond"])
def test_what_is_no_message_of_a_user_or_a_tool_is_refused(method: str, said: Any) -> None:
    env = Toolbox()
    setattr(env, method, lambda *_: said)
    expected = rf"Toolbox\.{method} has to return a string, or messages of the roles user and tool"
    if method == "begin":
        with pytest.raises(EnvironmentContractError, match=expected):
            env.reset(seed=0)
        return
    env.reset(seed=0)
    with pytest.raises(EnvironmentContractError, match=expected):
        env.step("x")
