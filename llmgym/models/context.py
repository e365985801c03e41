"""How many tokens a model takes."""

from transformers import PretrainedConfig

UNBOUNDED = 2**31
"""What a model takes that names no bound."""


def longest_context(config: PretrainedConfig) -> int:
    """Return how many tokens a conversation with a model of this configuration has at most."""
    settings = config.get_text_config(decoder=True)
    return int(getattr(settings, "max_position_embeddings", None) or UNBOUNDED)
