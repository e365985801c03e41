"""Devices, and the data types that they can multiply."""

import torch

from llmgym.errors import ConfigError


def device_of(name: str) -> str:
    """Return the device that ``--device`` stands for."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("--device cuda: expected a CUDA GPU that torch sees, found none.")
    return ("cuda" if there else "cpu") if name == "auto" else name


def dtype_of(name: str, device: str) -> torch.dtype:
    """Return the type of weights that ``--dtype`` stands for, if a device multiplies it."""
    dtype: torch.dtype = getattr(torch, name)
    if dtype == torch.bfloat16 and not _multiplies_bfloat16(device):
        raise ConfigError(
            "--dtype bfloat16: expected a GPU or a processor with bfloat16 instructions (AVX512-BF16 or AMX), which "
            "this one has not; float32 is faster on it."
        )
    return dtype


def _multiplies_bfloat16(device: str) -> bool:
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last: of ARM
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
