"""Low-rank adapters in PEFT's folders: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import ml_dtypes  # noqa: F401 - makes bfloat16 known to numpy, which safetensors asks for it
import numpy as np
import safetensors
import safetensors.numpy

from iml.errors import InputError
from iml.models.adapters import LoRA
from iml.models.config import OPTConfig
from iml.models.opt import Params

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model.model.decoder.layers"
_NAME = re.compile(re.escape(_PREFIX) + r"\.(\d+)\.((?:self_attn\.)?(\w+))\.lora_([AB])\.weight")
#: What would make an adapter something else, with the values that do not.
_FIXED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "modules_to_save": (None, []),
    "fan_in_fan_out": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "lora_bias": (False, None),
}


def is_peft(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is one of PEFT's."""
    return (pathlib.Path(path) / _CONFIG).is_file()


def write(path: str | os.PathLike[str], lora: LoRA, adapters: Params, base: str | None = None) -> None:
    """Writes a folder that `peft.PeftModel.from_pretrained` loads; it must exist.

    Args:
      lora: the adapters' settings.
      adapters: `lora_a` and `lora_b` of every target, stacked over layers, in the tree of the parameters.
      base: the folder or the name of the model that they belong to.
    """
    tensors: dict[str, np.ndarray] = {}
    for module, factors in _modules(adapters["layers"]):
        for ours, theirs in (("lora_a", "A"), ("lora_b", "B")):
            for number, factor in enumerate(np.asarray(factors[ours])):
                tensors[f"{_PREFIX}.{number}.{module}.lora_{theirs}.weight"] = np.ascontiguousarray(factor.T)
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    folder = pathlib.Path(path)
    safetensors.numpy.save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    (folder / _CONFIG).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def read_config(path: str | os.PathLike[str]) -> tuple[LoRA, str | None]:
    """The settings of a folder's adapters, with their targets, and the model that they belong to.

    Raises:
      InputError: a file is absent or damaged, or the adapters are of a kind that iml does not have.
    """
    file = pathlib.Path(path) / _CONFIG
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({error})", path=file) from error
    for name, allowed in _FIXED.items():
        if fields.get(name, allowed[0]) not in allowed:
            raise InputError(f"{fields[name]!r} is not supported, only {allowed[0]!r}", path=file, field=name)
    matched = (_matched(path, name) for name in _tensor_names(path))
    targets = sorted({match.group(3) for match in matched})
    try:
        rank, alpha = int(fields["r"]), float(fields["lora_alpha"])
        # With rank stabilisation (arXiv 2312.03732) the product is scaled by alpha / sqrt(rank).
        alpha *= math.sqrt(rank) if fields.get("use_rslora") else 1.0
        lora = LoRA(rank, alpha, float(fields.get("lora_dropout", 0.0)), tuple(targets))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"describes no adapters ({error})", path=file) from error
    return lora, fields.get("base_model_name_or_path")


def base_folder(path: str | os.PathLike[str], base: str | None = None) -> str:
    """The folder of the model that adapters belong to: the one given, or the one that they name.

    Raises:
      InputError: there is no such folder here.
    """
    named = base or read_config(path)[1]
    for folder in (pathlib.Path(named or ""), pathlib.Path(path) / (named or "")):
        if named and folder.is_dir():
            return str(folder)
    raise InputError(
        f"the adapters belong to {named!r}, which is no folder here",
        path=pathlib.Path(path) / _CONFIG,
        field="base_model_name_or_path",
        remedy="Name the folder of their model there, or give iml.convert its convert.base",
    )


def read(path: str | os.PathLike[str], config: OPTConfig) -> Params:
    """The adapters of a folder, float32, stacked over layers, in the tree of the parameters.

    Raises:
      InputError: a tensor is missing, or of another shape than the model's.
    """
    lora, _ = read_config(path)
    file = pathlib.Path(path) / _WEIGHTS
    layers: Params = {}
    sizes = {"fc1": (config.embed_dim, config.mlp_dim), "fc2": (config.mlp_dim, config.embed_dim)}
    names = _tensor_names(path)
    with safetensors.safe_open(file, "np") as opened:
        for target in lora.targets:
            module = target if target in sizes else f"self_attn.{target}"
            inputs, outputs = sizes.get(target, (config.embed_dim, config.embed_dim))
            node = layers if target in sizes else layers.setdefault("self_attn", {})
            shapes = {"A": (lora.rank, inputs), "B": (outputs, lora.rank)}
            for theirs, shape in shapes.items():
                stack = []
                for number in range(config.num_layers):
                    name = f"{_PREFIX}.{number}.{module}.lora_{theirs}.weight"
                    if name not in names:
                        raise InputError(f"tensor {name!r} is missing", path=file)
                    tensor = opened.get_tensor(name)
                    if tensor.shape != shape:
                        raise InputError(f"tensor {name!r} is {tensor.shape}, not {shape}", path=file)
                    stack.append(tensor.T.astype(np.float32))
                node.setdefault(target, {})[f"lora_{theirs.lower()}"] = np.stack(stack)
    return {"layers": layers}


def _tensor_names(path: str | os.PathLike[str]) -> frozenset[str]:
    file = pathlib.Path(path) / _WEIGHTS
    try:
        with safetensors.safe_open(file, "np") as opened:
            return frozenset(opened.keys())
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"cannot be read ({error})", path=file) from error


def _matched(path: str | os.PathLike[str], name: str) -> re.Match[str]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(
            f"tensor {name!r} is no adapter of OPT's projections", path=pathlib.Path(path) / _WEIGHTS
        )
    return match


def _modules(tree: Mapping[str, Any], path: str = ""):
    for name, child in tree.items():
        if "lora_a" in child:
            yield path + name, child
        else:
            yield from _modules(child, f"{path}{name}.")
