"""The tensor world: trajectories become batches, batches become gradients.

What an algorithm is made of is here under one name each, and is imported when first asked
for, so that an algorithm's file, and its ``--help``, loads no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
