"""The training loss as a (sum, count) pair: divided once, by the target count of the global batch.

metaseq divides the summed negative log-likelihood by the number of target tokens in the global batch, so
micro-batches, packing and the shape of the mesh must not change the mean.

`chunked_loss` never holds the logits of all positions: the vocabulary has 50,272 words, and float32 logits of
2,048 positions are 412 MB.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

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
    return weighted_sum(token_nll(logits, targets), weights), jnp.sum(weights)


def weighted_sum(nll: Float[Array, "*batch"], weights: Float[Array, "*batch"]) -> Float[Array, ""]:
    """A position of weight 0 counts for nothing even where its loss is not finite."""
    return jnp.sum(jnp.where(weights > 0, nll * weights, 0.0))


class LossParts(NamedTuple):
    """Loss and gradients of the weighted sum of the losses of some positions.

    Attributes:
      nll: negative log-likelihood of each target, float32.
      hidden: gradient of the hidden states, in their dtype; None if not asked for.
      table: gradient of the table, float32; None if not asked for.
    """

    nll: Float[Array, "batch length"]
    hidden: Float[Array, "batch length embed"] | None
    table: Float[Array, "vocab embed"] | None


#: (hidden states, table in their dtype, targets, weights, vocab_axis) to the parts; see `loss_by_chunks`.
Loss = Callable[..., LossParts]


def chunked_loss(
    hidden: Float[Array, "batch length embed"],
    table: Float[Array, "vocab embed"],
    targets: Int[Array, "batch length"],
    weights: Float[Array, "batch length"],
    *,
    chunk: int,
    spread: Callable[[Loss], Loss] = lambda loss: loss,
) -> tuple[Float[Array, ""], Float[Array, "batch length"]]:
    """The loss of `target_loss` for logits hidden @ table.T that are never held whole.

    The loss is a plain sum, so its gradients by hidden states and table are known up to a factor as soon as a
    chunk's logits are: they are computed with them, and the backward pass only multiplies. Nothing is computed
    twice, and what is saved is as large as hidden states and table.

    Args:
      weights: weights of the positions; the loss has no gradient by them.
      chunk: positions of a device whose logits are held at a time.
      spread: makes of a loss of whole arrays one of arrays that lie on a mesh.

    Returns:
      The weighted sum, and the negative log-likelihood of each target, which carries no gradient; float32.
    """

    def parts(hidden, table, targets, weights, *, of_hidden: bool, of_table: bool) -> LossParts:
        loss = functools.partial(loss_by_chunks, chunk=chunk, of_hidden=of_hidden, of_table=of_table)
        return spread(loss)(hidden, table.astype(hidden.dtype), targets, weights)

    @jax.custom_vjp
    def total(hidden, table, targets, weights):
        nll = parts(hidden, table, targets, weights, of_hidden=False, of_table=False).nll
        return weighted_sum(nll, weights), nll

    def forward(*primals):
        found = parts(
            *(primal.value for primal in primals),
            of_hidden=primals[0].perturbed,
            of_table=primals[1].perturbed,
        )
        # Gradients are kept in the dtype that the backward pass has to give them in.
        by_table = None if found.table is None else found.table.astype(primals[1].value.dtype)
        return (weighted_sum(found.nll, primals[3].value), found.nll), (found.hidden, by_table)

    def backward(saved, cotangents):
        factor = cotangents[0]
        scaled = (None if leaf is None else (leaf * factor).astype(leaf.dtype) for leaf in saved)
        return (*scaled, None, None)

    total.defvjp(forward, backward, symbolic_zeros=True)
    loss, nll = total(hidden, table, targets, weights.astype(jnp.float32))
    return loss, jax.lax.stop_gradient(nll)


def loss_by_chunks(
    hidden: Float[Array, "batch length embed"],
    table: Float[Array, "vocab embed"],
    targets: Int[Array, "batch length"],
    weights: Float[Array, "batch length"],
    *,
    chunk: int,
    of_hidden: bool,
    of_table: bool,
    vocab_axis: str | None = None,
) -> LossParts:
    """Loss and gradients of the positions and of the part of the vocabulary that a device has.

    Products are in the dtype of `hidden` and `table`, which is the same, and summed in float32.

    Args:
      vocab_axis: the mesh axis over which the vocabulary is split; the table is then this device's part, and
        so is its gradient. Within `jax.shard_map` only.
    """
    over = functools.partial(jax.lax.psum, axis_name=vocab_axis) if vocab_axis else lambda x: x
    vocab = table.shape[0]
    first = jax.lax.axis_index(vocab_axis) * vocab if vocab_axis else 0

    def one_chunk(by_table: Array | None, taken: tuple[Array, Array, Array]):
        states, wanted, weight = taken
        logits = jnp.einsum("cd,vd->cv", states, table, preferred_element_type=jnp.float32)
        top = logits.max(-1, keepdims=True)
        top = jax.lax.pmax(top, vocab_axis) if vocab_axis else top
        exponentials = jnp.exp(logits - top)
        total = over(exponentials.sum(-1, keepdims=True))
        is_target = jnp.arange(vocab) == (wanted - first)[:, None]
        chosen = over(jnp.where(is_target, logits, 0.0).sum(-1))
        nll = (jnp.log(total) + top)[:, 0] - chosen
        weight = weight[:, None]
        by_logits = jnp.where(weight > 0, (exponentials / total - is_target) * weight, 0.0)
        by_logits = by_logits.astype(table.dtype)
        by_hidden = None
        if of_hidden:
            by_hidden = jnp.einsum("cv,vd->cd", by_logits, table, preferred_element_type=jnp.float32)
            by_hidden = by_hidden.astype(states.dtype)
        if of_table:
            by_table += jnp.einsum("cv,cd->vd", by_logits, states, preferred_element_type=jnp.float32)
        return by_table, (nll, by_hidden)

    rows, length, width = hidden.shape
    count = rows * length
    turns = -(-count // chunk)
    size = -(-count // turns)

    def cut(array: Array) -> Array:
        flat = array.reshape(count, *array.shape[2:])
        padding = [(0, turns * size - count)] + [(0, 0)] * (flat.ndim - 1)
        return jnp.pad(flat, padding).reshape(turns, size, *flat.shape[1:])

    start = jnp.zeros(table.shape, jnp.float32) if of_table else None
    by_table, (nll, by_hidden) = jax.lax.scan(one_chunk, start, (cut(hidden), cut(targets), cut(weights)))
    nll = nll.reshape(-1)[:count].reshape(rows, length)
    if of_hidden:
        # The parts of the vocabulary add up; once for all chunks.
        by_hidden = over(by_hidden.reshape(-1, width)[:count].reshape(hidden.shape))
    return LossParts(nll, by_hidden, by_table)
