"""`visible`: text that others wrote, as a terminal may be given it."""


def visible(text: str) -> str:
    r"""Return a text whose control characters, which could take over a terminal, are spelt out.

    Examples:
        >>> visible("\x1b[2Jgone")
        '\\x1b[2Jgone'
    """
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)
