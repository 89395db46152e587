"""The next token of every row, from its logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from iml.evaluation.engines.engine import Decoding


def choose(
    logits: Float[Array, "batch vocab"],
    decoding: Decoding,
    salts: UInt32[Array, " batch"],
    produced: Int[Array, " batch"],
) -> Int[Array, " batch"]:
    """The likeliest token, or one drawn by temperature, then top_k, then top_p, in transformers' order.

    Args:
      salts: with the seed and `produced` what a row's draw depends on: never on the rows beside it.
      produced: how many tokens the row has drawn before.
    """
    if not decoding.temperature:
        return likeliest(logits)
    logits = logits / decoding.temperature
    ids = None
    if decoding.top_k or decoding.top_p < 1:
        count = min(decoding.top_k or logits.shape[-1], logits.shape[-1])
        logits, ids = jax.lax.top_k(logits, count)
        chances = jax.nn.softmax(logits, axis=-1)
        # The first token always stays: what is before it is nothing.
        kept = jnp.cumsum(chances, axis=-1) - chances < decoding.top_p
        logits = jnp.where(kept, logits, -jnp.inf)
    seed = jax.random.key(decoding.seed)

    def draw(row: Array, salt: Array, number: Array) -> Array:
        return jax.random.categorical(jax.random.fold_in(jax.random.fold_in(seed, salt), number), row)

    drawn = jax.vmap(draw)(logits, salts, produced)
    if ids is not None:
        drawn = jnp.take_along_axis(ids, drawn[:, None], axis=-1)[:, 0]
    return drawn.astype(jnp.int32)


def likeliest(logits: Float[Array, "batch vocab"]) -> Int[Array, " batch"]:
    """The first of the greatest entries, or of those that are not numbers.

    XLA's CPU code vectorises these two reductions, and not that of `argmax` over pairs.
    """
    vocabulary = logits.shape[-1]
    beaten = logits < jnp.max(logits, axis=-1, keepdims=True)
    return jnp.min(jnp.where(beaten, vocabulary, jnp.arange(vocabulary, dtype=jnp.int32)), axis=-1)
