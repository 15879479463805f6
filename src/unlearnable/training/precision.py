"""Where a network is computed, and how finely."""

from pathlib import Path
from typing import Final, Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]
"""Of the arithmetic; "auto" is bfloat16 wherever that is faster. Weights are always float32."""

_PROCESSOR: Final = Path("/proc/cpuinfo")


def default_device() -> str:
    """Name the GPU if there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which a network is computed at this precision."""
    wanted = precision == "bfloat16" or (precision == "auto" and _bfloat16_pays(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def for_testing(precision: Precision) -> Precision:
    """Return the precision to test a network in, where "auto" is float32, as in published evaluations.

    Near the boundary bfloat16 rounds away what decides.
    """
    return "float32" if precision == "auto" else precision


def _bfloat16_pays(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32.

    Intel's processors do with AMX alone: their AVX-512 units take bfloat16 at half the rate, and a ResNet-9 trains a
    third slower on it than on float32. AMD's take it at the full rate.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # of PyTorch 2.10 and later
    if device.type != "cpu" or not has:
        return False
    amd = _PROCESSOR.exists() and "AuthenticAMD" in _PROCESSOR.read_text()
    return bool(has.get("amx_bf16") or has.get("bf16") or (amd and has.get("avx512_bf16")))
