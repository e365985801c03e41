"""Where the package `bfcl-eval` has what is needed of it."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from llmgym.errors import ConfigError

INSTALL = "pip install --no-deps bfcl-eval==2026.3.23"


def part(module: str) -> ModuleType:
    """Import and return a module of the package."""
    try:
        return importlib.import_module(f"bfcl_eval.{module}")
    except ImportError as error:
        raise ConfigError(
            f"bfcl_eval.{module} cannot be imported ({error}): {INSTALL}; it depends on exact versions of packages, "
            "which would replace those that llmgym needs."
        ) from error


BACKENDS: Any = part("constants.executable_backend_config")
PROMPTS: Any = part("constants.default_prompts")
DATA = Path(str(BACKENDS.__file__)).parent.parent / "data"
