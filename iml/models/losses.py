"""Losses as (sum, count) pairs, so that neither packing, micro-batches nor the mesh changes their mean."""

from __future__ import annotations

import jax.numpy as jnp
from jax.nn import logsumexp
from jaxtyping import Array, Float, Int


def token_nll(logits: Float[Array, "*b v"], targets: Int[Array, "*b"]) -> Float[Array, "*b"]:
    """Negative log-likelihood of each target, in nats; the softmax is computed in float32."""
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return logsumexp(logits, axis=-1) - picked


def target_loss(
    logits: Float[Array, "*b v"], targets: Int[Array, "*b"], weights: Float[Array, "*b"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the weighted NLL over all tokens, and the sum of the weights; the mean is left to the caller.

    OPT-IML divides by the target tokens of the global batch (metaseq, `vocab_parallel_cross_entropy.py`).
    """
    return jnp.sum(token_nll(logits, targets) * weights), jnp.sum(weights)
