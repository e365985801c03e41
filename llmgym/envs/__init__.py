"""Text environments: the base, the vector environment, the checker and the built-in tasks.

Each base is imported when first asked for: registering environments, and ``--help``, need none of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
