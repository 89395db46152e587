"""How Hugging Face's OPT tensors and the stacked parameter tree correspond."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from iml.errors import InputError
from iml.models.config import OPTConfig
from iml.models.opt import OPT, Params

#: Their names for what ours calls embedding, kernel and scale.
_WEIGHT_NAMES = ("embedding", "kernel", "scale")


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A leaf of the parameter tree and the tensors that it is made of.

    Attributes:
      path: its keys in the tree.
      shape: its shape, stacked over layers where `stacked`.
      dtype: what parameters are kept in.
      stacked: whether it has a leading axis of layers.
      transposed: whether the tensors are [outputs, inputs], as torch keeps linear layers.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    stacked: bool
    transposed: bool

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        shape = self.shape[1:] if self.stacked else self.shape
        return shape[::-1] if self.transposed else shape

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Names below `decoder.`, one a layer where stacked."""
        last = "weight" if self.path[-1] in _WEIGHT_NAMES else self.path[-1]
        if not self.stacked:
            return (".".join((*self.path[:-1], last)),)
        inner = ".".join((*self.path[1:-1], last))
        return tuple(f"layers.{number}.{inner}" for number in range(self.shape[0]))


def leaves(config: OPTConfig) -> tuple[Leaf, ...]:
    """The leaves of a model's parameter tree, in the tree's order."""
    found = []
    for keys, leaf in jax.tree_util.tree_leaves_with_path(OPT(config).abstract_params()):
        path = tuple(key.key for key in keys)
        found.append(Leaf(path, leaf.shape, np.dtype(leaf.dtype), path[0] == "layers", path[-1] == "kernel"))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is still in a file.

    Attributes:
      path: the file.
      shape: its shape.
      read: the part of it that slices name, one for each axis.
    """

    path: str
    shape: tuple[int, ...]
    read: Callable[[tuple[slice, ...]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class StoredLeaf:
    """A leaf of the parameter tree whose tensors are still in their files.

    Attributes:
      leaf: its place and shape.
      tensors: what it is made of, one a layer where stacked.
    """

    leaf: Leaf
    tensors: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.leaf.shape

    def read_tensor(self, number: int) -> np.ndarray:
        """One layer of a stacked leaf, or the whole of another, in its dtype."""
        if not self.leaf.stacked:
            return self.read()
        rest = (slice(None),) * (len(self.leaf.shape) - 1)
        return self.read((slice(number, number + 1), *rest))[0]

    def read(self, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """A part of the leaf in its dtype; of the files only that part is read, layer by layer.

        Args:
          index: slices without steps, one for each axis of the leaf; None for the whole.
        """
        leaf = self.leaf
        index = index or (slice(None),) * len(leaf.shape)
        bounds = [part.indices(size)[:2] for part, size in zip(index, leaf.shape, strict=True)]
        value = np.empty([stop - start for start, stop in bounds], leaf.dtype)
        inner = tuple(slice(start, stop) for start, stop in (bounds[1:] if leaf.stacked else bounds))
        inner = inner[::-1] if leaf.transposed else inner
        for place, number in enumerate(range(*bounds[0]) if leaf.stacked else (0,)):
            part = self.tensors[number].read(inner)
            value[place if leaf.stacked else ...] = part.T if leaf.transposed else part
        return value


#: What to make of a leaf: an array on the devices, say.
Place = Callable[[StoredLeaf], Any]


def assemble(
    config: OPTConfig,
    tensors: Mapping[str, Tensor],
    source: str,
    place: Place = StoredLeaf.read,
) -> Params:
    """Makes the stacked tree in `param_dtype` of tensors in files, leaf by leaf.

    Args:
      config: the model's shape.
      tensors: by name below `decoder.`.
      source: the folder or file, for messages.
      place: given each leaf, what stands for it in the tree; by default the whole array. It may read the
        parts that this process's devices hold, and no more.

    Raises:
      InputError: a tensor is missing, too many, or of another shape.
    """
    wanted = leaves(config)
    names = {name for leaf in wanted for name in leaf.tensor_names}
    if missing := sorted(names - tensors.keys()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"tensor {missing[0]!r}{more} is missing", path=source)
    if extra := sorted(tensors.keys() - names):
        raise InputError(
            f"tensor {extra[0]!r} belongs to no part of this model",
            path=tensors[extra[0]].path,
            remedy=f"Its configuration says {config.num_layers} layers of width {config.embed_dim}",
        )
    for leaf in wanted:  # before anything large is read
        for name in leaf.tensor_names:
            if tensors[name].shape != leaf.tensor_shape:
                raise InputError(
                    f"tensor {name!r} is {tensors[name].shape}, not {leaf.tensor_shape}",
                    path=tensors[name].path,
                )
    params: Params = {}
    for leaf in wanted:
        stored = StoredLeaf(leaf, tuple(tensors[name] for name in leaf.tensor_names))
        _put(params, leaf.path, place(stored))
    return params


def disassemble(config: OPTConfig, params: Params) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a parameter tree by name below `decoder.`, contiguous, one leaf at a time.

    Args:
      config: the model's shape.
      params: its parameters; leaves that are still in files are read tensor by tensor.

    Raises:
      InputError: the tree is not this model's.
    """
    for leaf in leaves(config):
        value: Any = params
        for key in leaf.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None or tuple(value.shape) != leaf.shape:
            shape = None if value is None else tuple(value.shape)
            raise InputError(f"parameter {'/'.join(leaf.path)} is {shape}, not {leaf.shape}")
        value = value if isinstance(value, StoredLeaf) else np.asarray(value)
        for number, name in enumerate(leaf.tensor_names):
            if isinstance(value, StoredLeaf):
                tensor = value.read_tensor(number)
            else:
                tensor = value[number] if leaf.stacked else value
            yield name, np.ascontiguousarray(tensor.T if leaf.transposed else tensor)


def _put(tree: Params, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value
