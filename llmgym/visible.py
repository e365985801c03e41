"""`visible`: text that others wrote, as a terminal, a log or a page may be given it."""


def visible(text: str) -> str:
    r"""Return a text whose invisible characters are spelt out, line breaks and tabs apart.

    Escape sequences could take over a terminal, marks of direction could turn what is read round, and lone surrogates
    cannot be written at all.

    Examples:
        >>> visible("\x1b[2Jgone")
        '\\x1b[2Jgone'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)
