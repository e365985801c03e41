"""What the final state of a shop is worth."""

from llmgym.envs.orders.shop import Facts


def score_parts(start: Facts, wanted: Facts, final: Facts) -> dict[str, float]:
    """Compare a final state with the one that the right changes give, object by object.

    Args:
        start: The state at first.
        wanted: The state that the right changes give; it differs from the first.
        final: The state that there is.

    Returns:
        ``done``: the share of the objects to change that are as wanted. ``harm``: minus one such share for every other
        object that has changed, at most as much as was earned.

    Example:
        >>> start, wanted = {("file", "a"): "inbox"}, {("file", "a"): "sales"}
        >>> score_parts(start, wanted, wanted)
        {'done': 1.0, 'harm': 0.0}
    """
    to_change = changed(start, wanted)
    done = sum(final.get(key) == wanted.get(key) for key in to_change) / len(to_change)
    extra = len(changed(start, final) - to_change) / len(to_change)
    return {"done": done, "harm": 0.0 - min(done, extra)}


def changed(before: Facts, after: Facts) -> set[tuple[str, str]]:
    """Return the objects that differ between two states."""
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
