"""The demo: a model that ships with llmgym and can do nothing but triage, its teacher, and the options that suit it."""

from pathlib import Path

TINY_PATH = Path(__file__).parent / "tiny_weights"
"""The directory of the bundled model, as `transformers` loads it."""
