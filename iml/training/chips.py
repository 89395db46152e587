"""What the makers publish of accelerators: peak arithmetic, memory and links between chips."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as JAX counts them.

    Attributes:
      name: its name in `CHIPS`.
      kind: a part of what JAX calls its `device_kind`.
      peak: dense bfloat16 FLOP/s.
      memory: bytes of high-bandwidth memory.
      memory_bandwidth: bytes/s.
      link_bandwidth: bytes/s that it sends to other chips over all its links together.
    """

    name: str
    kind: str
    peak: float
    memory: float
    memory_bandwidth: float
    link_bandwidth: float


#: From the data sheets of Google Cloud and NVIDIA. The first whose `kind` occurs in a device's kind holds; a TPU
#: device is half a chip up to v3.
CHIPS = (
    Chip("h200", "H200", 989e12, 141e9, 4.8e12, 450e9),
    Chip("h100", "H100", 989e12, 80e9, 3.35e12, 450e9),
    Chip("a100", "A100", 312e12, 80e9, 2.039e12, 300e9),
    Chip("l4", "L4", 121e12, 24e9, 0.3e12, 32e9),
    Chip("v100", "V100", 125e12, 32e9, 0.9e12, 150e9),
    Chip("v6e", "TPU v6", 918e12, 32 * 2**30, 1.64e12, 448e9),
    Chip("v5p", "TPU v5p", 459e12, 95 * 2**30, 2.765e12, 600e9),
    Chip("v5e", "TPU v5 lite", 197e12, 16 * 2**30, 0.819e12, 200e9),
    Chip("v5e", "TPU v5e", 197e12, 16 * 2**30, 0.819e12, 200e9),
    Chip("v5p", "TPU v5", 459e12, 95 * 2**30, 2.765e12, 600e9),
    Chip("v4", "TPU v4", 275e12, 32 * 2**30, 1.228e12, 300e9),
    Chip("v3", "TPU v3", 61.5e12, 16 * 2**30, 0.45e12, 82e9),
    Chip("v2", "TPU v2", 23e12, 8 * 2**30, 0.35e12, 62e9),
)


def find_chip(name_or_kind: str) -> Chip | None:
    """The chip of this name or of a device of this kind; None if it is not known."""
    wanted = name_or_kind.lower()
    for chip in CHIPS:
        if chip.name == wanted or chip.kind.lower() in wanted:
            return chip
    return None
