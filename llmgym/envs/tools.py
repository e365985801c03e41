"""Tools: typed functions with a docstring that an agent can call."""

import asyncio
import inspect
import re
import traceback
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pydantic
from pydantic_core import to_json

from llmgym.calls import Action, BadCall, Call, Schema, Schemas, is_id, made_id
from llmgym.envs.waiting import WaitingRoom, awaited, then, together
from llmgym.errors import EnvironmentContractError, did_you_mean
from llmgym.scorers.pointwise import finite
from llmgym.scorers.pointwise import named as named_parts
from llmgym.types import Message, Outcome, as_text, well_formed


class Tool:
    """A function that an agent can call, with what the agent is told of it.

    Args:
        function: A plain function, method or coroutine function. Every argument has a type, and the docstring says
            what it does; an ``Args:`` section, as Google writes it, describes the arguments. What it returns is the
            tool's answer: a text as it is, anything else as JSON, an `Outcome` for more.
        schema: What the agent is told of the function, if not what its types and docstring say. The function is then
            called with whatever arguments the agent gives, and raises an exception if they do not fit.

    Raises:
        EnvironmentContractError: It lacks types or a docstring, or takes arguments without a name.

    Example:
        >>> def add(a: int, b: int = 1) -> int:
        ...     '''Add two numbers.
        ...
        ...     Args:
        ...         a: The first one.
        ...         b: The second one.
        ...     '''
        ...     return a + b
        >>> Tool(add).schema["function"]["parameters"]["properties"]["a"]
        {'description': 'The first one.', 'type': 'integer'}
    """

    def __init__(self, function: Callable[..., Any], *, schema: Schema | None = None) -> None:
        if not inspect.isroutine(function):
            raise EnvironmentContractError(f"A tool is a function or a method, got {function!r:.80}.")
        self.function = function
        self.waits = inspect.iscoroutinefunction(inspect.unwrap(function))
        self._takes: type[pydantic.BaseModel] | None = None
        self._given = schema
        if schema is None:
            self._takes, schema = _described(function)
        self.schema: Schema = schema
        """Name, description and the JSON schema of the arguments."""
        self.name = _name(self.schema)

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        """Call it.

        Raises:
            ToolError: The arguments do not fit.
        """
        if self._takes is None:
            return self.function(**arguments)
        try:
            taken = self._takes.model_validate(dict(arguments))
        except pydantic.ValidationError as error:
            raise ToolError(f"{self.name}: {_what_is_wrong(error)}") from None
        fields = type(taken).model_fields
        # Defaults too: those that can change are copied, so nothing is handed on from one call to another.
        return self.function(**{str(field.alias): getattr(taken, key) for key, field in fields.items()})

    def __reduce__(self) -> tuple[Callable[..., "Tool"], tuple[Callable[..., Any], Schema | None]]:
        """Return what it is made of anew, for pickle: its class of arguments has no module."""
        return _made_again, (self.function, self._given)


def _made_again(function: Callable[..., Any], schema: Schema | None) -> Tool:
    return Tool(function, schema=schema)


class ToolError(Exception):
    """A call that a tool cannot answer; its agent is told why."""


class Toolbox:
    """The tools of an environment, and how calls of them are answered.

    No call raises an exception: what is wrong with one is its answer.

    Args:
        functions: The tools, see `Tool`.
        owner: Whose they are; functions of its class become its methods.
        timeout: Seconds that a call may take; None for no limit.
    """

    def __init__(self, functions: Sequence[Callable[..., Any] | Tool], owner: object, timeout: float | None) -> None:
        if not isinstance(functions, list | tuple):
            raise EnvironmentContractError(
                f"{type(owner).__name__}.tools: expected a list or a tuple of functions, got {functions!r:.80}."
            )
        self.made_of = (tuple(functions), timeout)
        """The functions and the limit."""
        made = [one if isinstance(one, Tool) else Tool(_bound(one, owner)) for one in functions]
        self._tools = {tool.name: tool for tool in made}
        self._timeout = timeout
        if len(self._tools) < len(made):
            names = [tool.name for tool in made]
            raise EnvironmentContractError(f"Two tools of {type(owner).__name__} have the same name: {names}.")

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._tools)

    @property
    def schemas(self) -> Schemas:
        """What the agent is told of them."""
        return tuple(tool.schema for tool in self._tools.values())

    @property
    def waits(self) -> bool:
        """Whether one of them is a coroutine, or may not take as long as it likes."""
        return self._timeout is not None or any(tool.waits for tool in self._tools.values())

    def answer(self, action: Action, first: int) -> Outcome | Awaitable[Outcome]:
        """Answer the calls in a reply, one message each; coroutines wait side by side, all others are called in order.

        Args:
            action: What the agent asked for.
            first: Calls that the episode had before: those without an id are numbered on from there.
        """
        named = [_named(call, first + i) for i, call in enumerate(action.calls)]
        return then(together([self._result(call) for call in action.calls]), lambda results: _outcome(named, results))

    def _result(self, call: Call) -> Any:
        """Return what a call gives, an awaitable or an error."""
        if isinstance(call, BadCall):
            return ToolError(f"this call cannot be read: {call.error}")
        tool = self._tools.get(call.name)
        if tool is None:
            hint = did_you_mean(call.name, self._tools)
            return ToolError(f"there is no tool {call.name!r:.80}.{hint} Tools: {', '.join(self._tools)}")
        if self._timeout is not None and not tool.waits:
            return self._waited_for(tool.name, _in_a_thread(tool, call.arguments))
        try:
            result = tool(call.arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever a tool raises is its answer
            return error
        return self._waited_for(tool.name, result) if inspect.isawaitable(result) else result

    async def _waited_for(self, name: str, result: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout) as clock:
                return await awaited(result)
        except TimeoutError as error:
            return ToolError(f"{name} took longer than {self._timeout:g} s") if clock.expired() else error
        except Exception as error:  # noqa: BLE001  # whatever a tool raises is its answer
            return error


async def _in_a_thread(tool: Tool, arguments: Mapping[str, Any]) -> Any:
    async with WaitingRoom(1, patience=0) as room:
        return await awaited(await room.call(tool, arguments))


def _bound(function: Callable[..., Any], owner: object) -> Callable[..., Any]:
    """Return a function of an object's class as its method, which a subclass may override, any other as it is."""
    name = getattr(function, "__name__", "")
    if any(vars(one).get(name) is function for one in type(owner).__mro__):
        return typing.cast(Callable[..., Any], getattr(owner, name))
    return function


def _named(call: Call, number: int) -> tuple[str, str]:
    """Return the name and the id that the answer to a call refers to."""
    if isinstance(call, BadCall):
        return "tool", made_id(number)
    return call.name, call.id if is_id(call.id) else made_id(number)


def _outcome(named: Sequence[tuple[str, str]], results: Sequence[Any]) -> Outcome:
    """Make what tools gave into messages, what they earned, and how many calls failed."""
    outcomes = [one for one in results if isinstance(one, Outcome)]
    told = [_told(one) for one in results]
    parts = counted(len(told), sum(failed for _, failed in told))
    for outcome in outcomes:
        for name, part in named_parts(outcome.parts, "a tool").items():
            parts[name] = parts.get(name, 0.0) + part
    said = [Message("tool", text, name, id) for (name, id), (text, _) in zip(named, told, strict=True)]
    reward = sum(finite(one.reward, "a tool", what="reward") for one in outcomes)
    return Outcome(said, reward, parts, any(one.over for one in outcomes))


def counted(calls: int, failures: int) -> dict[str, float]:
    """Return how many calls there were, and how many of them failed, as parts of a report."""
    return {"tools/calls": float(calls), "tools/failures": float(failures)}


def _told(result: Any) -> tuple[str, bool]:
    """Return what a tool gave as the text of its answer, and whether the call failed."""
    if not isinstance(result, BaseException):
        try:
            return _text(result), False
        except Exception as error:  # noqa: BLE001  # it may be an object of any kind
            result = error
    what = str(result) if isinstance(result, ToolError) else "".join(traceback.format_exception_only(result)).strip()
    return to_json({"error": well_formed(what)}).decode(), True


def _text(result: Any) -> str:
    """Return what a tool gave as text."""
    if isinstance(result, Outcome):
        result = result.said if result.said != () else ""
    if isinstance(result, Message):
        result = [result]
    if isinstance(result, list | tuple) and result and all(isinstance(one, Message) for one in result):
        return as_text(result)
    if isinstance(result, bytes):
        return result.decode("utf-8", "replace")
    return result if isinstance(result, str) else to_json(result, fallback=_known, inf_nan_mode="constants").decode()


def _known(value: Any) -> Any:
    """Return numbers and arrays of NumPy and torch as Python's, and anything else that is no JSON as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _arguments(function: Callable[..., Any], name: str) -> type[pydantic.BaseModel]:
    """Return what checks the arguments of a function and describes them; its fields have their names as aliases."""
    hints = typing.get_type_hints(function, include_extras=True)
    about, described = _documented(function)
    fields: dict[str, Any] = {}
    for number, one in enumerate(inspect.signature(function).parameters.values()):
        if one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) or one.name not in hints:
            raise EnvironmentContractError(f"Tool {name}: expected arguments with a name and a type, got {one}.")
        default = ... if one.default is one.empty else one.default
        field = pydantic.Field(default, alias=one.name)
        if one.name in described:
            field = pydantic.Field(default, alias=one.name, description=described[one.name])
        fields[f"argument_{number}"] = (hints[one.name], field)
    if not about:
        raise EnvironmentContractError(f"Tool {name}: expected a docstring that says what it does, got none.")
    return pydantic.create_model(name, __config__=pydantic.ConfigDict(extra="forbid"), **fields)


def _described(function: Callable[..., Any]) -> tuple[type[pydantic.BaseModel], Schema]:
    """Return what checks the arguments of a function, and what its types and docstring say."""
    name = function.__name__
    about, _ = _documented(function)
    try:
        takes = _arguments(function, name)
        parameters = takes.model_json_schema()
    except (pydantic.errors.PydanticUserError, NameError) as error:
        what = str(error).partition("\n")[0]
        raise EnvironmentContractError(f"Tool {name}: expected types that JSON has values of: {what}") from error
    del parameters["additionalProperties"]
    named = parameters.pop("$defs", {})
    told = {"name": name, "description": about, "parameters": _plain(parameters, named)}
    return takes, {"type": "function", "function": told}


def _name(schema: Schema) -> str:
    """Return the name that a schema gives a tool."""
    told = schema.get("function")
    name = told.get("name") if isinstance(told, Mapping) else None
    if isinstance(name, str) and not re.fullmatch(r"[\w.-]+", name):
        raise EnvironmentContractError(f"Tool {name!r}: expected a name of letters, digits and underscores.")
    if not isinstance(name, str):
        raise EnvironmentContractError(
            f"""A tool's schema is {{"type": "function", "function": {{"name": ...}}}}, got {schema!r:.80}."""
        )
    return name


def _documented(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return what a docstring in Google's style says of a function, and of each of its arguments."""
    about, *sections = re.split(r"\n\s*\n(?=\w+:\n)", inspect.getdoc(function) or "")
    described = {}
    for section in sections:
        if section.startswith("Args:\n"):
            for item in re.split(r"\n(?=\S)", inspect.cleandoc(section.removeprefix("Args:\n"))):
                name, _, text = item.partition(":")
                described[name.partition("(")[0].strip()] = " ".join(text.split())
    return " ".join(about.split()), described


def _plain(schema: Any, named: Mapping[str, Any], within: tuple[str, ...] = ()) -> Any:
    """Return a JSON schema as models know them: without titles, and with named types written out.

    Args:
        schema: As pydantic makes it.
        named: Its named types.
        within: Those that are being written out; one that holds itself is not written out again, but may be anything.
    """
    if isinstance(schema, list):
        return [_plain(one, named, within) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        name = reference.removeprefix("#/$defs/")
        described = {key: value for key, value in schema.items() if key != "$ref"}
        found = {} if name in within else _plain(named[name], named, (*within, name))
        return {**found, **_plain(described, named, within)}
    titled = isinstance(schema.get("title"), str)
    return {key: _plain(one, named, within) for key, one in schema.items() if not (key == "title" and titled)}


def _what_is_wrong(error: pydantic.ValidationError) -> str:
    found = []
    for one in error.errors(include_url=False):
        place = ".".join(map(str, one["loc"]))
        got = "" if one["type"] in ("missing", "extra_forbidden") else f", got {one['input']!r:.80}"
        found.append(f"{place}: {one['msg']}{got}")
    return "; ".join(found)
