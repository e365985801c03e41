"""`Renderer`: a tokenizer's chat template as it is, and what it puts around what is said."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, Undefined

from llmgym.errors import ModelError
from llmgym.rollout.run_time import run_time
from llmgym.types import Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\N{OBJECT REPLACEMENT CHARACTER}"
_SPLIT = re.compile(f"{_MARK}(\\d){_MARK}")
_OF_TOOLS = {"name": "name", "tool_call_id": "call_id"}  # what a tool's message may lack: for templates, and for users


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
        self.source = self._source()

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
            (_ToolMessage if role == "tool" else dict)(role=role, content=content, **name)
            for role, content, name in zip(roles, said, names or [{}] * len(roles), strict=True)
        ]
        try:
            text = self.tokenizer.apply_chat_template(
                chat,
                tools=[dict(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=generate,
                strftime_now=self.now.strftime,
            )
        except Exception as error:  # a template is a program that can raise anything
            what = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
            raise ModelError(f"The chat template of {self.name!r} does not render: {what}{error}") from error
        return str(text)

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

    def _source(self) -> str:
        """Return the template's source."""
        if self.tokenizer.chat_template is None:
            raise ModelError(
                f"The tokenizer of {self.name!r} has no chat template: "
                "expected a chat_template.jinja or a chat_template in its tokenizer_config.json."
            )
        try:
            return str(self.tokenizer.get_chat_template())
        except Exception as error:  # several templates, none of them the default
            raise ModelError(f"The tokenizer of {self.name!r} has no chat template that fits: {error}") from error


class _ToolMessage(dict[str, Any]):
    """A tool's message, which refuses to show what it lacks; a template may still ask whether it is there."""

    def __missing__(self, key: str) -> Undefined:
        if key not in _OF_TOOLS:
            raise KeyError(key)
        expected = f"expected Message('tool', ..., {_OF_TOOLS[key]}='...'), got one without"
        return _Lacking(hint=f"it shows the {key} of a tool's message: {expected}")

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if default is None and key in _OF_TOOLS else super().get(key, default)


class _Lacking(Undefined):
    """What a message lacks; as a text it is an error."""

    def __str__(self) -> str:
        self._fail_with_undefined_error()


def mark(i: int) -> str:
    """Return what stands for the content of the i-th message where a template is looked at."""
    return f"{_MARK}{i}{_MARK}"


def is_mark(content: str) -> bool:
    """Tell whether a content is what `mark` returns."""
    return _SPLIT.fullmatch(content) is not None


def marks(roles: Sequence[Role]) -> list[str]:
    """Return what stands for the contents of a conversation where a template is looked at."""
    return [mark(i) for i in range(len(roles))]
