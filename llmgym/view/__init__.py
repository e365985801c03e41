"""A run as pages: its curves, its episodes, the tokens of each, and two runs side by side.

A run directory is only read, and may grow meanwhile. `Answers` has what the pages ask for, which a server gives while
somebody looks, and a report carries with it. None of it loads torch, and nothing is loaded before it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
