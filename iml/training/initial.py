"""Parameters from a folder, whatever wrote it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import numpy as np
from etils import epath

from iml.errors import InputError
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training import checkpoints

#: What may differ between a model and the parameters it takes: none of it changes their shapes or meaning.
_FREE = (
    "dropout",
    "embed_dropout",
    "attention_dropout",
    "dtype",
    "param_dtype",
    "remat",
    "attention",
    "init_std",
)


def is_hugging_face(path: str) -> bool:
    """Whether a folder is one of Hugging Face's models."""
    return (epath.Path(path) / "config.json").exists()


def read_params(path: str, model: OPT, shardings: Any) -> Any:
    """Parameters for a model, on the mesh, in the model's `param_dtype`.

    Args:
      path: a folder of iml (run, checkpoint or parameters) or of Hugging Face's OPT.
      model: takes them.
      shardings: a tree of shardings.

    Raises:
      InputError: the folder is neither, or its model has another shape.
    """
    if is_hugging_face(path):
        from iml.models import weights_hf

        check_same_shape(path, weights_hf.read_config(path), model.config)
        by_path = dict(jax.tree_util.tree_leaves_with_path(shardings))

        def spread(names: tuple[str, ...], array: np.ndarray) -> jax.Array:
            sharding = by_path[tuple(jax.tree_util.DictKey(name) for name in names)]
            return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

        # Leaf by leaf: the host never holds the whole model.
        return weights_hf.read_params(path, model.config, spread)
    check_same_shape(path, checkpoints.load_config(path), model.config)
    _, params = checkpoints.load_params(path, shardings)
    cast = jax.jit(
        lambda tree: jax.tree.map(lambda leaf: leaf.astype(model.config.param_dtype), tree),
        out_shardings=shardings,
        donate_argnums=(0,),
    )
    return cast(params)


def check_same_shape(path: str, found: OPTConfig, wanted: OPTConfig) -> None:
    """Refuses parameters of a model of another shape.

    Raises:
      InputError: names what differs.
    """
    ours, theirs = dataclasses.asdict(wanted), dataclasses.asdict(found)
    differing = [name for name in ours if name not in _FREE and ours[name] != theirs[name]]
    if differing:
        details = ", ".join(f"{name} is {theirs[name]}, not {ours[name]}" for name in differing)
        raise InputError(
            f"the parameters belong to another model ({details})",
            path=path,
            remedy=f"Choose the model's gin file that fits; it is {json.dumps(theirs)}",
        )
