"""Document attention on NVIDIA GPUs, by kernels of other projects: cuDNN, tokamax and JAX's own Pallas.

Each has a function that attends and one that says why it cannot be had here, or None. Both need a GPU at hand. All
take rows whose documents stand one after the other, each id in one piece, padding included.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from iml.errors import InputError

_CUDNN = "jax._src.cudnn.fused_attention_stablehlo"
_TOKAMAX = "tokamax._src.ops.attention"
_PALLAS = "jax.experimental.pallas.ops.gpu.attention"
#: Version of cuDNN from which the packed layout can be trained with.
_CUDNN_VERSION = 90600
#: tokamax's kernel for Hopper and Blackwell takes heads of a multiple of this; others are filled up with zeros.
_TOKAMAX_HEAD = 64


# ------------------------------------------------------------------------------------------- cuDNN


def cudnn_missing(dtype: str) -> str | None:
    """Why cuDNN's packed layout cannot be had here; None if it can."""
    if reason := _no_gpu((9, 0)):
        return reason
    if dtype not in ("bfloat16", "float16"):
        return f"it computes in bfloat16 or float16, not {dtype}"
    try:
        module = importlib.import_module(_CUDNN)
        version = module.check_cudnn_version()
        _ = module.dot_product_attention, module.MaskType.PADDING_CAUSAL
    except (ImportError, AttributeError) as error:
        return f"this version of JAX, {jax.__version__}, has moved it ({error})"
    except RuntimeError as error:
        return str(error)
    return None if version >= _CUDNN_VERSION else f"it needs cuDNN 9.6, not {version}"


def cudnn_attention(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch length heads head_dim"],
    value: Float[Array, "batch length heads head_dim"],
    segment_ids: Int[Array, "batch length"],
    *,
    documents: int,
) -> Float[Array, "batch length heads head_dim"]:
    """Causal attention within segments by cuDNN's packed layout, which computes no pair across documents.

    Its statistics take batch * (documents + 1) * heads * length float32 for the backward pass. A row of more
    documents gives NaN: cuDNN would leave some of them out without a word.

    Args:
      documents: the most that a row holds.
    """
    module = importlib.import_module(_CUDNN)
    starts, sizes, count = packed_layout(segment_ids, documents + 1)
    mixed = module.dot_product_attention(
        query,
        key,
        value,
        q_seqlen=sizes,
        kv_seqlen=sizes,
        q_offsets=starts,
        kv_offsets=starts,
        scale=query.shape[-1] ** -0.5,
        mask_type=module.MaskType.PADDING_CAUSAL,
    )
    return jnp.where((count > documents + 1)[:, None, None, None], jnp.nan, mixed)


def packed_layout(
    segment_ids: Int[Array, "batch length"], most: int
) -> tuple[Int[Array, "batch most+1"], Int[Array, "batch most"], Int[Array, " batch"]]:
    """Starts and sizes of the pieces of one id, padding being one of them; -1 where there is none; their number."""
    length = segment_ids.shape[1]
    place = jnp.arange(length, dtype=jnp.int32)
    begins = _begins(segment_ids)
    starts = jnp.sort(jnp.where(begins, place, length), axis=1)[:, : most + 1]
    starts = jnp.pad(starts, ((0, 0), (0, max(0, most + 1 - length))), constant_values=length)
    sizes = jnp.where(starts[:, :-1] < length, starts[:, 1:] - starts[:, :-1], -1)
    count = begins.sum(axis=1)
    used = jnp.arange(most + 1) < jnp.minimum(count, most)[:, None]
    return jnp.where(used, starts, -1), sizes, count


# ----------------------------------------------------------------------------------------- tokamax


def tokamax_missing(dtype: str) -> str | None:
    """Why tokamax cannot be had here; None if it can."""
    if reason := _no_gpu((8, 0)):
        return reason
    if dtype not in ("bfloat16", "float16"):
        return f"it computes in bfloat16 or float16, not {dtype}"
    try:
        _tokamax_kernel()
        _ = _tokamax("base").Mask
    except (ImportError, AttributeError) as error:
        return f"tokamax cannot be imported ({error}): pip install 'iml[tokamax]'"
    return None


def tokamax_attention(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch length heads head_dim"],
    value: Float[Array, "batch length heads head_dim"],
    segment_ids: Int[Array, "batch length"],
    *,
    kernel: Any = None,
) -> Float[Array, "batch length heads head_dim"]:
    """Causal attention within segments by tokamax, told the first key that each query may see.

    Args:
      kernel: one of tokamax's attention operations; by default the one for this GPU.
    """
    base = _tokamax("base")
    head_dim = query.shape[-1]
    wider = ((0, 0), (0, 0), (0, 0), (0, -head_dim % _TOKAMAX_HEAD))
    attend = kernel or _tokamax_kernel()
    mixed = attend(
        *(jnp.pad(array, wider) for array in (query, key, value)),
        mask=base.Mask(is_causal=True, k_start=first_keys(segment_ids)[:, None]),
        logits_scale=head_dim**-0.5,
    )
    return mixed[..., :head_dim]


def first_keys(segment_ids: Int[Array, "batch length"]) -> Int[Array, "batch length"]:
    """The place where each position's document starts."""
    place = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)
    return jax.lax.cummax(jnp.where(_begins(segment_ids), place, 0), axis=1)


def _tokamax_kernel() -> Any:
    capability = _capability()
    if capability is not None and capability[0] in (9, 10):
        return _tokamax("pallas_mosaic_gpu").PallasMosaicGpuFlashAttention()
    return _tokamax("pallas_triton").PallasTritonFlashAttention()


def _tokamax(name: str) -> Any:
    from absl import flags

    module = importlib.import_module(f"{_TOKAMAX}.{name}")
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # else its own flags would make it parse the whole command line
    return module


# ------------------------------------------------------------------------------------------ Pallas


def pallas_missing(dtype: str) -> str | None:
    """Why JAX's Pallas kernel cannot be had here; None if it can."""
    del dtype
    if reason := _no_gpu((8, 0)):
        return reason
    try:
        _ = _pallas().mha
    except (ImportError, AttributeError) as error:
        return f"this version of JAX, {jax.__version__}, does not have it ({error})"
    return None


def pallas_attention(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch length heads head_dim"],
    value: Float[Array, "batch length heads head_dim"],
    segment_ids: Int[Array, "batch length"],
    *,
    interpret: bool = False,
) -> Float[Array, "batch length heads head_dim"]:
    """Causal attention within segments by the Triton kernel that comes with JAX; it skips no other document.

    Args:
      interpret: run the kernel's steps on any device, slowly, to check them.

    Raises:
      InputError: the length is no multiple of 128, nor a power of 2 below it.
    """
    length, head_dim = query.shape[1], query.shape[-1]
    if length % 128 and (length > 128 or length & (length - 1) or length < 16):
        raise InputError(
            f"Pallas attention needs rows of a multiple of 128 positions, not {length}",
            field="OPTConfig.attention",
        )
    return _pallas().mha(query, key, value, segment_ids, head_dim**-0.5, True, interpret=interpret)


@functools.cache
def _pallas() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # in favour of tokamax, which is another choice
        return importlib.import_module(_PALLAS)


def _begins(segment_ids: Array) -> Array:
    """Where a piece of one id begins: bool [batch, length]."""
    changes = segment_ids[:, 1:] != segment_ids[:, :-1]
    return jnp.pad(changes, ((0, 0), (1, 0)), constant_values=True)


def _no_gpu(least: tuple[int, int]) -> str | None:
    capability = _capability()
    if capability is None:
        return "no NVIDIA GPU is at hand"
    if capability < least:
        wanted, found = (".".join(map(str, version)) for version in (least, capability))
        return f"it needs a GPU of compute capability {wanted}, not {found}"
    return None


def _capability() -> tuple[int, ...] | None:
    """The compute capability of this machine's first NVIDIA GPU."""
    if jax.default_backend() != "gpu":
        return None
    found = getattr(jax.local_devices()[0], "compute_capability", None)
    try:
        return tuple(int(part) for part in found.split("."))
    except (AttributeError, ValueError):
        return None
