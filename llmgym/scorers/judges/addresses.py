"""Where a server is, and the secret that it asks for."""

import os
from urllib.parse import urlsplit

from llmgym.errors import ConfigError
from llmgym.types import well_formed

_LONGEST_ERROR = 500  # characters


def fault_of_url(url: str) -> str | None:
    """Return what is wrong with the address of a server; None if nothing is.

    Examples:
        >>> fault_of_url("http://127.0.0.1:30000/v1")
        >>> fault_of_url("ftp://example.org")
        "expected http:// or https:// at its beginning, got 'ftp://example.org'"
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return f"expected an address such as http://127.0.0.1:30000 ({error})"
    if parts.scheme not in ("http", "https"):
        return f"expected http:// or https:// at its beginning, got {url!r:.80}"
    if parts.username is not None or parts.password is not None:
        return "expected an address without a password, which would be in every message"
    if not host or port == 0 or not url.isprintable() or any(map(str.isspace, url)):
        return f"expected an address such as http://127.0.0.1:30000, got {url!r:.80}"
    if parts.query or parts.fragment:
        return f"expected an address without ? and #, got {url!r:.80}"
    return None


def key_in(variable: str) -> str | None:
    """Return the key in an environment variable, without white space around it; None if there is none.

    Raises:
        ConfigError: It is something that no header holds.
    """
    found = os.environ.get(variable, "").strip()
    if not found:
        return None
    if not found.isascii() or not found.isprintable():
        raise ConfigError(f"key: expected printable ASCII in the environment variable {variable}, got something else")
    return found


def without_key(text: str, key: str | None) -> str:
    """Return a text without a key, which a server may repeat."""
    return text.replace(key, "***") if key else text


def quoted(url: str, how: str, key: str | None) -> str:
    """Return what went wrong at a server, briefly, in characters that any file takes, and without the key."""
    return well_formed(without_key(f"the server at {url} {how}", key))[:_LONGEST_ERROR]
