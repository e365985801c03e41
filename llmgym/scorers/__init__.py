"""Scorers turn finished episodes into rewards; they see text and nothing else.

The names below are imported when first asked for, so that `import llmgym` loads no event loop.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
