"""Attention within documents: causal, and blind to every other document of a packed row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from iml.errors import InputError

#: Implementations that exist here; another name is an error, never a silent substitute.
IMPLEMENTATIONS = ("xla",)


def document_mask(segment_ids: Int[Array, "b t"]) -> Bool[Array, "b t t"]:
    """Which keys each query sees: those of its own segment, up to itself. Padding (segment 0) sees itself."""
    length = segment_ids.shape[-1]
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return same & jnp.tril(jnp.ones((length, length), bool))


def document_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h d"],
    segment_ids: Int[Array, "b t"],
    *,
    implementation: str = "xla",
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> Float[Array, "b t h d"]:
    """Scaled dot-product attention, causal within each segment; softmax in float32.

    Args:
      segment_ids: document of each position, from 1; 0 is padding, whose output is finite and meaningless.
      implementation: one of `IMPLEMENTATIONS`.
      dropout_rate: on the attention weights, where a key is given.

    Raises:
      InputError: the implementation is unknown.
    """
    if implementation not in IMPLEMENTATIONS:
        raise InputError(
            f"no attention implementation {implementation!r}", remedy=f"Known: {', '.join(IMPLEMENTATIONS)}"
        )
    return masked_attention(
        query, key, value, document_mask(segment_ids), dropout_rate=dropout_rate, dropout_key=dropout_key
    )


def masked_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s h d"],
    value: Float[Array, "b s h d"],
    mask: Bool[Array, "b t s"],
    *,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> Float[Array, "b t h d"]:
    """The reference: scores and softmax in float32; a query that sees no key gives the mean of all values."""
    scores = jnp.einsum("bthd,bshd->bhts", query, key, preferred_element_type=jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    # The most negative finite number, not -inf: a row without a key must not become NaN.
    scores = jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1)
    if dropout_key is not None and dropout_rate > 0:
        kept = jax.random.bernoulli(dropout_key, 1 - dropout_rate, weights.shape)
        weights = jnp.where(kept, weights / (1 - dropout_rate), 0)
    return jnp.einsum("bhts,bshd->bthd", weights.astype(value.dtype), value)
