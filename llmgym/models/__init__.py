"""The model that ships with llmgym, and the recipe it is made by."""

from pathlib import Path

TINY_PATH = Path(__file__).parent / "tiny_weights"
"""The directory of the bundled model, as `transformers` loads it."""
