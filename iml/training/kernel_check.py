"""Does the attention that a run uses give what the plain reference gives, on this machine?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from iml.models import attention
from iml.models.config import OPTConfig
from iml.training import partition

#: Largest distance, over the norm of the reference, that rounding of the compute type may make.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
#: Rows are cut to this many positions: the reference forms the matrix of all pairs.
_LENGTH = 1024


class KernelError(RuntimeError):
    """An attention kernel is wrong on this machine."""


def compare(config: OPTConfig, mesh: jax.sharding.Mesh, length: int, seed: int = 0) -> float:
    """Compares result and gradients of a model's attention with the float32 reference.

    Args:
      config: the model, its `attention` resolved.
      mesh: the run's mesh; each device gets one row, and heads as in the run.
      length: positions of a row of the run.

    Returns:
      The largest distance from the reference, over its norm, of the result and of the gradients of query, key and
      value.

    Raises:
      KernelError: it is above `TOLERANCE`, or not a number.
    """
    random, length = np.random.default_rng(seed), min(length, _LENGTH)
    rows = partition.batch_shards(mesh)
    shape = (rows, length, config.num_heads, config.head_dim)
    arrays = [random.normal(size=shape).astype(jnp.dtype(config.dtype)) for _ in range(4)]
    # Documents of any length, padding at the end, and one row of nothing else where there are several.
    segment_ids = np.zeros((rows, length), np.int32)
    for row in segment_ids[: max(1, rows - 1)]:
        edges = np.sort(random.choice(np.arange(1, length), min(8, length - 1), replace=False))
        for number, (start, end) in enumerate(zip([0, *edges[:-1]], edges, strict=True), start=1):
            row[start:end] = number

    def passes(name, *arrays):
        def weighed(query, key, value):
            mixed = attention.document_attention(
                query, key, value, segment_ids, implementation=name, spread=partition.spread_attention(mesh)
            )
            return (mixed.astype(jnp.float32) * arrays[3].astype(jnp.float32)).sum(), mixed

        grads, mixed = jax.grad(weighed, (0, 1, 2), has_aux=True)(*arrays[:3])
        return mixed, *grads

    @jax.jit
    def distance(*arrays):
        found = passes(config.attention, *arrays)
        exact = passes("xla", *(array.astype(jnp.float32) for array in arrays))
        apart = [
            jnp.linalg.norm(ours.astype(jnp.float32) - theirs) / jnp.linalg.norm(theirs)
            for ours, theirs in zip(found, exact, strict=True)
        ]
        return jnp.stack(apart).max()

    with jax.default_matmul_precision("highest"):
        error = float(distance(*arrays))
    if not error <= TOLERANCE[config.dtype]:
        raise KernelError(
            f"attention {config.attention!r} is {error:.2g} away from the reference in {config.dtype}"
        )
    return error
