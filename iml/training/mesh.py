"""The device mesh: data parallelism, sharded parameters, tensor parallelism."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from iml.errors import InputError

if TYPE_CHECKING:
    import jax

#: Names of the mesh axes, outermost first: neighbours in `tensor` talk most.
AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; one of them may be -1, which takes the devices that are left.

    Attributes:
      data: copies of the model, each with its own rows of the batch.
      fsdp: devices over which a copy's parameters and its rows of the batch are split.
      tensor: devices over which heads, feed-forward units and vocabulary are split.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        sizes = dataclasses.astuple(self)
        if any(size != -1 and size < 1 for size in sizes) or sizes.count(-1) > 1:
            raise InputError(
                f"sizes are at least 1, and one of them may be -1, not {sizes}", field="MeshConfig"
            )

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """Sizes of all axes for a number of devices.

        Raises:
          InputError: they do not fit.
        """
        sizes = dataclasses.astuple(self)
        known = math.prod(size for size in sizes if size != -1)
        resolved = tuple(devices // known if size == -1 else size for size in sizes)
        if math.prod(resolved) != devices:
            shape = ", ".join(f"{name}={size}" for name, size in zip(AXES, sizes, strict=True))
            raise InputError(
                f"a mesh of {shape} does not fit {devices} devices",
                field="MeshConfig",
                remedy="The sizes must multiply to the number of devices",
            )
        return resolved


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """The mesh over all devices of all processes, or over those given.

    The axes are `Auto` on purpose: the model is written without shardings, and the compiler carries those of
    parameters and batch through it (newer JAX would otherwise make them `Explicit`).
    """
    import jax
    from jax.experimental import mesh_utils

    devices = jax.devices() if devices is None else devices
    # Any sizes that multiply to the number of devices will do, also where they cut an axis of a TPU's torus.
    placed = mesh_utils.create_device_mesh(
        config.sizes(len(devices)), devices, allow_split_physical_axes=True
    )
    return jax.sharding.Mesh(placed, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))
