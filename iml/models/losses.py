"""The training loss as a (sum, count) pair: divided once, by the target count of the global batch.

metaseq divides the summed negative log-likelihood by the number of target tokens in the global batch, so
micro-batches, packing and the shape of the mesh must not change the mean.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def token_nll(logits: Float[Array, "*batch vocab"], targets: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Negative log-likelihood of each target in nats, by a float32 log-softmax."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def target_loss(
    logits: Float[Array, "*batch vocab"], targets: Int[Array, "*batch"], weights: Float[Array, "*batch"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The weighted sum of the targets' negative log-likelihood, and the sum of the weights; both float32."""
    weights = weights.astype(jnp.float32)
    # A position of weight 0 counts for nothing even where its logits are not finite.
    nll = jnp.where(weights > 0, token_nll(logits, targets), 0.0)
    return jnp.sum(nll * weights), jnp.sum(weights)
