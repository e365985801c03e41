"""A conversation that was not sampled, as a trajectory: demonstrations and preference data."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmgym.calls import Schemas
from llmgym.engines.base import Completion
from llmgym.errors import DataError
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.trajectory import Trajectory
from llmgym.types import Message, answers, asks


def transcribe(
    codec: ChatCodec,
    prompt: Sequence[Message],
    completion: Sequence[Message],
    *,
    tools: Schemas = (),
    seed: int = 0,
    group: int = 0,
    score: float = 0.0,
) -> Trajectory:
    """Write a conversation down as the tokens that sampling it would have given.

    Args:
        codec: Turns messages into tokens.
        prompt: The messages before the first reply to learn from; it ends with a message to the agent.
        completion: The agent's replies, and between them what it was answered.
        tools: The JSON schemas of the tools that the agent could call.
        seed: Of the trajectory.
        group: Of the trajectory.
        score: Of the trajectory; without one it would be left out of losses.

    Returns:
        A trajectory whose mask covers the replies of `completion`, end tokens included. Their
        log-probabilities are NaN, for nobody sampled them.

    Raises:
        DataError: The messages do not take turns.
    """
    _check_turns(prompt, completion)
    trajectory = Trajectory(seed, group, messages=[*prompt], tools=tools, score=score, ending="terminated")
    trajectory.observe(codec.prompt(prompt, tools))
    groups = itertools.groupby(completion, key=lambda message: message.role == "assistant")
    spoken = [list(group) for _, group in groups]  # a reply, what it was answered, a reply and so on
    for messages, answer in zip(spoken, [*spoken[1:], []], strict=True):
        trajectory.messages += messages
        if messages[0].role == "assistant":
            tokens = codec.reply(messages[0], answer)
            log_probs = [math.nan] * len(tokens)
            trajectory.act(Completion(0, tokens, log_probs, finish_reason="stop", weight_version=0))
        elif (rewritten := codec.rewritten(trajectory.messages, trajectory.newest_reply, tools)) is not None:
            trajectory.start_row(rewritten)
        else:
            trajectory.observe(codec.bridge(messages, trajectory.tokens[-1]))
    return trajectory


@dataclass(frozen=True)
class Scribe:
    """Writes conversations down as trajectories that fit a context.

    Attributes:
        codec: Turns messages into tokens.
        context_length: Tokens of a conversation, at most.
    """

    codec: ChatCodec
    context_length: int

    def write(
        self, prompt: Sequence[Message], completion: Sequence[Message], score: float = 0.0, tools: Schemas = ()
    ) -> Trajectory:
        """Return a conversation as a trajectory with a score; see `transcribe`.

        Raises:
            DataError: It is longer than the context, or its messages do not take turns.
        """
        trajectory = transcribe(self.codec, prompt, completion, tools=tools, score=score)
        longest = max(row.stop - row.start for row in trajectory.rows)
        if longest > self.context_length:
            raise DataError(
                f"An example of {longest} tokens does not fit a context of {self.context_length}: leave it out of "
                "the data, or raise context_length, if the model can take more. It begins with "
                f"{prompt[-1].content[:60]!r}."
            )
        return trajectory

    def check(self, conversations: Sequence[Sequence[Message]], tools: Schemas = ()) -> bool:
        """Render conversations, and tell whether all are sure to fit the context.

        Args:
            conversations: What was said.
            tools: What can be called in them.

        Raises:
            ModelError: The chat template refuses one.
        """
        rendered = [self.codec.template.render(conversation, tools) for conversation in conversations]
        # A token is a byte at least, but for what a normalizer makes of it: most are too short to be encoded here.
        return all(2 * len(text.encode()) <= self.context_length for text in rendered)


def _check_turns(prompt: Sequence[Message], completion: Sequence[Message]) -> None:
    if not asks(prompt):
        got = [message.role for message in prompt]
        raise DataError(f"A prompt has to end with a message of the user's or a tool's, got {got}.")
    if not answers(completion):
        got = [message.role for message in completion]
        raise DataError(
            f"Expected a completion of assistant, user (or tool), assistant and so on to the last reply, got {got}."
        )
