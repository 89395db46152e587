"""Document attention in plain XLA, block by block: no matrix of all pairs, and none but visible blocks computed.

After FlashAttention-2 (arXiv 2307.08691): the forward pass keeps a running softmax and leaves only the logarithm of
its normaliser behind; the backward pass computes each block of probabilities anew.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from iml.models.config import SAVED

#: Positions of a block. Rows no longer than that go to the plain reference: there is nothing to leave out.
BLOCK = 128
#: What stands for minus infinity: finite, so that no difference of two is NaN.
_MASKED = -1e30


def blocked_attention(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch length heads head_dim"],
    value: Float[Array, "batch length heads head_dim"],
    segment_ids: Int[Array, "batch length"],
    *,
    block: int = BLOCK,
) -> Float[Array, "batch length heads head_dim"]:
    """Causal attention within segments, as `iml.models.attention.document_attention` describes it.

    Time follows the visible blocks of the rows at hand, memory the row's length. Scores and sums are float32.
    On a mesh it is called under `shard_map`: how many blocks there are is known only where it runs.

    Args:
      block: positions of a block; rows need not be a multiple of it.
    """
    length = query.shape[1]
    short = -length % block
    # Padding comes last in a row; as the greatest id it keeps the ids of a block close together.
    ids = jnp.where(segment_ids > 0, segment_ids, jnp.iinfo(jnp.int32).max)
    ids = jnp.pad(ids, ((0, 0), (0, short)), constant_values=jnp.iinfo(jnp.int32).max)

    def heads_first(array: Array) -> Array:
        return jnp.pad(array.swapaxes(1, 2), ((0, 0), (0, 0), (0, short), (0, 0)))

    scaled = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    mixed = _attend(heads_first(scaled), heads_first(key), heads_first(value), ids, block)
    return mixed[:, :, :length].swapaxes(1, 2)


def visible_blocks(
    ids: Int[Array, "batch length"], block: int
) -> tuple[Int[Array, "pairs 3"], Int[Array, ""]]:
    """Pairs of blocks that may see each other: (row, block of queries, block of keys), and how many there are.

    Two blocks are left out where the ranges of their ids are apart, which leaves out every pair without a common
    document, and nearly only those where ids rise along the row. Pairs of one block of queries stand together; what
    comes after the count is no pair.
    """
    batch, length = ids.shape
    count = length // block
    by_block = ids.reshape(batch, count, block)
    low, high = by_block.min(-1), by_block.max(-1)
    meet = (low[:, :, None] <= high[:, None, :]) & (low[:, None, :] <= high[:, :, None])
    visible = (meet & jnp.tril(jnp.ones((count, count), bool))).reshape(-1)
    order = jnp.argsort(~visible, stable=True)
    row, place = jnp.divmod(order, count * count)
    return jnp.stack([row, *jnp.divmod(place, count)], axis=-1).astype(jnp.int32), visible.sum(
        dtype=jnp.int32
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(query: Array, key: Array, value: Array, ids: Array, block: int) -> Array:
    return _forward(query, key, value, ids, block)[0]


def _cut(array: Array, row: Array, place: Array, block: int) -> Array:
    """A block of a row: [heads, block, head_dim] of [batch, heads, length, head_dim]."""
    _, heads, _, width = array.shape
    return jax.lax.dynamic_slice(array, (row, 0, place * block, 0), (1, heads, block, width))[0]


def _put(array: Array, part: Array, row: Array, place: Array, block: int) -> Array:
    return jax.lax.dynamic_update_slice(array, part[None].astype(array.dtype), (row, 0, place * block, 0))


def _seen(ids: Array, row: Array, i: Array, j: Array, block: int) -> Array:
    """Which keys of block j the queries of block i see: bool [block, block]."""
    of_queries, of_keys = (
        jax.lax.dynamic_slice(ids, (row, place * block), (1, block))[0] for place in (i, j)
    )
    steps = jnp.arange(block)
    causal = (i - j) * block + steps[:, None] >= steps
    return (of_queries[:, None] == of_keys) & causal


def _product(spec: str, a: Array, b: Array) -> Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _forward(
    query: Array, key: Array, value: Array, ids: Array, block: int
) -> tuple[Array, tuple[Array, ...]]:
    pairs, count = visible_blocks(ids, block)
    shape = query.shape

    def visit(number: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        mixed, total, top = carry
        row, i, j = pairs[number]
        scores = _product("hqd,hkd->hqk", _cut(query, row, i, block), _cut(key, row, j, block))
        scores = jnp.where(_seen(ids, row, i, j, block), scores, _MASKED)
        before = _cut(top, row, i, block)
        now = jnp.maximum(before, scores.max(-1, keepdims=True))
        weights, kept = jnp.exp(scores - now), jnp.exp(before - now)
        added = _product("hqk,hkd->hqd", weights.astype(value.dtype), _cut(value, row, j, block))
        return (
            _put(mixed, _cut(mixed, row, i, block) * kept + added, row, i, block),
            _put(total, _cut(total, row, i, block) * kept + weights.sum(-1, keepdims=True), row, i, block),
            _put(top, now, row, i, block),
        )

    start = (
        jnp.zeros(shape, jnp.float32),
        jnp.zeros((*shape[:-1], 1), jnp.float32),
        jnp.full((*shape[:-1], 1), _MASKED),
    )
    # Every query sees itself, so no total stays 0; what a masked block added before that is multiplied by 0.
    mixed, total, top = jax.lax.fori_loop(0, count, visit, start)
    mixed = checkpoint_name((mixed / total).astype(query.dtype), SAVED)
    return mixed, (query, key, value, ids, mixed, checkpoint_name(top + jnp.log(total), SAVED))


def _backward(block: int, kept: tuple[Array, ...], grad: Array) -> tuple[Array, Array, Array, None]:
    query, key, value, ids, mixed, normaliser = kept
    pairs, count = visible_blocks(ids, block)
    inner = (grad.astype(jnp.float32) * mixed.astype(jnp.float32)).sum(-1, keepdims=True)

    def visit(number: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        grad_query, grad_key, grad_value = carry
        row, i, j = pairs[number]
        q, g = (_cut(array, row, i, block) for array in (query, grad))
        k, v = (_cut(array, row, j, block) for array in (key, value))
        scores = jnp.where(_seen(ids, row, i, j, block), _product("hqd,hkd->hqk", q, k), _MASKED)
        weights = jnp.exp(scores - _cut(normaliser, row, i, block))
        slope = weights * (_product("hqd,hkd->hqk", g, v) - _cut(inner, row, i, block))
        weights, slope = weights.astype(query.dtype), slope.astype(query.dtype)
        grad_query = _put(
            grad_query, _cut(grad_query, row, i, block) + _product("hqk,hkd->hqd", slope, k), row, i, block
        )
        grad_key = _put(
            grad_key, _cut(grad_key, row, j, block) + _product("hqk,hqd->hkd", slope, q), row, j, block
        )
        grad_value = _put(
            grad_value, _cut(grad_value, row, j, block) + _product("hqk,hqd->hkd", weights, g), row, j, block
        )
        return grad_query, grad_key, grad_value

    zeros = (jnp.zeros(query.shape, jnp.float32),) * 3
    grads = jax.lax.fori_loop(0, count, visit, zeros)
    return (*(grad.astype(query.dtype) for grad in grads), None)


_attend.defvjp(_forward, _backward)
