"""Which of many cases `make test` plays, and which only `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def long_but(cases: Iterable[Any], *kept: Any) -> list[Any]:
    """Mark cases as ``long``: what they vary is tested by those that are kept, which `make test` plays, too."""
    named = list(cases)
    assert all(one in named for one in kept)
    return [
        one if one in kept else pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=pytest.mark.long)
        for one in named
    ]
