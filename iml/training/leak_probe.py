"""Does packing leak? Asked of the compiled forward pass itself, with the run's mesh, kernel and types."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iml.models.opt import OPT
from iml.training import partition


class LeakError(RuntimeError):
    """A document of a packed row is changed by its neighbour, or not by itself."""


def probe(model: OPT, params: Any, mesh: jax.sharding.Mesh, length: int, seed: int = 0) -> float:
    """Changes one document of packed rows and looks at the others.

    Args:
      model: the model, with the attention that the run uses.
      params: its parameters, as they lie on the mesh.
      mesh: the run's mesh.
      length: positions of a row, at least 4.
      seed: of the random documents.

    Returns:
      The largest change of a hidden state within the changed document, above 0.

    Raises:
      LeakError: another document changed at all, or a value is not finite, or the changed one did not change.
    """
    rows = partition.batch_shards(mesh)
    random = np.random.default_rng(seed)
    ends = [max(1, length // 4), max(2, length // 2), max(3, length - max(1, length // 8))]
    segments, positions = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
    for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True), start=1):
        segments[:, start:end] = number
        positions[:, start:end] = np.arange(end - start)
    # Ids from 4 on: special tokens might be treated apart.
    tokens = np.where(segments > 0, random.integers(4, model.config.vocab_size, (rows, length)), 1)
    sharding = partition.shard_batch(mesh)
    arrays = [_spread(array.astype(np.int32), sharding) for array in (segments, positions)]
    changes = {}
    whole = partition.replicated(mesh)

    @jax.jit
    def compare(params, tokens, other, segments, positions):
        before = model.hidden(params, tokens, segments, positions).astype(jnp.float32)
        after = model.hidden(params, other, segments, positions).astype(jnp.float32)
        change = jnp.where(jnp.isfinite(before + after), jnp.abs(before - after), jnp.inf).max(axis=-1)
        by_segment = [jnp.where(segments == number, change, 0.0).max() for number in (1, 2, 3)]
        return jax.lax.with_sharding_constraint(jnp.stack(by_segment), whole)

    for changed in (1, 2, 3):
        poison = random.integers(4, model.config.vocab_size, (rows, length))
        other = np.where(segments == changed, poison, tokens)
        pair = [_spread(array.astype(np.int32), sharding) for array in (tokens, other)]
        changes[changed] = np.asarray(compare(params, *pair, *arrays))
        for number in (1, 2, 3):
            change = float(changes[changed][number - 1])
            if number != changed and change != 0.0:
                raise LeakError(
                    f"packing leaks: a change of document {changed} changes document {number} by {change}"
                )
            if number == changed and not 0.0 < change < np.inf:
                raise LeakError(
                    f"changing document {changed} of a row changes its own hidden states by {change}"
                )
    return float(max(changes[number][number - 1] for number in (1, 2, 3)))


def _spread(array: np.ndarray, sharding: jax.sharding.NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
