"""`Renderer`: a tokenizer's chat template as it is, rendered in a process of its own, and what it puts around texts."""

import contextlib
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmgym.errors import ModelError
from llmgym.rollout.run_time import run_time
from llmgym.rollout.template_child import SECONDS
from llmgym.types import Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\N{OBJECT REPLACEMENT CHARACTER}"
_KEPT = 128  # texts; siblings ask for the same ones, so nine of ten that a step asks for are among them
_CHILD = Path(__file__).with_name("template_child.py")
_SPLIT = re.compile(f"{_MARK}(\\d){_MARK}")


class Renderer:
    """A tokenizer's chat template, applied to roles and contents as they are.

    Args:
        tokenizer: Its owner.

    Raises:
        ModelError: There is no template, or several and none of them is the default.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self.name = tokenizer.name_or_path
        self.now = run_time()
        """What the template is told if it asks for the time."""
        self._beyond: str | None = None  # why the template is not asked again
        self.source = self._template()

    def render(
        self,
        roles: Sequence[Role],
        said: Sequence[str],
        generate: bool = True,
        names: Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Return a conversation as text, up to where the next reply begins if `generate`.

        Args:
            roles: Who says each message.
            said: What it says.
            generate: Whether the next reply is begun.
            names: What else the template is told of each message, such as the ``name`` of a tool.
            tools: The JSON schemas of the tools that can be called.
        """
        chat = [
            {"role": role, "content": content, **name}
            for role, content, name in zip(roles, said, names or [{}] * len(roles), strict=True)
        ]
        if self._beyond is not None:
            raise ModelError(self._beyond)
        try:
            return template_sandbox().render(
                self._template(tools),
                self.now.isoformat(),
                chat,
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=generate,
                **self.tokenizer.special_tokens_map,
            )
        except Exception as error:  # a template is a program that can raise anything
            what = str(error) if isinstance(error, TemplateFailedError) else f"{type(error).__name__}: {error}"
            refusal = f"The chat template of {self.name!r} does not render: {what:.500}"
            self._beyond = refusal if isinstance(error, BeyondBoundsError) else None
            raise ModelError(refusal) from error

    def pieces(self, roles: Sequence[Role], *, generate: bool = True) -> tuple[list[str], list[int]]:
        """Render a conversation and cut it at its contents.

        Returns:
            The text before, between and after them, and which message each is: a system
            message need not be where it was given.
        """
        pieces = _SPLIT.split(self.render(roles, marks(roles), generate))
        shown = [int(i) for i in pieces[1::2]]
        hidden = {role for i, role in enumerate(roles) if i not in shown}
        if hidden:
            whose = "assistant's replies" if "assistant" in hidden else "user's messages"
            raise ModelError(f"The chat template of {self.name!r} does not show the {whose}.")
        return pieces[::2], shown

    def _template(self, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """Return the template's source; there may be another one for conversations with tools."""
        if self.tokenizer.chat_template is None:
            raise ModelError(
                f"The tokenizer of {self.name!r} has no chat template: "
                "expected a chat_template.jinja or a chat_template in its tokenizer_config.json."
            )
        try:
            found: object = self.tokenizer.get_chat_template(tools=list(tools) or None)
        except Exception as error:  # several templates, none of them the default
            raise ModelError(f"The tokenizer of {self.name!r} has no chat template that fits: {error}") from error
        if not isinstance(found, str):
            raise ModelError(f"The chat template of {self.name!r} is no text: expected Jinja, got {found!r:.80}")
        return found


def mark(i: int) -> str:
    """Return what stands for the content of the i-th message where a template is looked at."""
    return f"{_MARK}{i}{_MARK}"


def is_mark(content: str) -> bool:
    """Tell whether a content is what `mark` returns."""
    return _SPLIT.fullmatch(content) is not None


def marks(roles: Sequence[Role]) -> list[str]:
    """Return what stands for the contents of a conversation where a template is looked at."""
    return [mark(i) for i in range(len(roles))]


class TemplateFailedError(Exception):
    """A template does not render a conversation; the text says why."""


class BeyondBoundsError(TemplateFailedError):
    """A template takes more than it may have, or cannot be compiled: there is no use in asking again."""


class TemplateSandbox:
    """A process that renders chat templates. It starts with the first one and ends with this one; threads take turns.

    In it nothing of this process can be reached, and what a template takes of time and memory it takes from no one
    else. If it dies, the next request starts another one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._text = functools.lru_cache(_KEPT)(self._asked)

    def render(self, source: str, now: str, messages: Sequence[Mapping[str, Any]], **told: Any) -> str:
        """Return what a template makes of a conversation.

        Args:
            source: Of the template.
            now: What time it is told, in ISO 8601.
            messages: As it is given them.
            told: What else it is given, as JSON has it.

        Raises:
            BeyondBoundsError: The template took too much time or memory, made too long a text, or is none.
            TemplateFailedError: It raised an exception.
        """
        request = {"template": _name(source), "now": now, "messages": messages, **told}
        return self._text(source, json.dumps(request))

    def _asked(self, source: str, request: str) -> str:
        with self._lock:
            try:
                answer = self._exchange(request)
                if "lacks" in answer:
                    answer = self._exchange(json.dumps({"template": _name(source), "source": source}))
                    answer = self._exchange(request) if "text" in answer else answer
            except BaseException:  # an interrupt, too: what is still under way would answer the next request
                self._end()
                raise
        if "beyond" in answer:
            raise BeyondBoundsError(answer["beyond"])
        if "error" in answer:
            raise TemplateFailedError(answer["error"])
        return answer["text"]

    def _exchange(self, request: str) -> dict[str, str]:
        if self._process is None or self._process.poll() is not None:  # somebody ended it
            self._end()
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONHASHSEED": "0"},  # sets have the same order in each run
                start_new_session=True,  # Ctrl-C is for the run, which may still have to render
            )
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        with contextlib.suppress(BrokenPipeError):  # it has died, and there is nothing to read
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
        if answer := self._process.stdout.readline():
            found: dict[str, str] = json.loads(answer)
            return found
        code = self._end()
        if code == -signal.SIGPROF:
            raise BeyondBoundsError(f"it takes more than {SECONDS:g} s of processor time")
        raise BeyondBoundsError(f"the process that rendered it died with exit code {code}")

    def _end(self) -> int:
        """Kill the process, if there is one; return how it ended."""
        if self._process is None:
            return 0
        self._process.kill()
        with contextlib.suppress(BrokenPipeError), self._process:  # which closes the pipes and waits
            pass
        code, self._process = self._process.returncode, None
        return code


def template_sandbox() -> TemplateSandbox:
    """Return the sandbox of this process; a fork of it gets another one."""
    return _sandbox(os.getpid())


@functools.cache
def _sandbox(_: int) -> TemplateSandbox:
    return TemplateSandbox()


@functools.lru_cache
def _name(source: str) -> str:
    """Return what a template is called on the way to where it is rendered."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
