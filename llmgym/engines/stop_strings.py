"""`completes`: whether the newest of some sampled tokens completes a stop string; `cut`: a completion up to there."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from llmgym.engines.base import Completion


def completes(tokens: Sequence[int], stop: Sequence[str], text_of: Callable[[Sequence[int]], str]) -> bool:
    """Tell whether the newest token completes any of these strings.

    A token may be a few bytes of a character, and decoding may begin in the midst of one. So
    a string is looked for in the text of the newest tokens, the newest 1, 2, 3 and so on: it
    is there as soon as its last character is complete, whatever came before it.

    Args:
        tokens: All that was sampled; no token but the newest completes a string.
        stop: The strings.
        text_of: Returns the text of tokens that follow others.
    """
    # A token that holds no end of a string, nor part of a character, completes none: mostly it is left at that. Where
    # it is alone, a space that it begins with may be lost; beside one before it that is part of a character, all of it.
    newest = text_of(tokens[-1:]) + text_of(tokens[-2:])
    partial = "\N{REPLACEMENT CHARACTER}" in newest
    likely = [string for string in stop if string[-1] in newest or (partial and not string[-1].isascii())]
    if not likely:
        return False
    # A token is at least a byte, so this many hold any of the strings; one more, for a space that begins a text.
    most = max(len(string.encode()) for string in likely) + 1
    for count in range(1, min(most, len(tokens)) + 1):
        text = text_of(tokens[-count:])
        if any(string in text for string in likely):
            return True
    return False


def cut(completion: Completion, stop: Sequence[str], text_of: Callable[[Sequence[int]], str]) -> Completion:
    """Return a completion up to the token that completes a stop string, if one does.

    For an engine that looks for strings in another way and may sample past them.
    """
    tokens, log_probs = completion.tokens, completion.log_probs
    for count in range(1, len(tokens)):
        if completes(tokens[:count], stop, text_of):
            return replace(completion, tokens=tokens[:count], log_probs=log_probs[:count], finish_reason="stop")
    return completion
