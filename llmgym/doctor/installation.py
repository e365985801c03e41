"""`Installation`: which packages are here, and what a run would use by default."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from packaging.requirements import Requirement

from llmgym.config.sections import Engine
from llmgym.engines.make import engine_kind
from llmgym.engines.sglang.versions import installed_version
from llmgym.errors import ConfigError
from llmgym.learn.needs import GIB, free_memory
from llmgym.models.threads import use_available_processors
from llmgym.train.hardware import device_of, dtype_of
from llmgym.version import __version__

_DISTRIBUTION = "llmgym-rl"


@dataclass(frozen=True)
class Package:
    """A package that llmgym, or an extra of it, asks for.

    Attributes:
        name: Of the package.
        wanted: The versions that fit, such as ``>=2.10``.
        found: The version that is installed; None if there is none.
        fits: Whether it is one of those wanted.
        extra: The extra that asks for it; None for llmgym itself.
    """

    name: str
    wanted: str
    found: str | None
    fits: bool
    extra: str | None


@dataclass(frozen=True)
class Installation:
    """What is here.

    Attributes:
        packages: All that llmgym and its extras ask for, apart from what its developers need.
        facts: What a run would use by default, by name, in words.
    """

    packages: Sequence[Package]
    facts: dict[str, str]

    @property
    def broken(self) -> list[Package]:
        """Packages that llmgym itself needs and that are missing, or of another version."""
        return [one for one in self.packages if one.extra is None and not one.fits]

    @property
    def extras(self) -> dict[str, list[Package]]:
        """What each extra asks for and is missing, or of another version; nothing if the extra is there."""
        found: dict[str, list[Package]] = {}
        for one in self.packages:
            if one.extra is not None:
                found.setdefault(one.extra, []).extend([] if one.fits else [one])
        return found


def look() -> Installation:
    """Look at what is installed here."""
    device = device_of("auto")
    free = free_memory(torch.device(device))
    facts = {
        "llmgym": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "device": _device(device),
        "memory": "unknown" if free is None else f"{free / GIB:.1f} GiB free on {device}",
        "threads": f"{use_available_processors()} (of {os.cpu_count()} processors)",
        "dtype": _dtypes(device),
        "engine": _engine(),
    }
    return Installation(_packages(), facts)


def _packages() -> list[Package]:
    found = []
    for line in importlib.metadata.requires(_DISTRIBUTION) or []:
        asked = Requirement(line)
        extras = [] if asked.marker is None else _extras_of(asked)
        if "dev" not in extras:
            version = _version(asked.name)
            fits = version is not None and asked.specifier.contains(version, prereleases=True)
            found.append(Package(asked.name, str(asked.specifier), version, fits, extras[0] if extras else None))
    return found


def _extras_of(asked: Requirement) -> list[str]:
    """Return the extras that a requirement belongs to."""
    known = importlib.metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or []
    assert asked.marker is not None
    always = asked.marker.evaluate({"extra": ""})
    return [] if always else [extra for extra in known if asked.marker.evaluate({"extra": extra})]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device(device: str) -> str:
    if device == "cuda":
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return f"cuda: {', '.join(names)}"
    built = "sees none" if torch.version.cuda else "was built without CUDA"
    return f"cpu (no CUDA GPU: torch {torch.__version__} {built})"


def _dtypes(device: str) -> str:
    try:
        dtype_of("bfloat16", device)
    except ConfigError:
        return "float32; bfloat16 is slower here, and refused"
    return "float32; --dtype bfloat16 takes half the memory"


def _engine() -> str:
    if engine_kind(Engine()) == "sglang":
        return f"sglang {installed_version()}"
    version = installed_version()
    reason = "SGLang is not installed" if version is None else f"SGLang {version} is there, and no CUDA GPU"
    return f"local ({reason})"
