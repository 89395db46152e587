"""Attention that is causal within a document, over rows that hold several documents.

The one mask contract: a query sees the keys at or before it whose segment id is its own. An implementation
that cannot honour it raises; none falls back on another in silence.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from iml.errors import InputError
from iml.models import gpu
from iml.models.blocks import BLOCK, blocked_attention
from iml.models.config import SAVED

#: (query, key, value, segment ids) to the attended values.
DocumentAttention = Callable[[Array, Array, Array, Array], Array]
#: Documents that a row may hold where nothing else is said.
DOCUMENTS = 64


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An implementation.

    Attributes:
      platforms: where it runs; () for everywhere.
      missing: says of a compute dtype why the kernel cannot be had on this machine, or None.
      saves: whether what its backward pass needs can be saved by name, which `OPTConfig.remat` "attention" does.
    """

    platforms: tuple[str, ...] = ()
    missing: Callable[[str], str | None] = lambda dtype: None
    saves: bool = True


IMPLEMENTATIONS: dict[str, Kernel] = {
    "xla": Kernel(),
    "blocks": Kernel(),
    "splash": Kernel(("tpu",)),
    "cudnn": Kernel(("gpu",), gpu.cudnn_missing, saves=False),
    "tokamax": Kernel(("gpu",), gpu.tokamax_missing, saves=False),
    "pallas": Kernel(("gpu",), gpu.pallas_missing, saves=False),
}
#: What "auto" stands for: the first that can be had.
_BEST = {"tpu": ("splash",), "gpu": ("cudnn", "tokamax", "pallas", "blocks"), "cpu": ("blocks",)}


def available(platform: str, dtype: str = "bfloat16") -> dict[str, str | None]:
    """The implementations for a platform, and why one cannot be had on this machine; None if it can."""
    return {
        name: kernel.missing(dtype)
        for name, kernel in IMPLEMENTATIONS.items()
        if not kernel.platforms or platform in kernel.platforms
    }


def resolve(name: str, platform: str, dropout_rate: float = 0.0, dtype: str = "bfloat16") -> str:
    """The implementation that a name stands for on a platform ("cpu", "gpu", "tpu"); "auto" is the best there.

    Raises:
      InputError: it is unknown, does not run there, is not at hand, or cannot drop attention probabilities as
        asked for.
    """
    field = "OPTConfig.attention"
    if name == "auto":
        if dropout_rate:
            return "xla"
        reasons = available(platform, dtype)
        return next((best for best in _BEST.get(platform, ()) if reasons[best] is None), "xla")
    if name not in IMPLEMENTATIONS:
        known = ", ".join(("auto", *IMPLEMENTATIONS))
        raise InputError(f"unknown attention {name!r}", field=field, remedy=f"Known: {known}")
    platforms = IMPLEMENTATIONS[name].platforms
    if platforms and platform not in platforms:
        raise InputError(
            f"attention {name!r} does not run on {platform}",
            field=field,
            remedy=f'It runs on {", ".join(platforms)}; "auto" takes the best there is',
        )
    if dropout_rate and name != "xla":
        raise InputError(
            f"attention {name!r} has no dropout", field="OPTConfig.attention_dropout", remedy="Set it to 0"
        )
    if reason := IMPLEMENTATIONS[name].missing(dtype):
        raise InputError(
            f"attention {name!r} is not to be had here: {reason}",
            field=field,
            remedy='"auto" takes the best there is',
        )
    return name


def document_attention(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch length heads head_dim"],
    value: Float[Array, "batch length heads head_dim"],
    segment_ids: Int[Array, "batch length"],
    *,
    implementation: str = "xla",
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    documents: int = DOCUMENTS,
    spread: Callable[[DocumentAttention], DocumentAttention] = lambda attend: attend,
) -> Float[Array, "batch length heads head_dim"]:
    """Causal attention within segments; logits are scaled by head_dim ** -0.5, the softmax is float32.

    Segment 0 is padding. Its positions see one another, which keeps their results finite; no other position
    sees them.

    Args:
      implementation: a name of `IMPLEMENTATIONS`, as `resolve` gives it.
      documents: the most that a row holds; cuDNN needs to know, and gives NaN where there are more.
      spread: makes of a function of whole arrays one of arrays that lie on a mesh; kernels need it.

    Raises:
      InputError: `implementation` is unknown or cannot do what is asked.
    """
    one_block = implementation == "blocks" and segment_ids.shape[1] <= BLOCK and not dropout_rate
    if implementation != "xla" and not one_block:
        return spread(_kernel(implementation, dropout_rate, documents))(query, key, value, segment_ids)
    length = segment_ids.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    mask = (segment_ids[:, :, None] == segment_ids[:, None, :]) & causal
    mixed = masked_attention(query, key, value, mask, dropout_rate=dropout_rate, dropout_key=dropout_key)
    return checkpoint_name(mixed, SAVED)


def _kernel(name: str, dropout_rate: float, documents: int) -> DocumentAttention:
    platform = next(iter(IMPLEMENTATIONS[name].platforms), "") if name in IMPLEMENTATIONS else ""
    resolve(name, platform, dropout_rate)
    if name == "splash":
        from iml.models.splash import splash_attention

        return splash_attention
    if name == "blocks":
        return blocked_attention
    if name == "cudnn":
        return functools.partial(gpu.cudnn_attention, documents=documents)
    if name == "tokamax":
        return gpu.tokamax_attention
    if name == "pallas":
        return gpu.pallas_attention
    raise InputError("has to be resolved first", field="OPTConfig.attention")


def masked_attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    mask: Bool[Array, "batch queries keys"],
    *,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> Float[Array, "batch queries heads head_dim"]:
    """Attention under any mask; a query that may see nothing gets the mean of all values, never NaN."""
    scaled = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("bqhd,bkhd->bhqk", scaled, key, preferred_element_type=jnp.float32)
    logits = jnp.where(mask[:, None], logits, jnp.finfo(jnp.float32).min)
    weights = dropout(jax.nn.softmax(logits, axis=-1), dropout_rate, dropout_key)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)


def dropout(x: Array, rate: float, key: jax.Array | None) -> Array:
    """Inverted dropout; without a key or a rate, `x` itself."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))
