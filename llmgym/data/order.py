"""The order in which data is learnt from."""

import numpy as np


def in_epochs(start: int, stop: int, count: int, *key: int) -> list[int]:
    """Return the places `start` to `stop` of an endless sequence: permutations of ``range(count)``, one per epoch.

    Args:
        start: The first place.
        stop: The place after the last one.
        count: How many there are in an epoch.
        key: Seed of the permutations; two numbers or more say also which of several sequences it is.

    Examples:
        >>> sorted(in_epochs(0, 4, 4, 7)), sorted(in_epochs(4, 8, 4, 7))
        ([0, 1, 2, 3], [0, 1, 2, 3])
        >>> in_epochs(0, 8, 4, 7)[3:6] == in_epochs(3, 6, 4, 7)
        True
    """
    permutations: dict[int, list[int]] = {}
    found = []
    for place in range(start, stop):
        epoch, index = divmod(place, count)
        if epoch not in permutations:
            seed, *stream = key
            permutations[epoch] = np.random.default_rng([seed, epoch, *stream]).permutation(count).tolist()
        found.append(permutations[epoch][index])
    return found
