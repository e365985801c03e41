"""The process in which chat templates are rendered: a template is a program, and anybody may have written it.

It reads requests as lines of JSON and answers each with a line of JSON, until its input ends. It keeps the templates
that it is sent, and asks for one that it does not have. A request may take `SECONDS` of processor time, after which the
kernel ends the process, and `BYTES` of memory. It is a script that imports nothing of llmgym, so it starts in a tenth
of a second.
"""

import json
import resource
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 2.0  # of processor time for one conversation; published templates take less than a thousandth
BYTES = 2**30  # of memory
TEMPLATES = 64  # that are kept
_OF_TOOLS = {"name": "name", "tool_call_id": "call_id"}  # what a tool's message may lack: for templates, and for users
_ADDRESS = " at 0x"  # of an object in memory, as Python writes it


def longest(asked: int) -> int:
    """Return how many characters a conversation may have at most, when what it is made of has so many."""
    return 2**20 + 16 * asked


class _ToolMessage(dict[str, Any]):
    """A tool's message, which refuses to show what it lacks; a template may still ask whether it is there."""

    def __missing__(self, key: str) -> jinja2.Undefined:
        if key not in _OF_TOOLS:
            raise KeyError(key)
        expected = f"expected Message('tool', ..., {_OF_TOOLS[key]}='...'), got one without"
        return _Lacking(hint=f"it shows the {key} of a tool's message: {expected}")

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if default is None and key in _OF_TOOLS else super().get(key, default)


class _Lacking(jinja2.Undefined):
    """What a message lacks; as a text it is an error."""

    def __str__(self) -> str:
        self._fail_with_undefined_error()


class _Generation(jinja2.ext.Extension):
    """The tag that some templates put around what a model says, for libraries that train on nothing else."""

    tags = {"generation"}  # noqa: RUF012  # as jinja declares it

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Return what stands between the tags, called as a macro."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Callable[[], str]) -> str:
        return caller()


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _by_chance(*_: Any, **__: Any) -> None:
    raise jinja2.TemplateError("it asks for something random, so no two episodes of a task would have the same prompt")


def _as_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Return a value as JSON, without the escapes of jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment() -> ImmutableSandboxedEnvironment:
    """Return what templates are compiled by: they find there what they find in transformers, but for chance."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    made.filters |= {"tojson": _as_json, "random": _by_chance}
    made.globals |= {"raise_exception": _raise, "lipsum": _by_chance}
    return made


_ENVIRONMENT = _environment()
_compiled: dict[str, jinja2.Template] = {}


def _compile(template: str, source: str) -> str:
    """Compile a template and keep it under a name, for as long as there is room; return nothing to read."""
    if len(_compiled) >= TEMPLATES:
        _compiled.clear()
    _compiled[template] = _ENVIRONMENT.from_string(source)
    return ""


def _render(template: str, now: str, messages: list[dict[str, Any]], **told: Any) -> str:
    """Render a conversation.

    Args:
        template: The name of one that is kept.
        now: What time it is told, in ISO 8601.
        messages: As it is given them.
        told: What else it is given.
    """
    chat = [_ToolMessage(one) if one["role"] == "tool" else one for one in messages]
    return _compiled[template].render(messages=chat, strftime_now=datetime.fromisoformat(now).strftime, **told)


def _answer(line: bytes) -> dict[str, str]:
    """Return the text that is asked for, or why there is none, and under which name: ``beyond`` if there never is."""
    kind = "error"
    try:
        request = json.loads(line)
        if "source" not in request and request["template"] not in _compiled:
            return {"lacks": "the source"}
        kind = "beyond" if "source" in request else "error"
        text = (_compile if "source" in request else _render)(**request)
        if len(text) > longest(len(line)):
            return {"beyond": f"it makes {len(text):,} characters, expected at most {longest(len(line)):,}"}
        if _ADDRESS in text and _ADDRESS.encode() not in line:
            raise jinja2.TemplateError("it shows where an object is in memory, so no two prompts of a task are alike")
    except jinja2.TemplateError as error:
        return {kind: str(error)}
    except MemoryError:
        return {"beyond": f"it takes more than {BYTES // 2**20:,} MiB of memory"}
    except Exception as error:  # noqa: BLE001  # it is anybody's program
        return {kind: f"{type(error).__name__}: {error}"}
    return {"text": text}


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere there is no such limit
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        answer = json.dumps(_answer(line)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
