"""From the hidden states of a batch to the summed loss that is differentiated, and to the metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from iml.models import losses
from iml.models.opt import OPT
from iml.training import partition

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
#: (parameters, hidden states, batch, scale) to the scaled sum and the metrics.
Objective = Callable[[Any, jax.Array, Batch, jax.Array | float], tuple[jax.Array, Metrics]]


def make_objective(
    model: OPT,
    mesh: Mesh,
    table: PartitionSpec,
    task_benchmarks: Sequence[int] = (0,),
    benchmarks: int = 1,
    loss_chunk: int | None = None,
) -> Objective:
    """The sum over the targets of their negative log-likelihood, which gradients are taken of.

    Args:
      table: how the token table lies on the mesh.
      task_benchmarks: for each task number the number of its benchmark.
      benchmarks: how many benchmarks there are, K.
      loss_chunk: positions of a device whose logits are held at a time; None or 0 for all.

    Returns:
      A function of (parameters, hidden states, batch, scale). It gives the sum times the scale, and, not scaled:
      loss_sum and target_tokens, tokens and positions: float32 []; benchmark_loss_sum and benchmark_tokens:
      float32 [K].
    """
    benchmark_of = jnp.asarray(task_benchmarks, jnp.int32)
    spread = partition.spread_loss(mesh, table)

    def objective(params, hidden, batch, scale=1.0):
        hidden, targets, weights, segment_ids = _learnt(batch, hidden)
        # The scale goes in where the loss begins: gradients are float16 from there on.
        scaled = weights * scale
        if loss_chunk:
            embedding = params["embed_tokens"]["embedding"]
            loss, nll = losses.chunked_loss(
                hidden, embedding, targets, scaled, chunk=loss_chunk, spread=spread
            )
        else:
            nll = losses.token_nll(model.logits(params, hidden), targets)
            loss = losses.weighted_sum(nll, scaled)
        nll = jnp.where(weights > 0, nll * weights, 0.0)
        segment = jnp.maximum(segment_ids - 1, 0)
        task = jnp.take_along_axis(batch["task_ids"], segment, axis=1)
        benchmark = benchmark_of[jnp.maximum(task, 0)]
        one_hot = jax.nn.one_hot(benchmark, benchmarks, dtype=jnp.float32)
        return loss, {
            "loss_sum": nll.sum(),
            "target_tokens": weights.sum(),
            "tokens": (batch["segment_ids"] > 0).sum(dtype=jnp.float32),
            "positions": jnp.float32(batch["tokens"].size),
            "benchmark_loss_sum": jnp.einsum("bl,blk->k", nll, one_hot),
            "benchmark_tokens": jnp.einsum("bl,blk->k", weights, one_hot),
        }

    return objective


def _learnt(batch: Batch, hidden: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Hidden states, targets, weights and segment ids of the positions that the loss is taken at.

    Those are the batch's `target_positions` if it has them, else all: logits over the whole vocabulary are
    the largest arrays of a step, and few positions of instruction data are learnt.
    """
    fields = (batch["targets"], batch["loss_weights"], batch["segment_ids"])
    if "target_positions" not in batch:
        return hidden, *fields
    places = batch["target_positions"]
    # Negative places stand for none: they take what position 0 has, with no weight.
    index = jnp.maximum(places, 0)
    hidden = jnp.take_along_axis(hidden, index[..., None], axis=1)
    targets, weights, segment_ids = (jnp.take_along_axis(field, index, axis=1) for field in fields)
    return hidden, targets, jnp.where(places >= 0, weights, 0.0), segment_ids
