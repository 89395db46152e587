"""How much of the chip a run uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iml.models.config import OPTConfig

#: Dense bfloat16 FLOP/s of what JAX calls a device, by a part of its `device_kind` (vendors' data sheets).
_PEAK = (
    ("H200", 989e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L4", 121e12),
    ("V100", 125e12),
    ("TPU v6", 918e12),
    ("TPU v5p", 459e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v4", 275e12),
    # A device is half a chip up to v3.
    ("TPU v3", 61.5e12),
    ("TPU v2", 23e12),
)


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of one device; None where the chip is not known."""
    return next((peak for part, peak in _PEAK if part.lower() in device_kind.lower()), None)


def flops_per_token(config: OPTConfig, length: int) -> float:
    """Floating-point operations of a training step per position, without recomputation.

    6 for each parameter that is multiplied (position embeddings are only added, the word embedding is the
    output layer too) and 12 * layers * width * length for attention, which counts whole rows (PaLM,
    appendix B).
    """
    multiplied = config.num_parameters() - (config.max_positions + 2) * config.embed_dim
    return 6.0 * multiplied + 12.0 * config.num_layers * config.embed_dim * length
