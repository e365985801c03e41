"""Where a server is, and the secret that it asks for."""

import ipaddress
import os
from urllib.parse import urlsplit

from llmgym.errors import ConfigError
from llmgym.secrets import REDACTED
from llmgym.types import well_formed

_LONGEST_ERROR = 500  # characters


def fault_of_url(url: str) -> str | None:
    """Return what is wrong with the address of a server; None if nothing is.

    Examples:
        >>> fault_of_url("http://127.0.0.1:30000/v1")
        >>> fault_of_url("ftp://example.org")
        "expected http:// or https:// at its beginning, got 'ftp://example.org'"
        >>> fault_of_url("http://somebody:word@example.org")
        'expected an address without a password, which would be in every message'
    """
    shown = "one with an @, before which a password may be" if "@" in url else f"{url!r:.80}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"expected an address such as http://127.0.0.1:30000, got {shown}"
    if parts.username is not None:
        return "expected an address without a password, which would be in every message"
    if parts.scheme not in ("http", "https"):
        return f"expected http:// or https:// at its beginning, got {shown}"
    if not host or port == 0 or not url.isprintable() or any(map(str.isspace, url)):
        return f"expected an address such as http://127.0.0.1:30000, got {shown}"
    if parts.query or parts.fragment:
        return "expected an address without ? and #"  # after which a key may be
    return None


def is_overheard(url: str) -> bool:
    """Tell whether what is sent to a server can be read on the way: it is on another machine, and nothing is encrypted.

    Examples:
        >>> is_overheard("http://10.0.0.7:30000"), is_overheard("https://10.0.0.7"), is_overheard("http://localhost:1")
        (True, False, False)
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        stays_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        stays_here = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not stays_here


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


def is_placeholder(key: str) -> bool:
    """Tell whether a key is a word that servers are given that ask for none, which a reply may well have in it."""
    return len(key) < 6 or (key.isalpha() and len(key) < 16)


def without_key(text: str, key: str | None) -> str:
    """Return a text without a key, which a server may repeat."""
    return text.replace(key, REDACTED) if key else text


def quoted(url: str, how: str, key: str | None) -> str:
    """Return what went wrong at a server, briefly, in characters that any file takes, and without the key."""
    return well_formed(without_key(f"the server at {url} {how}", key))[:_LONGEST_ERROR]
