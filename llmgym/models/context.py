"""How many tokens a model takes."""

from transformers import PretrainedConfig

UNBOUNDED = 2**31
"""What a model takes that names no bound."""


def longest_context(config: PretrainedConfig) -> int:
    """Return how many tokens a conversation with a model of this configuration has at most.

    It ends where rotary frequencies would change: see `rope_switch`.
    """
    settings = config.get_text_config(decoder=True)
    named = getattr(settings, "max_position_embeddings", None) or UNBOUNDED
    return min(int(named), rope_switch(config) or UNBOUNDED)


def rope_switch(config: PretrainedConfig) -> int | None:
    """Return up to how many tokens rotary frequencies depend on nothing but the position; None if they always do.

    Beyond, those of kinds such as longrope and dynamic depend on the longest conversation in a batch: the keys that
    are cached of a shorter one would no longer be right, nor those of its neighbours.
    """
    settings = config.get_text_config(decoder=True)
    parameters = getattr(settings, "rope_parameters", None) or {}
    kinds = [
        parameters,
        *(kind for kind in parameters.values() if isinstance(kind, dict)),
    ]  # or one for a kind of layer
    switches = []
    for kind in kinds:
        if kind.get("rope_type") == "longrope":
            switches.append(kind.get("original_max_position_embeddings") or settings.max_position_embeddings)
        elif kind.get("rope_type") == "dynamic":
            switches.append(settings.max_position_embeddings)
    return min(map(int, switches), default=None)


def context_notice(config: PretrainedConfig, asked: int | None) -> str | None:
    """Return a sentence for whoever gets fewer tokens than asked for, or, where none were asked for, than all."""
    switch, longest = rope_switch(config), longest_context(config)
    if asked is not None and asked <= longest:
        return None
    if switch is not None and switch < config.get_text_config(decoder=True).max_position_embeddings:
        return (
            f"Conversations end at {switch} tokens: beyond, the rotary frequencies of this model depend on the longest "
            "conversation of a batch, and what is cached or packed beside it would no longer be right."
        )
    if asked is None:
        return None
    return f"Conversations end at {longest} tokens, which is all that this model takes, not at {asked}."
