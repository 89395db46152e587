"""4-bit NormalFloat with double quantisation: how QLoRA keeps frozen weights (arXiv 2305.14314, section 3).

A kernel [inputs, outputs] is cut along its inputs into blocks of 64 weights that share a scale, their largest
magnitude; these are the blocks that bitsandbytes makes of torch's [outputs, inputs]. The scales, less their mean,
are quantised to 8 bits in blocks of 256, in bitsandbytes' order too, so that values agree. It takes
4 + 8/64 + 32/(64 * 256) = 4.127 bits a weight.

A quantised kernel is a dict, whose arrays may have leading axes, as a stack of layers has:
  codes: uint8 [inputs / 2, outputs], two consecutive inputs in each, the first in the upper four bits;
  absmax: uint8 [inputs / 64, outputs], codes of the blocks' scales;
  scales: float32 [blocks of 256], the scales' scales;
  offset: float32 [], the scales' mean.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from iml.models.adapters import NF4_BLOCK

#: The 16 levels (appendix E): quantiles of a normal distribution, scaled to [-1, 1], 0 among them.
LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
_SCALE_BLOCK = 256
#: Axis names of a quantised kernel's arrays, of those of the kernel. Blocks need not divide over a mesh, so the
#: small arrays are split over outputs at most.
AXES = {
    "codes": lambda inputs, outputs: (inputs, outputs),
    "absmax": lambda inputs, outputs: (None, outputs),
    "scales": lambda inputs, outputs: (None,),
    "offset": lambda inputs, outputs: (),
}

Quantised = dict[str, Array]


@functools.cache
def _dynamic_levels() -> np.ndarray:
    """256 levels whose spacing grows with magnitude: the 8-bit dynamic tree type (arXiv 1511.04561, section 3).

    Seven decades below 1; the one that ends at 10^-k has twice the levels of the one that ends at 10^-(k+1).
    """
    levels = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1.0, 2**decade + 1)
        centres = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)
        levels += [*centres, *-centres]
    return np.sort(np.array(levels, np.float32))


def quantise(kernel: Float[Array, "inputs outputs"]) -> Quantised:
    """The nearest quantised kernel; `inputs` is a multiple of 64."""
    inputs, outputs = kernel.shape
    blocks = kernel.astype(jnp.float32).reshape(inputs // NF4_BLOCK, NF4_BLOCK, outputs)
    absmax = jnp.abs(blocks).max(axis=1)
    unit = blocks / jnp.where(absmax > 0, absmax, 1.0)[:, None]
    codes = _nearest(unit, np.array(LEVELS, np.float32)).reshape(inputs, outputs)
    offset = absmax.mean()
    flat = (absmax - offset).T.reshape(-1)
    padded = jnp.pad(flat, (0, -flat.size % _SCALE_BLOCK)).reshape(-1, _SCALE_BLOCK)
    scales = jnp.abs(padded).max(axis=1)
    unit = padded / jnp.where(scales > 0, scales, 1.0)[:, None]
    absmax_codes = _nearest(unit, _dynamic_levels()).reshape(-1)[: flat.size]
    return {
        "codes": codes[0::2] << 4 | codes[1::2],
        "absmax": absmax_codes.reshape(outputs, inputs // NF4_BLOCK).T,
        "scales": scales,
        "offset": offset,
    }


def dequantise(kernel: Quantised, dtype: jnp.dtype) -> Float[Array, "inputs outputs"]:
    """The kernel that the codes stand for, reckoned in float32."""
    blocks, outputs = kernel["absmax"].shape
    scales = jnp.repeat(kernel["scales"], _SCALE_BLOCK)[: blocks * outputs].reshape(outputs, blocks).T
    absmax = jnp.asarray(_dynamic_levels())[kernel["absmax"]] * scales + kernel["offset"]
    codes = jnp.stack([kernel["codes"] >> 4, kernel["codes"] & 15], axis=1)
    codes = codes.reshape(blocks, NF4_BLOCK, outputs)
    return _values(codes, absmax[:, None]).astype(dtype).reshape(-1, outputs)


def _nearest(values: Array, levels: np.ndarray) -> UInt8[Array, "*shape"]:
    middles = jnp.asarray((levels[1:] + levels[:-1]) / 2)
    return jnp.searchsorted(middles, values, method="compare_all" if levels.size <= 16 else "scan").astype(
        jnp.uint8
    )


def _values(
    codes: UInt8[Array, "blocks block outputs"], absmax: Float[Array, "blocks 1 outputs"]
) -> Float[Array, "blocks block outputs"]:
    """Levels of codes times scales, by a tree of selections: vector units have no table to look them up in.

    The levels are multiplied before one is selected: as plain constants they would be taken out of the loop over
    layers, each as an array as large as the kernel.
    """
    values = [jnp.float32(level) * absmax for level in LEVELS]
    for bit in range(4):
        upper = (codes >> bit & 1) == 1
        pairs = zip(values[0::2], values[1::2], strict=True)
        values = [jnp.where(upper, high, low) for low, high in pairs]
    return values[0]
