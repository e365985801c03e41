"""Installed packages that bring environments and scorers, which are then found by name."""

import functools
import warnings
from importlib.metadata import EntryPoint, entry_points

from llmgym.visible import visible

GROUP = "llmgym.plugins"
"""The entry points of plugins: each names a module whose import registers environments and scorers."""


@functools.cache
def load_plugins() -> None:
    """Import the plugins of all installed packages, once; a lookup by name does so, and `import llmgym` does not.

    A plugin that cannot be imported costs a warning. What it would have registered is missing.
    """
    for plugin in entry_points(group=GROUP):
        try:
            plugin.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # somebody else's package must not break this one
            warnings.warn(_complaint(plugin, error), stacklevel=2)


def _complaint(plugin: EntryPoint, error: BaseException) -> str:
    package = f"The package {plugin.dist.name}" if plugin.dist is not None else "A package"
    return visible(
        f"{package} has a plugin for llmgym, {plugin.value}, that cannot be imported, so its environments and scorers "
        f"are missing ({type(error).__name__}: {error})."
    )
