"""Which of many cases `make test` plays, and which only `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def long_but(cases: Iterable[Any], *kept: Any) -> list[Any]:
    """Mark all cases but those to keep as ``long``: they vary what the kept ones show."""
    named = list(cases)
    assert all(one in named for one in kept)
    return [
        one if one in kept else pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=pytest.mark.long)
        for one in named
    ]
