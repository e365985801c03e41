"""Configurations: what can be set, what it may be, and how it is read. Nothing here imports torch.

The names below are imported when first asked for, so that `import llmgym` loads neither pydantic nor tyro.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
