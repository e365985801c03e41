"""What reward functions of other libraries read of an episode: its prompt and what follows."""

from collections.abc import Mapping
from typing import Any

from llmgym.types import Episode, Message


def columns_of(episode: Episode) -> Mapping[str, Any]:
    """Return the columns of the row that an episode is about; none if its task is something else."""
    return episode.task if isinstance(episode.task, Mapping) else {}


def divided(episode: Episode) -> tuple[list[Message], list[Message]]:
    """Return the messages before the first reply, and that reply with all that follows."""
    messages = episode.messages
    prompt = len(episode.turns[0].heard) + bool(episode.system_prompt) if episode.turns else len(messages)
    return messages[:prompt], messages[prompt:]


def response_of(episode: Episode) -> str:
    """Return the whole response as text: every reply, and what the environment said between them, a line each."""
    return "\n".join(message.content for message in divided(episode)[1])
