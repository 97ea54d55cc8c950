"""Which of the instructions that matrix products are chosen by this processor has; reads what Linux says of it."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_DECISIVE = frozenset(
    {
        *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
        *("amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"),
    }
)
_PRODUCTS_IN_BF16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
_CPUINFO = Path("/proc/cpuinfo")


@cache
def features() -> tuple[str, ...]:
    """The instruction sets by which libraries choose their kernels, sorted; the architecture alone where unknown."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return (platform.machine(),)
    flags = next(
        (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))), ()
    )
    return (platform.machine(), *sorted(_DECISIVE & set(flags)))


def multiplies_bf16() -> bool:
    """Whether matrix products in bf16 are an instruction here; elsewhere they would only be slow."""
    return bool(_PRODUCTS_IN_BF16 & set(features()))
