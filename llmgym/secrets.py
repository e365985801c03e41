"""Secrets among options: given as ``env:NAME``, and left out wherever options are written down or shown."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmgym.errors import ConfigError

REDACTED = "***"
"""What is shown in place of a secret."""

_FROM = "env:"
_SECRET = re.compile("key|token(?!s|i)|secret|passw|credential|authorization", re.IGNORECASE)
_WITHIN = re.compile(rf"(?:{_SECRET.pattern})[^\s:,]*\s*:", re.IGNORECASE)  # a key of a mapping that is written out
_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_PAIR = re.compile(r"(-*[^\s=:/]+)(=)(.*)", re.DOTALL)


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options in which secrets are stars: values whose key says so, and what logs in within an address.

    ``env:NAME``, which only says where a secret is, stays; so do true, false, and nothing at all.

    Examples:
        >>> without_secrets({"max_tokens": 128, "env_kwargs": {"api_key": 7, "url": "http://me:pw@host/x"}})
        {'max_tokens': 128, 'env_kwargs': {'api_key': '***', 'url': 'http://***@host/x'}}
        >>> without_secrets({"judge_key": "env:JUDGE_KEY", "password": "hunter2"})
        {'judge_key': 'env:JUDGE_KEY', 'password': '***'}
    """
    return {key: _shown(value, bool(_SECRET.search(str(key)))) for key, value in options.items()}


def without_secrets_in(words: Sequence[str]) -> list[str]:
    """Return the words of a command line without the secrets in ``KEY=VALUE``, after ``--some-key``, and in addresses.

    Examples:
        >>> without_secrets_in(["--env-kwargs", "api_key=7", "size=3", "--hub-token", "x"])
        ['--env-kwargs', 'api_key=***', 'size=3', '--hub-token', '***']
        >>> without_secrets_in(["headers={Authorization: Bearer x}", "weights={evidence: 0.2}"])
        ['headers=***', 'weights={evidence: 0.2}']
    """
    shown, secret = [], False
    for word in words:
        pair = _PAIR.fullmatch(word)
        if pair is not None:
            key, equals, value = pair.groups()
            shown.append(f"{key}{equals}{_shown(value, bool(_SECRET.search(key) or _WITHIN.search(value)))}")
        else:
            shown.append(_shown(word, secret and not word.startswith("-")))
        secret = pair is None and word.startswith("-") and bool(_SECRET.search(word))
    return shown


def with_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options in which every ``env:NAME`` is what that environment variable holds.

    Raises:
        ConfigError: There is no such variable, or a secret was left out where the options were read.
    """
    return {key: _read(value, str(key)) for key, value in options.items()}


def _shown(value: Any, secret: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _shown(one, secret or bool(_SECRET.search(str(key)))) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(one, secret) for one in value]
    if isinstance(value, str) and not secret:
        return _LOGIN.sub(REDACTED, value)
    return value if not secret or value is None or isinstance(value, bool) or _names_a_variable(value) else REDACTED


def _read(value: Any, key: str) -> Any:
    if type(value) is dict:
        return with_secrets(value)
    if type(value) is list:
        return [_read(one, key) for one in value]
    if isinstance(value, str) and value == REDACTED:
        raise ConfigError(
            f"{key}: secrets are left out of files, and this was read from one; expected it anew, best as "
            f"{key}=env:NAME, the name of an environment variable, which files may have."
        )
    if not _names_a_variable(value):
        return value
    name = value.removeprefix(_FROM)
    if name not in os.environ:
        raise ConfigError(f"{key}: expected an environment variable {name!r}, but there is none.")
    return os.environ[name]


def _names_a_variable(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_FROM) and value.removeprefix(_FROM).isidentifier()
