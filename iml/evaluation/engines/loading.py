"""The model that is evaluated, and what its two uses (ranking, generation) share."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iml.data.vocabulary import Vocabulary
from iml.errors import InputError
from iml.models.opt import OPT
from iml.training import flops, partition

#: Arithmetic that is done in the time that it takes to compile for one shape more: two CPU cores, one accelerator.
_COMPILING = {"cpu": 2e11}
_COMPILING_ON_ACCELERATOR = 2e14
#: Tokens that are read together at most; what a CPU makes of more of them no longer stays in its caches.
_READ_TOGETHER = {"cpu": 2048}


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer.

    Attributes:
      opt: its functions.
      params: its parameters, on the mesh.
      vocabulary: its text encoding.
      mesh: the devices; rows of a batch are split over `data` and `fsdp`.
      max_length: longest sequence, in positions.
      batch_size: sequences of `max_length` that a batch may weigh; of shorter ones it holds more.
      bos: begins every sequence with </s>, as Hugging Face's OPT tokenizer does; metaseq's does not.
    """

    opt: OPT
    params: Any
    vocabulary: Vocabulary
    mesh: jax.sharding.Mesh
    max_length: int
    batch_size: int = 8
    bos: bool = False

    def __post_init__(self):
        limit = self.opt.config.max_positions
        if not 2 <= self.max_length <= limit:
            raise InputError(
                f"must lie between 2 and the model's {limit} positions, not {self.max_length}",
                field="evaluate.max_length",
            )
        if self.batch_size < 1:
            raise InputError("must be at least 1", field="evaluate.batch_size")
        if self.vocabulary.size > self.opt.config.vocab_size:
            raise InputError(
                f"{self.vocabulary.size} entries, where the model has {self.opt.config.vocab_size}",
                path=self.vocabulary.directory,
                field="evaluate.vocabulary_dir",
                remedy="Give the vocabulary that the model was trained with",
            )

    @property
    def head(self) -> list[int]:
        """Tokens that every sequence begins with."""
        return [self.vocabulary.EOS] if self.bos else []

    @property
    def shape_price(self) -> int:
        """Tokens that could be computed in the time that it takes to compile for one shape more."""
        devices = self.mesh.devices
        done = _COMPILING.get(devices.flat[0].platform, _COMPILING_ON_ACCELERATOR * devices.size)
        # A third of a training step's arithmetic is its forward pass; evaluation takes few logits.
        return int(done / (flops.flops_per_token(self.opt.config, self.max_length, learnt=0.0) / 3))

    def rows(self, length: int) -> int:
        """Rows of a batch of this length: a power of two times the parts of the mesh."""
        return self._fit(self.batch_size * self.max_length // length)

    def rows_to_read(self, width: int, context: int = 0) -> int:
        """Rows of a batch that reads `width` tokens each, behind a context; fewer than memory allows, if faster."""
        rows = self.rows(context + width)
        most = _READ_TOGETHER.get(self.mesh.devices.flat[0].platform)
        return rows if most is None else min(rows, self._fit(most * self.mesh.devices.size // width))

    def _fit(self, rows: int) -> int:
        shards = partition.batch_shards(self.mesh)
        return shards * 2 ** max(0, (rows // shards).bit_length() - 1)

    def place(self, *arrays: np.ndarray) -> list[jax.Array]:
        """Arrays with one row for each row of the batch, split over the mesh."""
        return [place(array, partition.shard_batch(self.mesh)) for array in arrays]


def place(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array that every process of the run holds whole, split over the devices of all."""
    if jax.process_count() == 1:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def bucket(length: int, smallest: int, largest: int) -> int:
    """The power of two at or above a length, from `smallest` on, but no more than `largest`."""
    return min(largest, max(smallest, 1 << max(0, length - 1).bit_length()))


def left_padded(rows: Sequence[Sequence[int]], count: int, width: int) -> np.ndarray:
    """int32 [count, width]: the rows, flush right; the rest is PAD."""
    padded = np.full((count, width), Vocabulary.PAD, np.int32)
    for i, row in enumerate(rows):
        if row:
            padded[i, width - len(row) :] = row
    return padded


def load_model(
    path: str,
    vocabulary_dir: str | None,
    mesh: jax.sharding.Mesh,
    max_length: int | None = None,
    batch_size: int = 8,
    bos: bool = False,
    dtype: str | None = None,
    rules: partition.PartitionRules | None = None,
) -> LoadedModel:
    """Reads a model onto the mesh.

    Args:
      path: a run of `iml.train` (its latest checkpoint), one of its checkpoints, a directory of parameters,
        or a Hugging Face directory.
      vocabulary_dir: the folder of the vocabulary; None for the one kept beside the parameters.
      max_length: None for all positions of the model.
      dtype: computation; None for the model's own.
      rules: how parameters are split over the mesh.

    Raises:
      InputError: there is no model, no vocabulary, or they do not fit.
    """
    from iml.training import checkpoints, initial

    if initial.is_hugging_face(path):
        from iml.models import weights_hf

        config, vocabulary_dir = weights_hf.read_config(path), vocabulary_dir or path
    else:
        found = checkpoints.locate(path)
        config, vocabulary_dir = found.config, vocabulary_dir or found.vocabulary
    if vocabulary_dir is None:
        raise InputError(
            "no vocabulary was kept beside the model", path=path, remedy="Give evaluate.vocabulary_dir"
        )
    if dtype is not None:
        config = dataclasses.replace(config, dtype=dtype)
    # What the model was trained with may not run here.
    config = dataclasses.replace(config, attention="auto")
    opt = OPT(config, spread=partition.spread_attention(mesh), platform=mesh.devices.flat[0].platform)
    rules = rules or partition.PartitionRules()
    shardings = partition.shard_params(opt.abstract_params(), opt.logical_axes(), rules, mesh)
    return LoadedModel(
        opt,
        initial.read_params(path, opt, shardings),
        Vocabulary(os.fspath(vocabulary_dir)),
        mesh,
        max_length or config.max_positions,
        batch_size,
        bos,
    )


def hash_params(params: Any) -> str:
    """Hash of all parameters, 16 hexadecimal digits; computed where they lie, the same on every mesh."""

    digest = hashlib.blake2b(digest_size=8)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(
            f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype} {int(_checksum(leaf))}\n".encode()
        )
    return digest.hexdigest()


@jax.jit
def _checksum(leaf: jax.Array) -> jax.Array:
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(leaf, width).astype(jnp.uint32)
    weights = jnp.uint32(1)
    for axis in range(leaf.ndim):
        # Odd multipliers that depend on the place, so that swapped values show.
        place = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        weights = weights * jnp.uint32(0x9E3779B1) + place * jnp.uint32(0x85EBCA6B)
    return jnp.sum(bits * (2 * weights + 1), dtype=jnp.uint32)
