"""`ChatTemplate`: messages to text through a tokenizer's chat template, and where in it a reply stands."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmgym.calls import Schemas
from llmgym.errors import ModelError
from llmgym.rollout.control_tokens import ControlTokens
from llmgym.rollout.rendering import Renderer, is_mark, mark, marks
from llmgym.rollout.rewrites import alike, find_rewrites
from llmgym.rollout.tool_format import ToolFormat, called_by, numbered, paired
from llmgym.types import Message, Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOOL = Message("tool", ".", name="tool", call_id="call00001")  # nine letters and digits, as Mistral wants them


class ChatTemplate:
    """A tokenizer's chat template.

    What is said cannot structure the conversation: control tokens spelled out in a message
    are broken up. In a reply only those are that would end it or begin another turn, for a
    reply may hold calls of tools, channels and thinking.

    Args:
        tokenizer: Its owner. If the template refuses a system message or does not show it, its
            text goes before the first user message. If it refuses what users and tools say one after
            another, or does not show it, the user says all of it in one message.
        stop_token_ids: Tokens that end a reply, besides those that the template shows.

    Raises:
        ModelError: There is no template, or it does not fit a conversation of several turns:
            it does not render one, hides replies or shows them as somebody else's, or does not
            open the next one.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", stop_token_ids: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        self._renderer = Renderer(tokenizer)
        self.name, self.now = self._renderer.name, self._renderer.now
        self.control = ControlTokens(tokenizer, self._renderer.source)
        self._turn_tokens: Collection[int] = self.control.ids
        self._template_counts: dict[tuple[tuple[Role, ...], bool, tuple[frozenset[str], ...], str], Counter[int]] = {}
        self._takes: dict[tuple[Role, ...], bool] = {}
        self._takes_system = self._shows_system()
        self._check_replies()
        self.end_token = self._find_end()
        """The token with which it ends a reply, special or not; None if it does so with plain text."""
        self.control.include(stop_token_ids, self.end_token)
        self.end_before_tools = self._first_token(self.bridge([_TOOL]))
        """The token that ends a reply which a tool answers; another one where turns end with what begins the next."""
        self._turn_tokens = self._find_turn_tokens(stop_token_ids)
        self.rewrites = find_rewrites(self)
        """What it does to earlier messages, in words; empty if a conversation only ever grows."""

    def render(self, messages: Sequence[Message], tools: Schemas = (), *, generate: bool = True) -> str:
        """Return a conversation as text, up to where the next reply begins if `generate`.

        Args:
            messages: What was said.
            tools: What can be called.
            generate: Whether the next reply is begun.
        """
        if tools and not self.tool_format.native:
            messages, tools = self.tool_format.declare(messages, tools), ()
        tools = self._harmless_values(tools)
        messages = self._written(messages)
        if messages[0].role == "system" and not self._takes_system:
            messages = self._told_by_the_user(messages)
        messages = self._as_it_takes_them(messages)
        roles = tuple(message.role for message in messages)
        said = [self.harmless(message.content, message.role) for message in messages]
        names = [_named(message, self._harmless_values) for message in messages]
        text = self._renderer.render(roles, said, generate, names, tools)
        # By itself nothing that was said is a control token. What the template makes of it and puts beside it may be.
        replies = [content for role, content in zip(roles, said, strict=True) if role == "assistant"]
        spoken = {found.token for content in replies for found in self.control.find(content)}
        shown = self._count(text, spoken)
        if shown == self._template_count(roles, generate, spoken, names, tools):
            return text
        kept_apart = [content if is_mark(content) else self.control.keep_apart(content) for content in said]
        guarded = self._renderer.render(roles, kept_apart, generate, names, tools)
        return text if shown == self._count(guarded, spoken) else guarded

    def _told_by_the_user(self, messages: Sequence[Message]) -> list[Message]:
        """Put a system prompt, which the template does not show, before what the user says first."""
        system, *others = messages
        user = next((i for i, message in enumerate(others) if message.role == "user"), None)
        if user is None:
            raise ModelError(
                f"The chat template of {self.name!r} shows no system message: expected a user's message to put it in."
            )
        others[user] = Message("user", f"{system.content}\n\n{others[user].content}")
        return others

    def _as_it_takes_them(self, messages: Sequence[Message]) -> list[Message]:
        """Let the user say in one message what users and tools say between replies, where it is not shown as it is."""
        found: list[Message] = []
        for asking, run in itertools.groupby(messages, key=lambda message: message.role in ("user", "tool")):
            said = list(run)
            replies = [one for one in found if one.role == "assistant"]
            before: tuple[Role, ...] = ("user", "assistant") if replies else ()
            roles = (*before, *(message.role for message in said), "assistant", "user")  # a reply has to follow, too
            as_it_is = not asking or self._shows(roles) or (replies and replies[-1].calls and self._answers(said))
            found += said if as_it_is else [Message("user", told(said))]
        return found

    def _answers(self, said: Sequence[Message]) -> bool:
        """Whether the template shows messages as they are after a reply that calls tools."""
        return self.tool_format.native and all(message.role == "tool" for message in said)

    def _shows(self, roles: tuple[Role, ...]) -> bool:
        """Whether messages of such roles are all shown."""
        if roles not in self._takes:
            names = [_named(_TOOL, str) if role == "tool" else {} for role in roles]
            try:
                text = self._renderer.render(roles, marks(roles), names=names)
            except ModelError:
                text = ""
            self._takes[roles] = all(said in text for said in marks(roles))
        return self._takes[roles]

    def written(self, message: Message) -> Message:
        """Return a message whose calls are part of its content, as a model writes them."""
        if not message.calls:
            return message
        return Message("assistant", self.tool_format.content(message.content, message.calls))

    @cached_property
    def tool_format(self) -> ToolFormat:
        """How tools are shown, and calls of them written and read."""
        plain = ToolFormat(self._renderer, self._around_last_reply, self.opening, thinking=self._thinking is not None)
        return plain.find()

    def paired(self, messages: Sequence[Message]) -> list[Message]:
        """Give calls and their answers the same ids, where the template itself shows them."""
        return paired(messages) if self.tool_format.native else list(messages)

    def _written(self, messages: Sequence[Message]) -> list[Message]:
        """Write calls out, but for those that the template itself shows before their answers."""
        if not any(message.calls for message in messages):
            return list(messages)
        messages = self.paired(messages)
        follows = [*(message.role for message in messages[1:]), "tool"]
        return [
            message
            if after == "tool" and not message.content and self.tool_format.shows(message.calls)
            else self.written(message)
            for message, after in zip(messages, follows, strict=True)
        ]

    def _harmless_values(self, value: Any) -> Any:
        """Break up the control tokens in all texts of what a template is told of tools and calls."""
        if isinstance(value, str):
            return self.harmless(value)
        if isinstance(value, Mapping):
            return {self.harmless(str(key)): self._harmless_values(one) for key, one in value.items()}
        return [self._harmless_values(one) for one in value] if isinstance(value, list | tuple) else value

    def harmless(self, content: str, role: Role = "user") -> str:
        """Break up the control tokens spelled out in a message: in a reply only those that end or begin a turn."""
        return self.control.break_up(content, self._turn_tokens if role == "assistant" else None)

    def bridge(self, answer: Sequence[Message]) -> str:
        """Return the text between a reply and the next one, if the environment answers so."""
        return self.around_reply(answer)[1]

    def around_reply(self, answer: Sequence[Message]) -> tuple[str, str]:
        """Return the text up to where a reply has said all, and after that, if the environment answers so."""
        if any(message.role == "tool" for message in answer):
            answer = numbered(answer)
        if answer and answer[0].role == "tool" and self.tool_format.native:
            asked = [Message("user", "."), called_by(answer[0])]
            said = self.render(asked, generate=False).removesuffix(self._around_last_reply[1])
            if (shown := self.render([*asked, *answer])).startswith(said):
                return said, shown.removeprefix(said)
        chat = [Message("user", "."), Message("assistant", mark(1)), *answer]
        before, found, after = self.render(chat).partition(mark(1))
        return before + found, after

    def reply(self, said: str | Message) -> str:
        """Return a written reply as text, from where the generation prompt ends to where the reply has said all.

        It is what the template shows of a reply that ends the conversation. Where that leaves
        something of it out, such as its thinking, it is what was written; where the generation
        prompt opens the thinking, it is closed, and not opened again.
        """
        if not isinstance(said, str) and said.calls and self.tool_format.native:
            return self.harmless(self.tool_format.write(said.content, said.calls), "assistant")
        content = self.harmless(said if isinstance(said, str) else self.written(said).content, "assistant")
        if (shown := self._shown_reply(content)) is not None:
            return shown
        if self._thinking is None:
            return self.padding[0] + content
        opened, closing = self._thinking
        text = content.lstrip()
        if text.startswith(opened.strip()):
            return text.removeprefix(opened.strip()).removeprefix(opened[len(opened.rstrip()) :])
        return content if closing.strip() in content else closing + content

    def only_grows(self, messages: Sequence[Message], said: str | None = None, tools: Schemas = ()) -> bool:
        """Whether the newest reply and its answer stand, as they are, after what stood before the reply.

        Args:
            messages: The conversation; a reply and what the environment answered come last.
            tools: What can be called.
            said: The reply as it is written in the conversation, up to the token that ends it; None
                if it is as it would be written.
        """
        if any(message.calls for message in messages):
            messages = self.paired(messages)
        at = max(i for i, message in enumerate(messages) if message.role == "assistant")
        before, reply, answer = messages[:at], messages[at], messages[at + 1 :]
        padding = self.padding[1]
        newest = self.reply(reply) + padding if said is None else self.harmless(said, "assistant")
        grown = self.render(before, tools) + newest + self.bridge(answer).removeprefix(padding)
        return self.render(messages, tools) == grown

    def _count(self, text: str, spoken: Collection[int]) -> Counter[int]:
        """Count a conversation's control tokens, without those that its replies may hold and do."""
        return Counter(found.token for found in self.control.find(text) if found.token not in spoken)

    def _template_count(
        self,
        roles: tuple[Role, ...],
        generate: bool,
        spoken: Collection[int],
        names: Sequence[Mapping[str, Any]],
        tools: Schemas,
    ) -> Counter[int]:
        """Count the control tokens that the template puts around such messages by itself."""
        called = [len(name.get("tool_calls", ())) for name in names]
        key = (roles, generate, tuple(frozenset(name) for name in names), json.dumps([called, tools]))
        if key not in self._template_counts:
            text = self._renderer.render(roles, ["."] * len(roles), generate, names, tools)
            self._template_counts[key] = self._count(text, ())
        return Counter({token: n for token, n in self._template_counts[key].items() if token not in spoken})

    # What the template puts around messages.

    @cached_property
    def opening(self) -> str:
        """A short conversation up to where its first reply begins: what `reply` goes on from."""
        return self._renderer.render(("user",), ["."])

    @cached_property
    def _around_last_reply(self) -> tuple[str, str]:
        """The same conversation with a reply that ends it: up to what the reply says, and after that."""
        try:
            before, found, after = self._renderer.render(
                ("user", "assistant"), [".", mark(1)], generate=False
            ).partition(mark(1))
        except ModelError:
            found = ""
        if found:
            return before, after
        before, after, _ = self._renderer.render(("user", "assistant", "user"), [".", mark(1), mark(2)]).partition(
            mark(1)
        )
        return before, ""

    @cached_property
    def closing(self) -> str:
        """What stands between what a reply says and the end of its turn, the token that ends it included."""
        after = self._around_last_reply[1]
        ends = [found.stop for found in self.control.find_added(after) if found.token == self.end_token]
        return after[: ends[0]] if ends else ""

    @cached_property
    def padding(self) -> tuple[str, str]:
        """The white space that the template puts before and after what a reply says."""
        before = self._around_last_reply[0]
        left = before.removeprefix(self.opening) if before.startswith(self.opening) else ""
        right = self.closing[: len(self.closing) - len(self.closing.lstrip())]
        return ("" if left.strip() else left), right

    @cached_property
    def _thinking(self) -> tuple[str, str] | None:
        """The tag with which the generation prompt opens a thought, and what closes it without one."""
        opened = re.search(r"(?:<(\w+)>|\[(\w+)\])\s*\Z", self.opening)
        if opened is None or self._around_last_reply[0] == self.opening:  # then it is the header of any reply
            return None
        return opened[0], f"\n</{opened[1]}>\n\n" if opened[1] else f"\n[/{opened[2]}]\n\n"

    def _shown_reply(self, content: str) -> str | None:
        """Return what the template shows of a reply that ends the conversation; None if it does not show all of it."""
        try:
            shown = self._renderer.render(("user", "assistant"), [".", content], generate=False)
        except ModelError:  # it may have an opinion on what a reply is
            return None
        after = self._around_last_reply[1]
        if not (shown.startswith(self.opening) and shown.endswith(after)):
            return None
        asked = self._renderer.render(("user",), ["."], generate=False)
        header_and_reply = shown[alike(shown, asked) : len(shown) - len(after)]
        if _squeezed(content) not in _squeezed(header_and_reply):
            return None
        return shown[len(self.opening) : len(shown) - len(after)]

    def _shows_system(self) -> bool:
        """Whether a system message is shown, also in a conversation of several turns."""
        return self._shows(("system", "user")) and self._shows(("system", "user", "assistant", "user"))

    def _check_replies(self) -> None:
        """Refuse a template that hides replies, shows them as somebody else's, or does not open the next one."""
        chats: list[list[Role]] = [["user"], ["user", "assistant", "user"]]
        if self._takes_system:
            chats.append(["system", "user"])
        for roles in chats:
            pieces, shown = self._renderer.pieces([*roles, "assistant", "user"])
            header = pieces[shown.index(len(roles))]
            asked, closed = (self._renderer.pieces(roles, generate=generate)[0][-1] for generate in (True, False))
            as_asked = asked.startswith(header.rstrip()) or header.startswith(asked.rstrip())
            if asked == closed and header.strip() != closed.strip():
                raise ModelError(
                    f"The chat template of {self.name!r} puts {_new(header, closed)!r} before a reply, but "
                    "add_generation_prompt does not: expected a template that opens the reply to be sampled."
                )
            if not as_asked:
                raise ModelError(
                    f"The chat template of {self.name!r} puts {_new(header, closed)!r} before a reply that was "
                    f"given and {_new(asked, closed)!r} before one that is asked for: expected a template that shows "
                    "the assistant's replies as the assistant's."
                )

    def _find_end(self) -> int | None:
        """Return the added token that follows a reply, last in the conversation or not; None for plain text."""
        if ends := self.control.find_added(self._around_last_reply[1]):
            return ends[0].token
        return self._first_token(self._renderer.pieces(("user", "assistant", "user"))[0][2])

    def _first_token(self, text: str) -> int | None:
        """Return the added token that a text begins with, if it does."""
        found = self.control.find_added(text)
        return found[0].token if found and not text[: found[0].start].strip() else None

    def _find_turn_tokens(self, stop_token_ids: Iterable[int]) -> set[int]:
        """Return the control tokens that end a turn or begin one.

        They stand around what others say; of those before a reply, the first one begins it, and
        those that the template puts into the reply do not.
        """
        system: list[Role] = ["system"] if self._takes_system else []
        roles: list[Role] = [*system, "user", "assistant", "user"]
        pieces, shown = self._renderer.pieces(roles)
        found = [[spelling.token for spelling in self.control.find(piece)] for piece in pieces]
        reply = shown.index(len(roles) - 2)
        tokens = {token for i, piece in enumerate(found[:-1]) if i != reply for token in piece}
        tokens |= {token for piece in (found[reply], found[-1]) for token in piece[:1]}
        opened, closed = (
            [spelling.token for spelling in self.control.find(self._renderer.render(("user",), ["."], generate))]
            for generate in (True, False)
        )
        tokens |= set(opened[alike(opened, closed) :][:1])
        before = self._around_last_reply[0]
        if before.startswith(self.opening):
            tokens -= {spelling.token for spelling in self.control.find(before.removeprefix(self.opening))}
        named = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        return self.control.ids & (tokens | named | {*stop_token_ids, self.end_token, self.end_before_tools})


def told(messages: Sequence[Message]) -> str:
    """Return what users and tools say as one text, in which a tool's answers are marked."""
    texts = [
        f"<tool_response>\n{one.content}\n</tool_response>" if one.role == "tool" else one.content for one in messages
    ]
    return "\n\n".join(texts)


def _named(message: Message, harmless: Callable[[Any], Any]) -> dict[str, Any]:
    """Return what a template is told of a message besides its role and content."""
    return {key: harmless(value) for key, value in message.chat.items() if key not in ("role", "content")}


def _new(text: str, before: str) -> str:
    """Return what a text has after what it begins with like another."""
    return text[alike(text, before) :]


def _squeezed(text: str) -> str:
    return "".join(text.split())
