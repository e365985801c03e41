"""Training: the ring of steps, algorithm, learner and journal, and the `Agent` that users call.

What builds a trainer is imported when it is first asked for, so that an algorithm's file
loads no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
