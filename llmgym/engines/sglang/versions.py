"""Which SGLang fits."""

import importlib.metadata
import re

from llmgym.errors import EngineError

OLDEST = (0, 5, 11)
"""The first version with everything that is asked of SGLang here."""


def installed_version() -> str | None:
    """Return the version of SGLang that is installed; None if there is none."""
    try:
        return importlib.metadata.version("sglang")
    except importlib.metadata.PackageNotFoundError:
        return None


def require_version(version: str | None, where: str) -> None:
    """Check a version of SGLang.

    Raises:
        EngineError: There is none, or it is too old.

    Examples:
        >>> require_version("0.5.21", "here")
        >>> require_version("0.5.9.post1", "here")
        Traceback (most recent call last):
        llmgym.errors.EngineError: Expected SGLang 0.5.11 or later here, found 0.5.9.post1.
    """
    oldest = ".".join(map(str, OLDEST))
    if version is None:
        raise EngineError(
            f"Expected SGLang {oldest} or later {where}, found none: install it (pip install 'llmgym-rl[sglang]'), "
            "name a server that runs it (--engine-url), or choose --engine local."
        )
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < OLDEST:
        raise EngineError(f"Expected SGLang {oldest} or later {where}, found {version}.")
