"""What a guess is told: a mark per letter."""

RIGHT, ELSEWHERE, ABSENT = "+", "?", "-"


def marks(guess: str, word: str) -> str:
    """Return a mark for each letter of a guess.

    A letter at its right place is ``+``. Every other letter of the word can make one letter of the guess ``?``, from
    left to right; what is left is ``-``. So a letter that the guess has twice and the word once is marked once.

    Examples:
        >>> marks("eerie", "crane")
        '--?-+'
        >>> marks("nanny", "crane")
        '-?-+-'
    """
    left = [letter for letter, own in zip(word, guess, strict=True) if letter != own]
    told = []
    for letter, own in zip(guess, word, strict=True):
        if letter == own:
            told.append(RIGHT)
        elif letter in left:
            left.remove(letter)
            told.append(ELSEWHERE)
        else:
            told.append(ABSENT)
    return "".join(told)
