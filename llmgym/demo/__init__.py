"""The demo: models that ship with llmgym, the recipes that made them, and the options that suit them."""

from pathlib import Path

TINY_PATH = Path(__file__).parent / "tiny_weights"
"""The directory of the bundled model, as `transformers` loads it."""

TINY_TOOLS_PATH = Path(__file__).parent / "tiny_tools_weights"
"""The directory of its sibling that calls tools."""
