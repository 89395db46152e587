"""From logical axis names to shardings, by a table of rules as in T5X."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from iml.errors import InputError
from iml.models.losses import Loss, LossParts
from iml.training.rules import PartitionRules

#: Mesh axes over which the rows of the global batch are split.
BATCH_AXES = ("data", "fsdp")


def shard_params(abstract: Any, axes: Any, rules: PartitionRules, mesh: Mesh) -> Any:
    """Shardings in the shape of the parameters.

    Args:
      abstract: parameters as `jax.ShapeDtypeStruct`.
      axes: their logical axes, a tuple of names in place of each.

    Raises:
      InputError: a dimension cannot be divided over its mesh axis.
    """

    def shard(path, leaf, names):
        spec = PartitionSpec(*rules.mesh_axes(names, mesh.axis_names))
        for size, name, axis in zip(leaf.shape, names, spec, strict=True):
            if axis is not None and size % mesh.shape[axis]:
                raise InputError(
                    f"{jax.tree_util.keystr(path)}: axis {name!r} of size {size} cannot be divided over "
                    f"{mesh.shape[axis]} devices ({axis})",
                    field="MeshConfig",
                    remedy=f"Choose another size of {axis!r}, or bind PartitionRules.rules",
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(shard, abstract, axes)


def shard_batch(mesh: Mesh) -> NamedSharding:
    """The sharding of every array of a batch: rows over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def gather_frozen(mesh: Mesh, rules: PartitionRules) -> Callable[[jax.Array, Any], jax.Array]:
    """Makes of an array and its logical axes the array as it is multiplied: whole over the axes of the batch."""

    def gather(array: jax.Array, names: Any) -> jax.Array:
        axes = rules.mesh_axes(names, mesh.axis_names)
        spec = PartitionSpec(*(None if axis in BATCH_AXES else axis for axis in axes))
        return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, spec))

    return gather


def spread_attention(mesh: Mesh) -> Callable[[Callable[..., jax.Array]], Callable[..., jax.Array]]:
    """Makes of an attention kernel one that runs on each device's own rows and heads.

    What it makes takes query, key and value [batch, length, heads, head_dim] and segment ids [batch, length].
    """
    heads = PartitionSpec(BATCH_AXES, None, "tensor", None)
    specs = (heads, heads, heads, PartitionSpec(BATCH_AXES))

    def spread(attend: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        # Kernels do not say over which axes their results vary, which the check would ask for.
        return jax.shard_map(attend, mesh=mesh, in_specs=specs, out_specs=heads, check_vma=False)

    return spread


def spread_loss(mesh: Mesh, table: PartitionSpec) -> Callable[[Loss], Loss]:
    """Makes of a loss by chunks one that runs on each device's own rows and its part of the vocabulary.

    The gradient of the table is summed over the devices once, after all chunks, and scattered as the table is.

    Args:
      table: how the token table [vocab, embed] lies on the mesh.
    """
    vocab, width = (*table, None, None)[:2]
    rows = PartitionSpec(BATCH_AXES)
    # Devices that have other rows need the whole vocabulary.
    kept = None if vocab in BATCH_AXES else vocab
    scattered = PartitionSpec(vocab, width if width in BATCH_AXES else None)

    def spread(loss: Loss) -> Loss:
        def local(*arrays: jax.Array) -> LossParts:
            found = loss(*arrays, vocab_axis=kept)
            summed = found.table
            if summed is not None:
                for axis in BATCH_AXES:
                    if axis in scattered:
                        place = scattered.index(axis)
                        summed = jax.lax.psum_scatter(summed, axis, scatter_dimension=place, tiled=True)
                    else:
                        summed = jax.lax.psum(summed, axis)
            return found._replace(table=summed)

        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(rows, PartitionSpec(kept, None), rows, rows),
            out_specs=LossParts(rows, rows, scattered),
            check_vma=False,
        )

    return spread


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_shards(mesh: Mesh) -> int:
    """Parts into which the rows of the batch are split."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def local_lanes(mesh: Mesh, batch_size: int) -> list[int]:
    """The rows of the global batch that this process feeds: those its devices hold."""
    places = shard_batch(mesh).addressable_devices_indices_map((batch_size,))
    return sorted({row for (rows,) in places.values() for row in range(batch_size)[rows]})
