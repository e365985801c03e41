"""Tools of environments: what an agent is told of them, and that no call of one can do harm."""

import asyncio
import copy
import enum
import json
import pickle
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
import pydantic
import pytest
from transformers.utils import get_json_schema

from llmgym import Episode, Message, Outcome, TextEnv, Tool, ToolCall, calling, check_env, register_env
from llmgym.calls import ActionLike, read_calls
from llmgym.envs.vector import TextVectorEnv
from llmgym.envs.waiting import WaitingRoom, run
from llmgym.errors import EnvironmentContractError


def search(query: str, limit: int = 3, within: list[str] | None = None) -> str:
    """Search the logs
    of a service.

    Args:
        query: What to look for,
            in any case.
        limit: Lines at most.
        within: Services to look at.

    Returns:
        The lines.
    """
    return f"{query} {limit} {within}"


def order(kind: Literal["tea", "coffee"], sizes: dict[str, int], hot: bool, price: float = 2.5) -> dict[str, Any]:
    """Order something to drink.

    Args:
        kind: What it is.
        sizes: How many of each size.
        hot: Whether it is hot.
        price: At most.
    """
    return {"kind": kind, "sizes": sizes, "hot": hot, "price": price}


async def wait(seconds: float) -> str:
    """Wait.

    Args:
        seconds: How long.
    """
    time.sleep(0)
    return f"waited {seconds:g}"


class Till(pydantic.BaseModel):
    """A till."""

    coins: int = 0


@register_env("Calculator-v0")
class Calculator(TextEnv):
    """Adds three numbers with a tool that takes two."""

    max_turns = 6

    def add(self, a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: The first one.
            b: The second one.
        """
        self.sums.append((a, b))
        return a + b

    tools: Sequence[Callable[..., Any] | Tool] = [add, search, wait]

    def begin(self) -> str:
        self.sums: list[tuple[int, int]] = []
        numbers = [int(n) for n in self.np_random.integers(10, 99, 3)]
        self.episode.task = numbers
        return f"{numbers[0]} + {numbers[1]} + {numbers[2]} = ?"

    def score(self, episode: Episode) -> float:
        return float(episode.actions[-1] == str(sum(episode.task)))

    def expert(self) -> Iterator[ActionLike]:
        first, second, third = self.episode.task
        yield [ToolCall("add", {"a": first, "b": second}), ToolCall("wait", {"seconds": 0})]
        yield ToolCall("add", {"a": first + second, "b": third})
        yield str(first + second + third)


def answers(env: TextEnv, action: str) -> list[str]:
    """Reply, and return what the tools answer."""
    env.step(action)
    assert {message.role for message in env.heard} == {"tool"}
    return [message.content for message in env.heard]


@pytest.fixture
def env() -> TextEnv:
    made = gymnasium.make("Calculator-v0").unwrapped
    assert isinstance(made, TextEnv)
    made.reset(seed=0)
    return made


# What the agent is told.


@pytest.mark.parametrize("function", [search, order, wait])
def test_a_schema_says_what_that_of_transformers_says(function: Callable[..., Any]) -> None:
    ours, theirs = Tool(function).schema["function"], get_json_schema(function)["function"]
    assert ours["name"] == theirs["name"]
    assert ours["description"].split() == theirs["description"].split()
    assert ours["parameters"].get("required") == theirs["parameters"].get("required")
    for name, schema in theirs["parameters"]["properties"].items():
        mine = ours["parameters"]["properties"][name]
        assert mine["description"].split() == schema["description"].split()
        assert mine.get("enum") == schema.get("enum")
        kinds = {one["type"] for one in mine["anyOf"]} - {"null"} if "anyOf" in mine else {mine["type"]}
        assert kinds == {schema["type"]}


def test_a_schema_has_no_titles_but_those_of_arguments() -> None:
    def sell(title: str, till: Till) -> None:
        """Sell something."""

    parameters = Tool(sell).schema["function"]["parameters"]
    assert parameters["properties"]["title"] == {"type": "string"}
    assert "title" not in parameters
    assert "title" not in parameters["properties"]["till"]


def _untyped(a, b: int) -> None:  # type: ignore[no-untyped-def]  # which is what is refused
    """Do something."""


def _silent(a: int) -> None: ...


def _any_number(*numbers: int) -> None:
    """Add numbers."""


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (_untyped, r"Tool _untyped: expected arguments with a name and a type, got a"),
        (_silent, r"Tool _silent: expected a docstring that says what it does"),
        (_any_number, r"Tool _any_number: expected arguments with a name and a type, got \*numbers: int"),
        (object(), r"A tool is a function or a method, got <object"),
    ],
)
def test_a_function_that_says_too_little_is_refused(function: Any, expected: str) -> None:
    with pytest.raises(EnvironmentContractError, match=expected):
        Tool(function)


def test_two_tools_of_one_name_are_refused() -> None:
    class Twice(TextEnv):
        tools = (search, search)

        def begin(self) -> str:
            return "."

    with pytest.raises(EnvironmentContractError, match="Two tools of Twice have the same name"):
        Twice().reset()


class Size(enum.Enum):
    """Of a cup."""

    SMALL = "small"


class Tree(pydantic.BaseModel):
    """Holds itself."""

    below: list["Tree"] = []


def test_named_types_are_written_out_and_those_that_hold_themselves_once() -> None:
    def pour(size: Size, tree: Tree) -> None:
        """Pour."""

    properties = Tool(pour).schema["function"]["parameters"]["properties"]
    assert properties["size"] == {"description": "Of a cup.", "type": "string", "enum": ["small"]}
    assert properties["tree"]["properties"]["below"]["items"] == {}
    assert "$ref" not in json.dumps(properties)


def test_an_annotation_describes_an_argument_too() -> None:
    def count(a: Annotated[int, pydantic.Field(ge=0, description="How many.")]) -> None:
        """Count."""

    shown = Tool(count).schema["function"]["parameters"]["properties"]["a"]
    assert shown == {"type": "integer", "minimum": 0, "description": "How many."}


def _odd(a: Callable[[int], int]) -> None:
    """Do something."""


def _unknown(a: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821  # which is what is refused
    """Do something."""


@pytest.mark.parametrize("function", [_odd, _unknown])
def test_types_that_json_does_not_have_are_refused(function: Any) -> None:
    with pytest.raises(EnvironmentContractError, match=f"Tool {function.__name__}: expected types that JSON has"):
        Tool(function)


@pytest.mark.parametrize("tools", [search, None, (one for one in [search])])
def test_tools_that_are_no_list_of_functions_are_refused(tools: Any) -> None:
    made = type("Odd", (Shop,), {"tools": tools})()
    with pytest.raises(EnvironmentContractError, match=r"Odd.tools: expected a list or a tuple of functions, got"):
        made.reset()


def test_a_tool_is_pickled_as_what_it_is_made_of() -> None:
    assert pickle.loads(pickle.dumps(Tool(search))).schema == Tool(search).schema


# What calls come to.


def test_an_environment_with_tools_keeps_its_promises() -> None:
    check_env(gymnasium.make("Calculator-v0"))


def test_calls_of_one_reply_are_answered_in_order_each_with_its_id(env: TextEnv) -> None:
    env.step(calling(ToolCall("add", {"a": 1, "b": 2}, "abcdefgh1"), ToolCall("wait", {"seconds": 0.5})))
    assert list(env.heard) == [
        Message("tool", "3", "add", "abcdefgh1"),
        Message("tool", "waited 0.5", "wait", "call00001"),
    ]
    env.step(calling(ToolCall("add", {"a": 1, "b": 2})))
    assert env.heard[0].call_id == "call00002"


def test_who_plays_by_hand_writes_calls_as_text(env: TextEnv) -> None:
    assert answers(env, 'I add.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>') == ["3"]


def test_a_reply_without_calls_is_the_environments_to_answer(env: TextEnv) -> None:
    _, _, terminated, _, info = env.step("no idea")
    assert terminated
    assert info["tools/calls"] == info["tools/failures"] == 0.0


def test_arguments_are_what_their_types_say() -> None:
    call = {"kind": "tea", "sizes": {"small": "2"}, "hot": "true"}
    assert Tool(order)(call) == {"kind": "tea", "sizes": {"small": 2}, "hot": True, "price": 2.5}


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (calling(ToolCall("add", {"a": "x", "b": 2})), "add: a: Input should be a valid integer.*got 'x'"),
        (calling(ToolCall("add", {"a": 1})), "add: b: Field required"),
        (calling(ToolCall("add", {"a": 1, "b": 2, "c": 3})), "add: c: Extra inputs are not permitted"),
        (calling(ToolCall("ad", {"a": 1, "b": 2})), "there is no tool 'ad'. Did you mean 'add'\\? Tools: add, search"),
        ('<tool_call>\n{"name": "add", "arg', "this call cannot be read: expected </tool_call>"),
        ("<tool_call>add(1, 2)</tool_call>", "this call cannot be read: expected one JSON object"),
        ('<tool_call>{"name": 3}</tool_call>', "this call cannot be read: expected a JSON object such as"),
        ("<tool_call>[1]</tool_call>", "this call cannot be read: expected a JSON object such as"),
        ('<tool_call>{"name": "add", "arguments": NaN}</tool_call>', "this call cannot be read"),
        ('<tool_call>{"name": "add", "arguments": {"a": 1, "a": 2}}</tool_call>', "this call cannot be read"),
        (f"<tool_call>{'[' * 9999}{']' * 9999}</tool_call>", "this call cannot be read"),
        (f'<tool_call>{{"name": "add", "arguments": {{"a": {"[" * 99}{"]" * 99}}}}}</tool_call>', "at most 64 values"),
        ('<tool_call>{"name": "a\\ud800", "arguments": {}}</tool_call>', "there is no tool 'a\\?'"),
    ],
)
def test_a_call_that_is_wrong_is_answered_with_what_is_wrong(env: TextEnv, action: str, expected: str) -> None:
    _, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info == {"tools/calls": 1.0, "tools/failures": 1.0}
    (answer,) = env.heard
    assert answer.content.startswith('{"error":')
    assert re.search(expected, json.loads(answer.content)["error"])


def test_failures_are_counted_over_an_episode(env: TextEnv) -> None:
    env.step(calling(ToolCall("add", {"a": 1, "b": 2}), ToolCall("none", {})))
    env.step("<tool_call>")
    _, _, _, _, info = env.step("done")
    assert (info["tools/calls"], info["tools/failures"]) == (3.0, 2.0)


class Shop(TextEnv):
    """Has tools that go wrong in every way."""

    tool_timeout = 0.2
    max_turns = 3

    def explode(self) -> None:
        """Raise an exception."""
        raise RuntimeError("the till is stuck")

    async def explode_later(self) -> None:
        """Raise an exception, in a coroutine."""
        raise TimeoutError("the bank is closed")

    def hang(self) -> None:
        """Hang."""
        time.sleep(30)

    def nothing(self) -> None:
        """Return nothing."""

    def odd(self) -> Any:
        """Return what is no JSON."""
        return {"a": float("nan"), "b": object}

    def buy(self) -> Outcome:
        """Buy, which ends the episode."""
        return Outcome("thank you", reward=0.25, parts={"bought": 1.0}, over=True)

    def leave(self) -> None:
        """Leave the program, as a command line does."""
        raise SystemExit(2)

    async def give_up(self) -> None:
        """Cancel."""
        raise asyncio.CancelledError

    def promise(self) -> Any:
        """Return a coroutine without being one."""
        return self.explode_later()

    def read(self) -> bytes:
        """Return bytes."""
        return b"caf\xc3\xa9 \xff"

    def count(self) -> Any:
        """Return numbers of NumPy."""
        return {"a": np.int64(3), "b": np.arange(2)}

    def answer(self) -> Message:
        """Return a message."""
        return Message("tool", "done")

    def endless(self) -> Any:
        """Return what holds itself."""
        found: list[Any] = []
        found.append(found)
        return found

    def add_to(self, basket: list[str] = []) -> list[str]:  # noqa: B006  # as people do
        """Add to a basket."""
        basket.append("tea")
        return basket

    tools = (
        *(explode, explode_later, hang, nothing, odd, buy, leave, give_up, promise, read, count, answer, endless),
        add_to,
    )

    def begin(self) -> str:
        return "What will it be?"

    def score(self, episode: Episode) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("explode", '{"error":"RuntimeError: the till is stuck"}'),
        ("explode_later", '{"error":"TimeoutError: the bank is closed"}'),
        ("hang", '{"error":"hang took longer than 0.2 s"}'),
        ("nothing", "null"),
        ("leave", '{"error":"RuntimeError: SystemExit: 2"}'),
        ("give_up", '{"error":"RuntimeError: CancelledError"}'),
        ("promise", '{"error":"TimeoutError: the bank is closed"}'),
        ("read", "café \ufffd"),
        ("count", '{"a":3,"b":[0,1]}'),
        ("answer", "done"),
    ],
)
def test_a_tool_that_fails_says_so_to_its_agent_and_ends_nothing(name: str, expected: str) -> None:
    env = Shop()
    env.reset(seed=0)
    begun = time.monotonic()
    assert answers(env, calling(ToolCall(name, {}))) == [expected]
    assert time.monotonic() - begun < 10
    assert answers(env, calling(ToolCall("nothing", {}))) == ["null"]


@pytest.mark.parametrize("limit", [None, 5.0])
def test_what_no_future_can_hand_on_is_an_answer_with_and_without_a_limit(limit: float | None) -> None:
    env = Shop()
    env.tool_timeout = limit
    env.reset(seed=0)
    for name in ("leave", "give_up", "promise", "endless"):
        _, _, _, _, info = env.step(calling(ToolCall(name, {})))
        assert info["tools/failures"] >= 1.0
        env.reset(seed=0)


def test_a_default_that_changes_is_the_same_in_the_next_call() -> None:
    env = Shop()
    env.reset(seed=0)
    assert answers(env, calling(*[ToolCall("add_to", {})] * 2)) == ['["tea"]', '["tea"]']


def test_a_subclass_overrides_a_tool_and_an_episode_may_have_its_own() -> None:
    class Other(Shop):
        tool_timeout = None

        def nothing(self) -> str:
            """Return something after all."""
            return "something"

        def begin(self) -> str:
            self.tools = (self.nothing,) if self.np_random.integers(2) else (self.read,)
            return super().begin()

    plain = type("Plain", (Shop,), {"nothing": Other.nothing})()
    plain.reset(seed=0)
    assert answers(plain, calling(ToolCall("nothing", {}))) == ["something"]
    env, seen = Other(), set()
    for seed in range(8):
        env.reset(seed=seed)
        (schema,) = env.toolbox.schemas
        seen.add(schema["function"]["name"])
    assert seen == {"nothing", "read"}


def test_a_call_has_what_json_has_and_nothing_else() -> None:
    call = ToolCall("f", {"a": np.int64(3), "b": (1, np.float32(0.5)), "c": "\ud800"})
    assert call.arguments == {"a": 3, "b": [1, 0.5], "c": "?"}
    with pytest.raises(EnvironmentContractError, match=r"got object"):
        ToolCall("f", {"a": object()})


def test_a_reply_has_at_most_a_thousand_calls_and_they_are_answered(env: TextEnv) -> None:
    call = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
    assert answers(env, call * 1000) == ["3"] * 1000
    *_, last = answers(env, call * 1200)
    assert len(env.heard) == 1001
    assert "at most 1000 calls" in last


def test_what_is_no_json_becomes_text() -> None:
    env = Shop()
    env.reset(seed=0)
    (answer,) = answers(env, calling(ToolCall("odd", {})))
    assert answer.startswith('{"a":NaN,"b":"')


def test_a_tool_can_pay_and_end_the_episode() -> None:
    env = Shop()
    env.reset(seed=0)
    observation, reward, terminated, _, info = env.step(calling(ToolCall("buy", {})))
    assert (observation, reward, terminated) == ("thank you", 1.25, True)
    assert info["bought"] == 1.0


def test_a_hanging_tool_delays_no_other_environment() -> None:
    envs = TextVectorEnv([Shop, Shop])
    envs.reset(seed=0)

    async def both() -> float:
        async with WaitingRoom(2, patience=0) as room:
            calls: list[Awaitable[Any]] = [
                envs.in_turn(room, envs.step_one, 0, calling(ToolCall("hang", {}))),
                envs.in_turn(room, envs.step_one, 1, calling(ToolCall("nothing", {}))),
            ]
            for call in calls:
                await call
        return 0.0

    begun = time.monotonic()
    run(both())
    assert time.monotonic() - begun < 10


def test_the_state_of_an_episode_is_its_own() -> None:
    one, other = (gymnasium.make("Calculator-v0").unwrapped for _ in range(2))
    assert isinstance(one, Calculator)
    assert isinstance(other, Calculator)
    one.reset(seed=0)
    other.reset(seed=1)
    one.step(calling(ToolCall("add", {"a": 1, "b": 2})))
    assert (one.sums, other.sums) == ([(1, 2)], [])
    one.reset(seed=0)
    assert one.sums == []


def test_an_episode_shows_what_was_called(env: TextEnv) -> None:
    call = ToolCall("add", {"a": 1, "b": 2})
    env.step(calling(call, said="I add."))
    assert env.episode.messages[-1] == Message("assistant", "I add.", calls=(call,))
    env.step("<tool_call>{</tool_call>")
    assert env.episode.messages[-1] == Message("assistant", "<tool_call>{</tool_call>")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda action: pickle.loads(pickle.dumps(action))])
def test_an_action_is_copied_with_its_calls(copied: Callable[[Any], Any]) -> None:
    action = calling(ToolCall("add", {"a": 1}), said="so")
    twin = copied(action)
    assert (str(twin), twin.said, twin.calls) == (str(action), "so", action.calls)


def test_a_tag_within_a_string_closes_no_call() -> None:
    action = calling(ToolCall("say", {"text": "</tool_call> <tool_call> {"}), ToolCall("say", {"text": "é"}))
    assert read_calls(str(action)).calls == action.calls
