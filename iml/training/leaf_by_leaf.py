"""Writes parameters that are still in the files of others, with one leaf of the tree in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from iml.errors import InputError
from iml.models.config import OPTConfig
from iml.models.layout import StoredLeaf
from iml.models.opt import Params
from iml.training import checkpoints

#: Bytes of the parts in which an array is compressed, and of the files: so much is held beside an array.
_CHUNK = 256 * 2**20


class _LeafHandler(ocp.type_handlers.NumpyHandler):
    """Reads a leaf, writes it as the array that it is, and only then reads the next."""

    def __init__(self):
        super().__init__(deepcopy_host_arrays=False)

    async def serialize(
        self,
        values: Sequence[StoredLeaf],
        infos: Sequence[ocp.type_handlers.ParamInfo],
        args: Sequence[ocp.SaveArgs] | None = None,
    ) -> Sequence[ocp.future.Future]:
        for place, (value, info) in enumerate(zip(values, infos, strict=True)):
            arg = args[place : place + 1] if args else None
            for written in await super().serialize([value.read()], [info], arg):
                written.result()
        return []


def save_params(
    path: str | os.PathLike[str],
    config: OPTConfig,
    params: Params,
    vocabulary: str | os.PathLike[str] | None = None,
) -> None:
    """Writes a directory of parameters as `checkpoints.save_params` does, of a tree of stored leaves.

    Args:
      path: the directory; it holds no parameters.

    Raises:
      InputError: a leaf cannot be read, or the directory not written.
    """
    folder = epath.Path(path).resolve()
    # Orbax warns where it finds no handler for arrays.
    handlers = (StoredLeaf, _LeafHandler()), (jax.Array, ocp.type_handlers.ArrayHandler())
    registry = ocp.type_handlers.create_type_handler_registry(*handlers)
    chunks: Any = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK), params)
    try:
        checkpoints.write_config(folder / "model.json", config)
        checkpoints.copy_vocabulary(vocabulary, folder / "vocabulary")
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=registry)) as checkpointer:
            saved = ocp.args.PyTreeSave(params, save_args=chunks, ocdbt_target_data_file_size=_CHUNK)
            checkpointer.save(folder / "params", saved)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot be written ({error})", path=folder) from error
