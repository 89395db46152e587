"""What a step takes, reckoned from shapes alone: for machines whose compiler is not at hand, and to rank meshes.

Checked against compilers and running steps by `benchmarks/planner_memory.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from iml.models import attention
from iml.models.adapters import LoRA
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training import flops, step
from iml.training import optimizer as optimizer_lib
from iml.training.collectives import Collective
from iml.training.job import Job
from iml.training.mesh import AXES
from iml.training.tuning import make_tuning

#: Mesh axes and their sizes.
Sizes = Mapping[str, int]


def bytes_on_a_chip(tree: Any) -> int:
    """Bytes that a chip has of abstract arrays with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def kept(job: Job, sizes: Sizes) -> dict[str, int]:
    """Bytes of a chip by kind that last from step to step, exact: trained, frozen, optimiser."""
    shape = tuple(sizes[axis] for axis in AXES)
    # Neither changes what is kept, and both are tried by the dozen.
    model = dataclasses.replace(job.model, remat="none", attention="xla")
    return dict(_kept(dataclasses.replace(job, model=model, microbatches=1), shape))


@functools.lru_cache(maxsize=256)
def _kept(job: Job, shape: tuple[int, ...]) -> tuple[tuple[str, int], ...]:
    tuning = make_tuning(job.tuning)
    network = _network(job.model, tuning.lora)
    trained_axes, _ = tuning.split(network.logical_axes())
    update = optimizer_lib.make_optimizer(job.optimizer, job.steps, trained_axes, job.loss_scale)
    layout = step.lay_out(network, update, job.rules, AbstractMesh(shape, AXES), tuning)
    return (
        ("trained", bytes_on_a_chip(layout.placed.params)),
        ("frozen", bytes_on_a_chip(layout.frozen)),
        ("optimiser", bytes_on_a_chip(layout.placed.opt_state)),
    )


@functools.lru_cache(maxsize=4)
def _network(model: OPTConfig, lora: LoRA | None) -> OPT:
    return OPT(model, platform="cpu", lora=lora)


def memory(job: Job, sizes: Sizes, platform: str) -> dict[str, int]:
    """Bytes of a chip by kind.

    Args:
      platform: "tpu", "gpu" or "cpu", which decides what "auto" attention is.
    """
    found = kept(job, sizes)
    return {
        "parameters": found["trained"] + found["frozen"],
        "optimiser": found["optimiser"],
        "batch": job.batch_bytes() // (sizes["data"] * sizes["fsdp"]),
        "temporaries": temporaries(job, sizes, platform),
        "program": 0,
    }


def temporaries(job: Job, sizes: Sizes, platform: str) -> int:
    """Bytes of a chip that a step allocates, at their peak.

    That is either where the loss is taken, with all activations saved, or in the backward pass of the last
    layer, with the gradients of all layers allocated too, and the token table's not yet scattered.
    """
    gradients = kept(job, sizes)["trained"]
    begun = gradients if job.microbatches > 1 else 0
    in_loss = _scores(job, sizes) + _table(job, sizes)
    in_layer = gradients + _gathered(job, sizes) + _working(job, sizes, platform)
    if sizes["fsdp"] > 1:
        in_layer += _table(job, sizes)
    throughout = begun + _cast(job, sizes, platform) + saved(job, sizes, platform)
    return int(throughout + max(in_loss, in_layer))


def saved(job: Job, sizes: Sizes, platform: str) -> int:
    """Bytes of activations that a chip keeps for the backward pass, under the job's remat policy."""
    return int(job.model.num_layers * _saved_of_a_layer(job, sizes, platform))


def _saved_of_a_layer(job: Job, sizes: Sizes, platform: str) -> float:
    model, each = job.model, _tokens(job, sizes) * _computed(job)
    if model.remat == "none":
        return _of_a_layer(job, sizes, platform)
    if model.remat == "dots":
        # Its input and the products that are needed: queries, keys, values, what leaves attention's projection
        # and the feed-forward's first.
        products = each * (model.embed_dim + (3 * model.embed_dim + model.mlp_dim) / sizes["tensor"])
        return each * model.embed_dim + products + _attended(job, sizes, platform)
    if model.remat == "attention":
        return each * model.embed_dim + _attended(job, sizes, platform)
    return each * model.embed_dim


def _attended(job: Job, sizes: Sizes, platform: str) -> float:
    """Bytes of what is saved of a layer's attention by name: its result, and a float32 a head, the normaliser's
    logarithm; of kernels that give no names, nothing."""
    model = job.model
    name = attention.resolve(model.attention, platform, model.attention_dropout, model.dtype)
    if not attention.IMPLEMENTATIONS[name].saves:
        return 0.0
    each = _computed(job) * model.embed_dim + 4 * model.num_heads
    return _tokens(job, sizes) * each / sizes["tensor"]


def _recomputes_products(job: Job) -> bool:
    return job.model.remat in ("attention", "full")


def _tokens(job: Job, sizes: Sizes) -> float:
    """Positions that a chip computes at a time."""
    return job.tokens / (sizes["data"] * sizes["fsdp"] * job.microbatches)


def _computed(job: Job) -> int:
    return jnp.dtype(job.model.dtype).itemsize


def _of_a_layer(job: Job, sizes: Sizes, platform: str) -> float:
    """Bytes that the backward pass of a layer needs of its forward pass."""
    model, tokens, tensor = job.model, _tokens(job, sizes), sizes["tensor"]
    width, ffn, computed = model.embed_dim, model.mlp_dim, _computed(job)
    # Both norms' inputs and results and both sums; queries, keys, values, attended; products and activations.
    bytes_ = tokens * computed * (6 * width + (4 * width + 2 * ffn) / tensor)
    if model.dropout:
        bytes_ += 2 * tokens * width  # which of them were kept, a byte each
    # Plain attention keeps the probabilities of all pairs, float32 and in the compute dtype.
    return bytes_ + _pairs(job, sizes, platform) * (4 + (computed if computed != 4 else 0))


def _pairs(job: Job, sizes: Sizes, platform: str) -> float:
    """Pairs of positions whose attention is held at a time: none by kernels and by blocks."""
    model = job.model
    if attention.resolve(model.attention, platform, model.attention_dropout, model.dtype) != "xla":
        return 0.0
    return _tokens(job, sizes) * job.length * model.num_heads / sizes["tensor"]


def _working(job: Job, sizes: Sizes, platform: str) -> float:
    """Bytes of the layer that is being differentiated: what is recomputed, and gradients of activations."""
    again = _of_a_layer(job, sizes, platform) - _saved_of_a_layer(job, sizes, platform)
    model, tensor = job.model, sizes["tensor"]
    width, each = model.embed_dim, _tokens(job, sizes) * _computed(job)
    # Of the residual stream; of attention's operands, once more with heads first; of the feed-forward's products.
    flowing = each * (2 * width + (8 * width + 2 * model.mlp_dim) / tensor)
    return again + flowing + 2 * 4 * _pairs(job, sizes, platform)


def _gathered(job: Job, sizes: Sizes) -> float:
    """Bytes of a layer's weights as they are multiplied, the next one's on their way, and whole gradients."""
    model = job.model
    copies = 3
    if sizes["fsdp"] == 1:
        copies = int(model.param_dtype != model.dtype or job.tuning is not None)
    layer = (model.num_parameters() - model.vocab_size * model.word_dim) / model.num_layers / sizes["tensor"]
    return copies * _computed(job) * layer


def _cast(job: Job, sizes: Sizes, platform: str) -> float:
    """Bytes of a chip's part of all layers in the compute dtype: XLA casts it once, before the loops over layers.

    On TPUs, as the compiled steps of 30B and 175B show; not where weights are frozen, whose casts are made again.
    """
    model = job.model
    if platform != "tpu" or job.tuning is not None or model.param_dtype == model.dtype:
        return 0.0
    layers = 1 - model.vocab_size * model.word_dim / model.num_parameters()
    return layers * kept(job, sizes)["trained"] * _computed(job) / jnp.dtype(model.param_dtype).itemsize


def _scores(job: Job, sizes: Sizes) -> float:
    """Bytes of float32 scores, their exponentials and gradient."""
    positions = _tokens(job, sizes) * job.learnt
    if job.loss_chunk:
        positions = min(positions, job.loss_chunk)
    return 3 * 4 * positions * job.model.vocab_size / sizes["tensor"]


def _table(job: Job, sizes: Sizes) -> float:
    """Bytes of the token table as the loss multiplies it, and of its whole gradient in float32."""
    return (_computed(job) + 4) * job.model.vocab_size * job.model.word_dim / sizes["tensor"]


def arithmetic(job: Job) -> dict[str, float]:
    """Arithmetic of a step, with whole rows taken for documents, which no packing exceeds.

    Returns:
      `model_flops`, without recomputation, and `done_flops`, with it.
    """
    model = job.model
    counted = job.tokens * flops.flops_per_token(model, job.length, job.learnt, job.tuning)
    # Recomputing adds a forward pass, a third of the whole or half where weights are frozen; not that of products
    # under "dots", nor that of attention itself under "attention".
    again = counted / (3 if job.tuning is None else 2) if _recomputes_products(job) else 0.0
    if model.remat == "attention":
        again -= 2 * job.tokens * model.num_layers * model.embed_dim * job.length
    return {"model_flops": counted, "done_flops": counted + again}


def exchanges(job: Job, sizes: Sizes) -> list[Collective]:
    """What a chip sends: weights gathered before use, gradients scattered, activations of split layers summed."""
    model, found = job.model, []
    computed = _computed(job)
    data, fsdp, tensor = sizes["data"], sizes["fsdp"], sizes["tensor"]
    weights = computed * model.num_parameters() / tensor
    tokens = job.tokens / (data * fsdp)
    # Forward, and backward with what it recomputes.
    passes = 2 * job.microbatches
    if fsdp > 1:
        share = (fsdp - 1) / fsdp
        found.append(Collective("all-gather", passes * model.num_layers, passes * share * weights))
        scattered = job.microbatches * share * weights
        found.append(Collective("reduce-scatter", job.microbatches * model.num_layers, scattered))
    if data > 1:
        found.append(Collective("all-reduce", 1, 2 * (data - 1) / data * weights / fsdp))
    if tensor > 1:
        summed = computed * tokens * model.embed_dim * 2 * (tensor - 1) / tensor
        times = (6 if _recomputes_products(job) else 4) * model.num_layers
        found.append(Collective("all-reduce", times * job.microbatches, times * summed))
    return found


def moved(job: Job, sizes: Sizes, platform: str) -> float:
    """Bytes that a chip reads and writes in a step, at the least: weights, optimiser and saved activations."""
    model = job.model
    weights = _computed(job) * model.num_parameters() / sizes["tensor"]
    passes = 3 if _recomputes_products(job) else 2
    stays = kept(job, sizes)
    # Trained parameters, their gradients and the optimiser's state are read, all but gradients written.
    update = 3 * stays["trained"] + 2 * stays["optimiser"]
    return job.microbatches * (passes * weights + 2 * saved(job, sizes, platform)) + update
