"""OPT weights in metaseq's consolidated checkpoints: one file with the model's state and its settings.

The fused projection is stored in the order key, value, query, whatever its name says; transformers' script
`convert_opt_original_pytorch_checkpoint_to_pytorch` documents it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from iml.errors import InputError
from iml.models import layout, torch_file, weights_hf
from iml.models.config import POSITION_OFFSET, OPTConfig
from iml.models.opt import Params

_RENAMED = {
    "layer_norm.weight": "final_layer_norm.weight",
    "layer_norm.bias": "final_layer_norm.bias",
    "project_in_dim.weight": "project_in.weight",
    "project_out_dim.weight": "project_out.weight",
}
#: The version mark, the tied output table and the marker of fairseq's sinusoidal positions.
_DROPPED = ("version", "output_projection.weight", "embed_positions._float_tensor")
_FUSED_ORDER = ("k_proj", "v_proj", "q_proj")


def read(
    path: str | os.PathLike[str],
    config: OPTConfig | None = None,
    place: layout.Place = layout.StoredLeaf.read,
) -> tuple[OPTConfig, Params]:
    """A model from a consolidated checkpoint.

    Args:
      path: the file (consolidated.pt, reshard.pth and the like).
      config: its shape; by default, what the tensors and the settings in the file say.
      place: see `layout.assemble`.

    Raises:
      InputError: the file is damaged, holds no such model, or does not say how many heads it has.
    """
    path = os.fspath(path)
    tensors, settings = _open(path)
    config = config or _infer_config(path, tensors, settings)
    return config, layout.assemble(config, tensors, path, place)


def read_config(path: str | os.PathLike[str]) -> OPTConfig:
    """The shape that a checkpoint's tensors and settings say; reads no tensor."""
    path = os.fspath(path)
    return _infer_config(path, *_open(path))


def _open(path: str) -> tuple[dict[str, layout.Tensor], Mapping[str, Any]]:
    content = torch_file.load(path)
    if not isinstance(content, dict):
        raise InputError("holds no dict", path=path)
    state = content.get("model", content)
    if not isinstance(state, dict):
        raise InputError("holds no model", path=path)
    if "flat_param_0" in state or any(name.endswith(".flat_param_0") for name in state):
        raise InputError(
            "is a shard of a training run", path=path, remedy="Consolidate it with metaseq's own script first"
        )
    tensors: dict[str, layout.Tensor] = {}
    for name, tensor in weights_hf.from_torch(_without_marks(state), path):
        short = _short(name)
        short = _RENAMED.get(short, short)
        for part, piece in _split(short, tensor):
            if part in tensors:
                raise InputError(f"tensor {part!r} comes twice", path=path)
            tensors[part] = piece
    return tensors, _settings(content)


def _short(name: str) -> str:
    return name.removeprefix("model.").removeprefix("decoder.")


def _without_marks(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if _short(name) not in _DROPPED}


def _split(name: str, tensor: layout.Tensor) -> list[tuple[str, layout.Tensor]]:
    if ".qkv_proj." not in name:
        return [(name, tensor)]
    rows, uneven = divmod(tensor.shape[0], 3)
    if uneven:
        raise InputError(f"tensor {name!r} of {tensor.shape} is not three projections", path=tensor.path)

    def piece(number: int, index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(rows)
        return tensor.read((slice(start + number * rows, stop + number * rows), *index[1:]))

    shape = (rows, *tensor.shape[1:])
    return [
        (
            name.replace(".qkv_proj.", f".{part}."),
            layout.Tensor(tensor.path, shape, functools.partial(piece, number)),
        )
        for number, part in enumerate(_FUSED_ORDER)
    ]


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """The model's settings, which lie in `cfg.model` or, in older files, in `args`."""
    configured = _plain(content.get("cfg"))
    for candidate in (configured.get("model"), content.get("args")):
        if found := _plain(candidate):
            return found
    return {}


def _plain(value: Any) -> dict[str, Any]:
    if isinstance(value, torch_file.Namespace):
        return dict(vars(value))
    return dict(value) if isinstance(value, Mapping) else {}


def _infer_config(path: str, tensors: Mapping[str, layout.Tensor], settings: Mapping[str, Any]) -> OPTConfig:
    layers = {int(found[1]) for name in tensors if (found := re.match(r"layers\.(\d+)\.", name))}
    try:
        vocab_size, word_dim = tensors["embed_tokens.weight"].shape
        rows, width = tensors["embed_positions.weight"].shape
        ffn_dim = tensors["layers.0.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise InputError(f"holds no OPT decoder: {error} is not there or not a matrix", path=path) from error
    heads = settings.get("decoder_attention_heads")
    if heads is None:
        raise InputError(
            "does not say how many attention heads the model has",
            path=path,
            remedy="Give its shape: --gin.convert.model=@OPTConfig() --gin_file=models/opt_125m.gin, say",
        )
    final_norm = "final_layer_norm.weight" in tensors
    config = OPTConfig(
        vocab_size=vocab_size,
        num_layers=len(layers),
        embed_dim=width,
        num_heads=int(heads),
        ffn_dim=ffn_dim,
        max_positions=rows - POSITION_OFFSET,
        word_embed_dim=word_dim,
        pre_norm=bool(settings.get("decoder_normalize_before", final_norm)),
        final_norm=final_norm,
    )
    dropout = settings.get("dropout")
    return config if dropout is None else dataclasses.replace(config, dropout=float(dropout))
