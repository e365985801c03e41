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
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task

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


NO_MESSAGES = [3, [], ["text"], {"role": "user"}]


@pytest.mark.parametrize("said", [*NO_MESSAGES, Message("assistant", "I did it."), [Message("system", "x")]])
def test_an_answer_that_is_no_message_of_a_user_or_a_tool_is_refused(said: Any) -> None:
    env = Toolbox()
    env.respond = lambda action: said  # type: ignore[method-assign]
    env.reset(seed=0)
    with pytest.raises(
        EnvironmentContractError,
        match=r"Toolbox\.respond has to return a string, or messages of the roles user and tool",
    ):
        env.step("x")


USER, SYSTEM, ASSISTANT = Message("user", "Hello."), Message("system", "Be brief."), Message("assistant", "Hi.")


@pytest.mark.parametrize(
    "said", [*NO_MESSAGES, SYSTEM, ASSISTANT, [USER, ASSISTANT], [USER, SYSTEM, USER], [SYSTEM, SYSTEM, USER]]
)
def test_a_beginning_that_no_reply_can_follow_is_refused(said: Any) -> None:
    env = Toolbox()
    env.begin = lambda: said  # type: ignore[method-assign]
    with pytest.raises(EnvironmentContractError, match=r"Toolbox\.begin has to return "):
        env.reset(seed=0)
    assert not env.under_way


class Judge:
    """Remembers the episodes that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[llmgym.Episode] = []

    def score(self, episodes: Any) -> list[llmgym.Score]:
        self.asked += episodes
        return [llmgym.Score(2.0, kind=self.kind) for _ in episodes]

    kind: Any = "reward"


def played(env: type[llmgym.TextEnv], codec: ChatCodec, scorer: Any = None) -> Any:
    engine = ScriptedEngine(lambda request: [50, codec.end_token])
    collector = Collector(llmgym.TextVectorEnv([env]), codec, engine, scorer)
    return collector.collect([Task(0, 0)], Sampling(max_tokens=5))[0]


def test_a_dialogue_so_far_and_a_system_prompt_of_the_episode_reach_model_and_scorer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    class Telling(Toolbox):
        def begin(self) -> list[Message]:  # type: ignore[override]
            return [SYSTEM, USER, ASSISTANT, Message("user", f"Which of {self.options or 'all'}?")]

    class Setting(Toolbox):
        system_prompt = "Of the class."

        def begin(self) -> Message:
            self.system_prompt = "Be brief."
            return USER

    codec, judge = ChatCodec(tokenizer), Judge()
    opening = [SYSTEM, USER, ASSISTANT, Message("user", "Which of all?")]
    for env, seen in ((Telling, opening), (Setting, [SYSTEM, USER])):
        trajectory = played(env, codec, judge)
        assert trajectory.messages[: len(seen)] == judge.asked[-1].messages[: len(seen)] == seen
        assert trajectory.tokens[: trajectory.replies[0].start] == codec.prompt(seen)
    observation, _ = Telling().reset(seed=0, options={"only": "auth"})
    assert observation == "Hello.\n\nHi.\n\nWhich of {'only': 'auth'}?"


class Quiz(llmgym.TextEnv):
    """Two questions, each with a reward of its own, and a goodbye."""

    max_turns = 3

    def begin(self) -> str:
        return "One?"

    def respond(self, action: str) -> llmgym.Outcome:
        if len(self.episode.turns) == 1:
            return llmgym.Outcome("Right. Two?", reward=0.25, parts={"right": 1.0})
        return llmgym.Outcome([Message("tool", "closed"), Message("user", "Bye.")], 0.5, {"right": 1.0}, over=True)

    def score(self, episode: llmgym.Episode) -> dict[str, float]:
        assert [turn.reward for turn in episode.turns] == [0.25, 0.5]
        return {"brief": 1.0}


def test_a_reply_earns_at_once_and_the_score_comes_on_top() -> None:
    env = Quiz()
    env.reset(seed=0)
    assert env.step("1") == ("Right. Two?", 0.25, False, False, {"right": 1.0})
    assert env.step("2") == ("closed\n\nBye.", 1.5, True, False, {"success": 1.0, "brief": 1.0, "right": 2.0})
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("3")


def test_rewards_of_turns_and_last_words_reach_the_trajectory_whoever_scores(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    codec, judge = ChatCodec(tokenizer), Judge()
    own, judged = played(Quiz, codec), played(Quiz, codec, judge)
    assert [reply.reward for reply in own.replies] == [0.25, 1.5]
    assert (own.score, own.parts) == (1.75, {"success": 1.0, "brief": 1.0, "right": 2.0})
    assert own.messages[-3:] == [
        Message("assistant", codec.text([50])),
        Message("tool", "closed"),
        Message("user", "Bye."),
    ]
    assert own.tokens[-2:] == [50, codec.end_token]
    assert [reply.reward for reply in judged.replies] == [0.25, 2.5]
    assert judged.score == 2.75
    judge.kind = "log_odds"  # a comparison is no sum
    compared = played(Quiz, codec, judge)
    assert ([reply.reward for reply in compared.replies], compared.score) == ([0.0, 2.0], 2.0)


def test_an_episode_that_is_cut_off_keeps_what_its_turns_earned() -> None:
    class Endless(Quiz):
        max_turns = None

        def respond(self, action: str) -> llmgym.Outcome:
            return llmgym.Outcome("Go on.", reward=0.25)

        def score(self, episode: llmgym.Episode) -> dict[str, float]:
            return {"brief": 1.0}

    envs = llmgym.TextVectorEnv([lambda: gymnasium.wrappers.TimeLimit(Endless(), 2)])
    envs.reset_one(0, seed=0)
    results = [envs.step_one(0, "x") for _ in range(2)]
    assert [(result.reward, result.truncated) for result in results] == [(0.25, False), (1.25, True)]


@pytest.mark.parametrize("said", ["Time is up.", ()])
def test_an_outcome_can_say_that_a_limit_cut_the_episode_off(said: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    class Timed(Quiz):
        def respond(self, action: str) -> llmgym.Outcome:
            return llmgym.Outcome(said, reward=0.25, truncated=True)

        def score(self, episode: llmgym.Episode) -> float:
            return 1.0

    env = Timed()
    env.reset(seed=0)
    assert env.step("1") == ("Time is up." if said else "", 1.25, False, True, {"success": 1.0})
    assert not env.under_way
    trajectory = played(Timed, ChatCodec(tokenizer))
    assert (trajectory.ending, trajectory.score) == ("truncated", 1.25)


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (llmgym.Outcome("x", over=True, truncated=True), "Quiz.respond returned an Outcome that is over and truncated"),
        (llmgym.Outcome("x", reward=float("nan")), "Quiz.respond has to return a finite number as reward"),
        (llmgym.Outcome("x", parts={"a": None}), r"Quiz.respond\['a'\]"),  # type: ignore[dict-item]
        (llmgym.Outcome(reward=1.0), "Quiz.respond has to return a string, or messages"),
        (llmgym.Outcome(3, over=True), "Quiz.respond has to return a string, or messages"),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_outcome_is_refused(outcome: llmgym.Outcome, message: str) -> None:
    env = Quiz()
    env.respond = lambda action: outcome  # type: ignore[method-assign]
    env.reset(seed=0)
    with pytest.raises(EnvironmentContractError, match=message):
        env.step("x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tool", 5), "a string as content, got int"),
        (("tool", None), "a string as content, got NoneType"),
        (("tool", b"x"), "a string as content, got bytes"),
        (("tool", "x", 3), "a string as name, got int"),
        (("tool", "x", "n", 3), "a string as call_id, got int"),
        (("function", "x"), "one of the roles .* got 'function'"),
    ],
)
def test_a_message_is_made_of_strings(arguments: Any, message: str) -> None:
    with pytest.raises(EnvironmentContractError, match=message):
        Message(*arguments)
