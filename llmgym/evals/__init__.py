"""Evaluations apart from training: what is asked, episodes that are kept, and what they come to.

What plays is imported when it is first asked for, so that ``llmgym eval --help`` loads no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
