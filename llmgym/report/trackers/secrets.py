"""What is left out of a configuration before others are shown it."""

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "***"

_SECRET = re.compile("key|token|secret|password", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose secrets are stars: what a key says is one, and what logs in within an address.

    Options of llmgym that are numbers, such as ``max_tokens``, are none; arguments of an environment may be.

    Examples:
        >>> without_secrets({"max_tokens": 128, "env_kwargs": {"api_key": 7, "url": "http://me:pw@host/x"}})
        {'max_tokens': 128, 'env_kwargs': {'api_key': '***', 'url': 'http://***@host/x'}}
    """
    return {
        key: _shown(value) if isinstance(value, int | float | None) or not _SECRET.search(key) else REDACTED
        for key, value in config.items()
    }


def _shown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: REDACTED if _SECRET.search(str(key)) else _shown(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(one) for one in value]
    return _LOGIN.sub(REDACTED, value) if isinstance(value, str) else value
