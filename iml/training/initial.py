"""Parameters from a folder, whatever wrote it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from iml.errors import InputError
from iml.models import weights_peft
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training import checkpoints, tuning

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


def read_params(
    path: str,
    model: OPT,
    shardings: Any,
    store: Callable[[tuple[str, ...], jax.Array], Any] = lambda names, leaf: leaf,
) -> Any:
    """Parameters for a model, on the mesh, in the model's `param_dtype`.

    Args:
      path: a folder of iml (run, checkpoint or parameters) or of Hugging Face's OPT. Of either a process reads
        only what its devices hold.
      model: takes them.
      shardings: a tree of shardings.
      store: given a leaf's path and array, what stands for it in the tree. With a folder of Hugging Face there is
        never more than one leaf that it has not been given.

    Raises:
      InputError: the folder is neither, or its model has another shape.
    """
    if is_hugging_face(path):
        from iml.models import weights_hf

        check_same_shape(path, weights_hf.read_config(path), model.config)
        by_path = {
            tuple(key.key for key in keys): sharding
            for keys, sharding in jax.tree_util.tree_leaves_with_path(shardings)
        }
        return weights_hf.read_params(
            path,
            model.config,
            lambda stored: store(
                stored.leaf.path, spread(stored.read, stored.leaf.shape, by_path[stored.leaf.path])
            ),
        )
    check_same_shape(path, checkpoints.load_config(path), model.config)
    _, params = checkpoints.load_params(path, shardings)
    cast = jax.jit(
        lambda tree: jax.tree.map(lambda leaf: leaf.astype(model.config.param_dtype), tree),
        out_shardings=shardings,
        donate_argnums=(0,),
    )
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: store(tuple(key.key for key in keys), leaf), cast(params)
    )


def read_adapted(
    path: str,
    model: OPT,
    plain_shardings: Any,
    shardings: Any,
    fresh: Callable[[], Any],
) -> Any:
    """Parameters for a model with adapters: its frozen ones from a folder, made as they are kept, and its adapters.

    Args:
      path: as in `read_params`, or a folder of PEFT, whose adapters are gone on with.
      model: takes them.
      plain_shardings: of the same model's plain parameters.
      shardings: of all parameters of the model.
      fresh: makes the adapters where the folder has none.

    Raises:
      InputError: as `read_params`, or PEFT's adapters are not those that the model has.
    """
    lora, plain = model.lora, OPT(model.config, platform="cpu")
    store = tuning.make_store(lora, shardings)
    if not weights_peft.is_peft(path):
        return tuning.join(fresh(), read_params(path, plain, plain_shardings, store))
    found, _ = weights_peft.read_config(path)
    if (found.rank, found.scale, set(found.targets)) != (lora.rank, lora.scale, set(lora.targets)):
        raise InputError(
            f"its adapters have rank {found.rank}, alpha {found.alpha:g} and targets {list(found.targets)}",
            path=path,
            remedy="Bind LoRA.rank, LoRA.alpha and LoRA.targets to them",
        )
    base = read_params(weights_peft.base_folder(path), plain, plain_shardings, store)
    adapters = weights_peft.read(path, model.config)
    placed = tuning.make_tuning(lora).split(shardings)[0]
    dtype = np.dtype(model.config.param_dtype)
    on_mesh = jax.tree.map(
        lambda array, sharding: spread(lambda index: array[index].astype(dtype), array.shape, sharding),
        adapters,
        placed,
    )
    return tuning.join(on_mesh, base)


def spread(
    read: Callable[[tuple[slice, ...]], np.ndarray], shape: tuple[int, ...], sharding: jax.sharding.Sharding
) -> jax.Array:
    """An array on the mesh of which every process reads what its devices hold, each part once.

    The host holds one part at a time: the largest is what one device keeps.

    Args:
      read: gives the part that slices name.
    """
    holders: dict[tuple, list[jax.Device]] = {}
    places: dict[tuple, tuple[slice, ...]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        key = tuple(part.indices(size) for part, size in zip(index, shape, strict=True))
        places[key] = index
        holders.setdefault(key, []).append(device)
    arrays = []
    for key, devices in holders.items():
        part = read(places[key])
        copies = [jax.device_put(part, device) for device in devices]
        # The copy to the devices has ended before the next part is read.
        arrays += jax.block_until_ready(copies)
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def check_same_shape(path: str, found: OPTConfig, wanted: OPTConfig) -> None:
    """Refuses parameters of a model of another shape.

    Raises:
      InputError: names what differs.
    """
    ours, theirs = dataclasses.asdict(wanted), dataclasses.asdict(found)
    differing = [name for name in ours if name not in _FREE and ours[name] != theirs[name]]
    if differing:
        details = ", ".join(f"{name} is {theirs[name]}, not {ours[name]}" for name in differing)
        bindings = " ".join(f"--gin.OPTConfig.{name}={theirs[name]}" for name in differing)
        raise InputError(
            f"the parameters belong to another model ({details})",
            path=path,
            remedy=f"Choose the model's gin file that fits, or add {bindings}",
        )
