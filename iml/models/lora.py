"""Between a model's plain parameters and those with frozen projections and low-rank adapters.

Where `LoRA` is at work, a projection of a layer that is a target holds, besides `kernel` and `bias`, `lora_a`
[layers, inputs, rank] and `lora_b` [layers, rank, outputs]; with a base in NF4 every projection's `kernel` is a
dict (`iml.models.nf4`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from iml.models import nf4
from iml.models.adapters import LoRA
from iml.models.config import OPTConfig

Params = dict[str, Any]


def store(lora: LoRA, path: tuple[str, ...], leaf: jax.Array) -> Any:
    """What stands for a leaf of the plain parameters: itself, a rounded copy, or a dict of arrays."""
    if path[-1] not in ("kernel", "embedding"):
        return leaf
    if path[0] == "layers" and lora.base == "nf4":
        # Layer by layer: the work takes several times a layer's memory.
        return jax.lax.map(nf4.quantise, leaf)
    return leaf.astype(lora.stored_dtype)


def merge(lora: LoRA, config: OPTConfig, params: Params) -> Params:
    """The plain parameters, in `param_dtype`, that compute what those with adapters do."""

    def walk(tree: Mapping[str, Any]) -> Params:
        if "kernel" not in tree:
            return {
                name: walk(child) if isinstance(child, Mapping) else child.astype(config.param_dtype)
                for name, child in tree.items()
            }
        plain = {name: tree[name].astype(config.param_dtype) for name in tree.keys() & {"bias"}}
        return {"kernel": _merged(lora, config, tree), **plain}

    return walk(params)


def _merged(lora: LoRA, config: OPTConfig, projection: Mapping[str, Any]) -> jax.Array:
    kernel = projection["kernel"]
    if isinstance(kernel, Mapping):
        kernel = jax.lax.map(functools.partial(nf4.dequantise, dtype=jnp.float32), dict(kernel))
    kernel = kernel.astype(jnp.float32)
    if "lora_a" in projection:
        factors = (projection[name].astype(jnp.float32) for name in ("lora_a", "lora_b"))
        kernel += lora.scale * jnp.einsum("lir,lro->lio", *factors, precision="highest")
    return kernel.astype(config.param_dtype)
