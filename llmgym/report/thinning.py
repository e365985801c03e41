"""`thin`: deletes episodes of a run until they take no more than they may."""

from pathlib import Path


def thin(directory: Path, limit: float) -> int:
    """Delete episodes of a run until they take at most `limit` bytes.

    The episodes of steps 1, 1 + n, 1 + 2n and so on stay, and those of the newest step, where n is the smallest power
    of two with which they fit. Where there is none, those of the newest step stay alone, if they fit.

    Args:
        directory: Where the shards are.
        limit: Bytes.

    Returns:
        n: 1 if nothing had to be deleted, 0 if at most the newest step is left.
    """
    shards = {step: shard for shard in directory.glob("step-*.parquet") if (step := step_of(shard))}
    sizes = {step: shard.stat().st_size for step, shard in shards.items()}
    newest, every = max(sizes, default=0), 1
    while sum(sizes.values()) > limit and every:
        every = 2 * every if every < newest else 0
        for step in [step for step in sizes if step < newest and (every == 0 or (step - 1) % every)]:
            shards[step].unlink()
            del sizes[step]
    if sum(sizes.values()) > limit:
        shards[newest].unlink()
    return every


def step_of(shard: Path) -> int:
    """Return the step whose episodes a file has; 0 for any other file."""
    number = shard.stem.removeprefix("step-")
    return int(number) if number.isdecimal() else 0


def bytes_in(directory: Path) -> int:
    """Return how many bytes the files below a directory take; one that vanishes meanwhile takes none."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat(follow_symlinks=False).st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total
