"""Attention that is causal within a document, over rows that hold several documents.

The one mask contract: a query sees the keys at or before it whose segment id is its own. An implementation
that cannot honour it raises; none falls back on another in silence.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from iml.errors import InputError

#: (query, key, value, segment ids) to the attended values.
DocumentAttention = Callable[[Array, Array, Array, Array], Array]

#: The platforms that each implementation runs on; () for all.
IMPLEMENTATIONS: dict[str, tuple[str, ...]] = {"xla": (), "splash": ("tpu",)}
#: What "auto" stands for; "xla" where a platform is not named.
_BEST = {"tpu": "splash"}


def resolve(name: str, platform: str, dropout_rate: float = 0.0) -> str:
    """The implementation that a name stands for on a platform ("cpu", "gpu", "tpu"); "auto" is the best there.

    Raises:
      InputError: it is unknown, does not run there, or cannot drop attention probabilities as asked for.
    """
    if name == "auto":
        return "xla" if dropout_rate else _BEST.get(platform, "xla")
    if name not in IMPLEMENTATIONS:
        known = ", ".join(("auto", *IMPLEMENTATIONS))
        raise InputError(f"unknown attention {name!r}", field="OPTConfig.attention", remedy=f"Known: {known}")
    platforms = IMPLEMENTATIONS[name]
    if platforms and platform not in platforms:
        raise InputError(
            f"attention {name!r} does not run on {platform}",
            field="OPTConfig.attention",
            remedy=f'It runs on {", ".join(platforms)}; "auto" takes the best there is',
        )
    if dropout_rate and name != "xla":
        raise InputError(
            f"attention {name!r} has no dropout", field="OPTConfig.attention_dropout", remedy="Set it to 0"
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
    spread: Callable[[DocumentAttention], DocumentAttention] = lambda attend: attend,
) -> Float[Array, "batch length heads head_dim"]:
    """Causal attention within segments; logits are scaled by head_dim ** -0.5, the softmax is float32.

    Segment 0 is padding. Its positions see one another, which keeps their results finite; no other position
    sees them.

    Args:
      implementation: a name of `IMPLEMENTATIONS`, as `resolve` gives it.
      spread: makes of a function of whole arrays one of arrays that lie on a mesh; kernels need it.

    Raises:
      InputError: `implementation` is unknown or cannot do what is asked.
    """
    if implementation == "splash":
        from iml.models.splash import splash_attention

        resolve(implementation, "tpu", dropout_rate)
        return spread(splash_attention)(query, key, value, segment_ids)
    if implementation != "xla":
        resolve(implementation, jax.default_backend())
        raise InputError("has to be resolved first", field="OPTConfig.attention")
    length = segment_ids.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    mask = (segment_ids[:, :, None] == segment_ids[:, None, :]) & causal
    return masked_attention(query, key, value, mask, dropout_rate=dropout_rate, dropout_key=dropout_key)


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
