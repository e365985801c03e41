"""Defines two operators before torchvision is imported: without its CUDA library it does not, and its import fails.

A hook does it, so that processes that never import torchvision do not import torch.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType


class DefineOperators(importlib.abc.MetaPathFinder):
    """Finds nothing; sees that torchvision is about to be imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            self.library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            self.library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            DefineOperators.kept = self  # the operators live as long as their library
        return None


sys.meta_path.insert(0, DefineOperators())
