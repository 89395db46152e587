"""What the step of a run depends on, of which plans are made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from iml.models.config import OPTConfig
from iml.training.loss_scale import LossScale
from iml.training.mesh import MeshConfig
from iml.training.optimizer import AdamConfig, Lomo
from iml.training.rules import PartitionRules
from iml.training.tunings import Settings


@dataclasses.dataclass(frozen=True)
class Job:
    """A run as `iml.train` has it; see there for what the settings mean."""

    model: OPTConfig
    optimizer: AdamConfig | Lomo
    mesh: MeshConfig
    rules: PartitionRules
    steps: int
    batch_size: int
    length: int
    microbatches: int
    segments: int
    target_budget: int | None
    tuning: Settings = None
    loss_chunk: int | None = 1024
    loss_scale: LossScale | None = None

    @property
    def tokens(self) -> int:
        """Positions of a step, over all devices."""
        return self.batch_size * self.length

    @property
    def learnt(self) -> float:
        """Share of the positions that the loss is taken at."""
        return 1.0 if self.target_budget is None else self.target_budget / self.length

    def batch(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and types of a batch's arrays, as `iml.data.batches` makes them."""
        whole = (self.batch_size, self.length)
        arrays = dict.fromkeys(("tokens", "targets", "segment_ids", "positions"), (whole, jnp.int32))
        arrays["loss_weights"] = (whole, jnp.float32)
        arrays["task_ids"] = ((self.batch_size, self.segments), jnp.int32)
        if self.target_budget is not None:
            arrays["target_positions"] = ((self.batch_size, self.target_budget), jnp.int32)
        return arrays

    def batch_bytes(self) -> int:
        """Bytes of a batch, over all devices."""
        return sum(math.prod(shape) * jnp.dtype(dtype).itemsize for shape, dtype in self.batch().values())
