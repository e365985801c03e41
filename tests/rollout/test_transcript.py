"""A transcript is what sampling the same conversation would have left."""

import math

import pytest
from transformers import PreTrainedTokenizerFast

from llmgym.errors import DataError
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.transcript import transcribe
from llmgym.types import Message

SYSTEM, ASK, ANSWER, AGAIN, BETTER = (
    Message("system", "Be brief."),
    Message("user", "Which?"),
    Message("assistant", "This."),
    Message("user", "Sure?"),
    Message("assistant", "Yes."),
)


def test_a_transcript_has_the_tokens_of_the_whole_conversation(tokenizer: PreTrainedTokenizerFast) -> None:
    codec = ChatCodec(tokenizer)
    trajectory = transcribe(codec, [SYSTEM, ASK], [ANSWER, AGAIN, BETTER])
    whole = codec.template.render([SYSTEM, ASK, ANSWER, AGAIN, BETTER], generate=False)
    assert tokenizer.decode(trajectory.tokens) == whole.rstrip()
    assert trajectory.messages == [SYSTEM, ASK, ANSWER, AGAIN, BETTER]


def test_only_replies_of_the_completion_are_learnt_from_with_their_end(tokenizer: PreTrainedTokenizerFast) -> None:
    codec = ChatCodec(tokenizer)
    trajectory = transcribe(codec, [ASK, ANSWER, AGAIN], [BETTER])
    masked = [token for token, sampled in zip(trajectory.tokens, trajectory.mask, strict=True) if sampled]
    assert tokenizer.decode(masked) == "Yes.<|im_end|>"
    assert all(math.isnan(p) == sampled for p, sampled in zip(trajectory.log_probs, trajectory.mask, strict=True))
    assert trajectory.score == 0.0


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [([], [ANSWER]), ([ASK, ANSWER], [BETTER]), ([ASK], []), ([ASK], [ANSWER, AGAIN]), ([ASK], [ANSWER, BETTER])],
)
def test_messages_that_do_not_take_turns_are_refused(
    tokenizer: PreTrainedTokenizerFast, prompt: list[Message], completion: list[Message]
) -> None:
    with pytest.raises(DataError, match="got"):
        transcribe(ChatCodec(tokenizer), prompt, completion)
