"""What is installed and would be used, and where the time of a run goes: ``llmgym doctor``."""

import lazy_loader

# What is exported and from where is in the stub file next to this one; each name is imported when first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
