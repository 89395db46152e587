"""Does a job fit a machine that is not at hand, and how long does it take there?

For TPUs the run's own step is compiled ahead of time for the topology, so that memory and exchanges are what the
compiler made; the time is a roofline over the makers' figures. For GPUs, whose compiler needs the GPU, memory
and exchanges come from the analytic model, and the plan says so.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from iml.errors import InputError
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training import flops, partition
from iml.training import mesh as mesh_lib
from iml.training import optimizer as optimizer_lib
from iml.training import step as step_lib
from iml.training.chips import CHIPS, Chip
from iml.training.collectives import Collective, collectives
from iml.training.mesh import MeshConfig
from iml.training.optimizer import AdamConfig
from iml.training.rules import PartitionRules
from iml.training.tuning import make_tuning
from iml.training.tunings import Settings

_REMEDY = "Write v5p:4x4x4, v5e:16x16, v6e:8x8, v4:4x4x4, or h200:8 for eight GPUs"


@dataclasses.dataclass(frozen=True)
class Job:
    """What a step depends on, as `iml.train` has it."""

    model: OPTConfig
    optimizer: AdamConfig
    mesh: MeshConfig
    rules: PartitionRules
    steps: int
    batch_size: int
    length: int
    microbatches: int
    segments: int
    target_budget: int | None
    tuning: Settings = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a job takes on a machine; bytes and seconds are a chip's and a step's.

    Attributes:
      job: the job.
      topology: the machine, such as "v5p:4x4x4".
      chip: its chips.
      chips: how many.
      mesh: sizes of the mesh axes.
      compiled: whether memory and exchanges are the compiler's; otherwise they are the analytic model's.
      memory: bytes by kind: parameters, optimiser, batch, temporaries, program.
      saved: bytes of the activations that the backward pass finds saved (analytic), a part of the temporaries.
      exchanges: what is sent between chips.
      model_flops: arithmetic of the step over all chips, without recomputation.
      done_flops: the same with it.
      overflow: the compiler's words where it found no room, else "".
    """

    job: Job
    topology: str
    chip: Chip
    chips: int
    mesh: Mapping[str, int]
    compiled: bool
    memory: Mapping[str, int]
    saved: int
    exchanges: Sequence[Collective]
    model_flops: float
    done_flops: float
    overflow: str = ""

    @property
    def fits(self) -> bool:
        return not self.overflow and sum(self.memory.values()) <= self.chip.memory

    @property
    def seconds_by_limit(self) -> dict[str, float]:
        """Seconds of a step if only one thing took time."""
        sent = sum(exchange.sent for exchange in self.exchanges)
        return {
            "arithmetic": self.done_flops / self.chips / self.chip.peak,
            "memory": _moved(self.job, self.mesh) / self.chip.memory_bandwidth,
            "links": sent / self.chip.link_bandwidth,
        }

    @property
    def seconds(self) -> float:
        """Seconds of a step if arithmetic, memory and links all overlap: no step is faster."""
        return max(self.seconds_by_limit.values())

    @property
    def mfu(self) -> float:
        """Model FLOP/s by the chips' peak, at that speed."""
        return self.model_flops / self.seconds / (self.chips * self.chip.peak)

    @property
    def tokens_per_second(self) -> float:
        return self.job.batch_size * self.job.length / self.seconds

    @property
    def hours(self) -> float:
        """Hours of the whole run."""
        return self.job.steps * self.seconds / 3600


def plan(job: Job, topology: str) -> Plan:
    """The plan of a job on a topology.

    Args:
      topology: a TPU slice, "v5p:4x4x4", or a number of GPUs, "h200:8".

    Raises:
      InputError: no such machine, or the job's mesh or batch does not go with it.
    """
    chip, count = _parse(topology)
    if chip.kind.startswith("TPU"):
        return _compile(job, topology, chip, _tpu_devices(topology))
    sizes = dict(zip(mesh_lib.AXES, job.mesh.sizes(count), strict=True))
    return Plan(
        job,
        topology,
        chip,
        count,
        sizes,
        compiled=False,
        memory=estimate_memory(job, sizes),
        saved=_saved(job, sizes),
        exchanges=_estimate_exchanges(job, sizes),
        **_arithmetic(job),
    )


def suggest(job: Job, topology: str, tried: int = 0) -> list[Plan]:
    """Plans of the same job under other meshes and remat policies, by the analytic model, the quickest first.

    Only those that fit are given, with a tenth of the memory left free.

    Args:
      tried: how many to give at most; 0 for all.
    """
    chip, count = _parse(topology)
    found = []
    for tensor in (1, 2, 4, 8, 16):
        for data in (1, 2, 4, 8, 16, 32, 64):
            if count % (tensor * data) or job.model.num_heads % tensor:
                continue
            sizes = {"data": data, "fsdp": count // tensor // data, "tensor": tensor}
            if job.batch_size % (data * sizes["fsdp"] * job.microbatches):
                continue
            for remat in ("none", "dots", "full"):
                changed = dataclasses.replace(
                    job, model=dataclasses.replace(job.model, remat=remat), mesh=MeshConfig(**sizes)
                )
                memory = estimate_memory(changed, sizes)
                if sum(memory.values()) <= 0.9 * chip.memory:
                    exchanges = _estimate_exchanges(changed, sizes)
                    saved = _saved(changed, sizes)
                    parts = (changed, topology, chip, count, sizes, False, memory, saved, exchanges)
                    found.append(Plan(*parts, **_arithmetic(changed)))
    found.sort(key=lambda each: (each.seconds, each.mesh["tensor"], sum(each.memory.values())))
    return found[:tried] if tried else found


def _parse(topology: str) -> tuple[Chip, int]:
    """The chip, and how many of them."""
    name, _, shape = topology.partition(":")
    chip = next((chip for chip in CHIPS if chip.name == name.lower()), None)
    if chip is None or not re.fullmatch(r"\d+(x\d+)*", shape):
        raise InputError(f"no such machine: {topology!r}", field="--topology", remedy=_REMEDY)
    return chip, math.prod(map(int, shape.split("x")))


def _tpu_devices(topology: str) -> list[Any]:
    from jax.experimental import topologies

    # There is no TPU to ask, and libtpu must not look for one.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        # Two cores of a v4 are one device, as they are where such a slice is used.
        fused = {"chip_config_name": "megacore"} if topology.startswith("v4") else {}
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **fused)
        return list(found.devices)
    except Exception as error:
        if "libtpu" in str(error) and "not found" in str(error).lower():
            raise InputError(
                "compiling for TPUs needs libtpu", field="--topology", remedy='pip install -e ".[tpu]"'
            ) from error
        raise InputError(
            f"libtpu knows no topology {topology!r} ({str(error).splitlines()[0][:200]})",
            field="--topology",
            remedy=_REMEDY,
        ) from error


def _compile(job: Job, topology: str, chip: Chip, devices: list[Any]) -> Plan:
    """The plan by the compiler, of the very step that `iml.train` runs."""
    mesh = mesh_lib.make_mesh(job.mesh, devices)
    step_lib.check_batch_size(job.batch_size, job.microbatches, mesh)
    rows = partition.shard_batch(mesh)
    network = OPT(
        job.model,
        constrain=lambda x: jax.lax.with_sharding_constraint(x, rows),
        spread=partition.spread_attention(mesh),
        platform="tpu",
    )
    tuning = make_tuning(job.tuning)
    trained_axes, _ = tuning.split(network.logical_axes())
    update = optimizer_lib.make_optimizer(job.optimizer, job.steps, trained_axes)
    layout = step_lib.lay_out(network, update, job.rules, mesh, tuning)
    schedule = optimizer_lib.make_schedule(job.optimizer, job.steps)
    train_step = step_lib.make_train_step(network, update, schedule, layout, mesh, job.microbatches)
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=rows)
        for name, (shape, dtype) in _batch(job).items()
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=partition.replicated(mesh))
    sizes = dict(mesh.shape)
    memory = {
        "parameters": _bytes_on_a_chip((layout.placed.params, layout.frozen)),
        "optimiser": _bytes_on_a_chip(layout.placed.opt_state),
        "batch": _bytes_on_a_chip(batch),
    }
    shared = (job, topology, chip, len(devices), sizes)
    try:
        compiled = train_step.lower(layout.placed, layout.frozen, batch, key).compile()
    except jax.errors.JaxRuntimeError as error:
        message = str(error)
        if "RESOURCE_EXHAUSTED" not in message and "memory" not in message.lower():
            raise
        overflow = " ".join(message.split())[:400]
        saved = _saved(job, sizes)
        return Plan(*shared, True, memory, saved, (), **_arithmetic(job), overflow=overflow)
    used = compiled.memory_analysis()
    memory["temporaries"] = used.temp_size_in_bytes
    memory["program"] = used.generated_code_size_in_bytes
    exchanges = collectives(compiled.as_text())
    return Plan(*shared, True, memory, _saved(job, sizes), exchanges, **_arithmetic(job))


def _batch(job: Job) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shapes and types of a batch's arrays, as `iml.data.batches` makes them."""
    whole = (job.batch_size, job.length)
    arrays = dict.fromkeys(("tokens", "targets", "segment_ids", "positions"), (whole, jnp.int32))
    arrays["loss_weights"] = (whole, jnp.float32)
    arrays["task_ids"] = ((job.batch_size, job.segments), jnp.int32)
    if job.target_budget is not None:
        arrays["target_positions"] = ((job.batch_size, job.target_budget), jnp.int32)
    return arrays


def _bytes_on_a_chip(tree: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


# ------------------------------------------------------------------------------------ the analytic model


def _arithmetic(job: Job) -> dict[str, float]:
    """Arithmetic of a step, with whole rows taken for documents, which no packing exceeds."""
    tokens = job.batch_size * job.length
    learnt = 1.0 if job.target_budget is None else job.target_budget / job.length
    counted = tokens * flops.flops_per_token(job.model, job.length, learnt)
    # Forward, and twice that backward; recomputing adds a forward pass, of all but products under "dots".
    again = {"none": 0.0, "dots": 0.0, "full": 1 / 3}[job.model.remat]
    return {"model_flops": counted, "done_flops": counted * (1 + again)}


def estimate_memory(job: Job, sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes of a chip by kind, from shapes alone; temporaries are saved activations, gradients and logits."""
    model, shards = job.model, sizes["fsdp"] * sizes["tensor"]
    size = jnp.dtype(model.param_dtype).itemsize
    computed = jnp.dtype(model.dtype).itemsize
    parameters = size * model.num_parameters() // shards
    rows = job.batch_size / (sizes["data"] * sizes["fsdp"] * job.microbatches)
    learnt = job.length if job.target_budget is None else job.target_budget
    # Float32 scores, their exponentials and the gradient, of the share of the vocabulary that a chip has.
    logits = 3 * 4 * rows * learnt * model.vocab_size / sizes["tensor"]
    layer = (model.num_parameters() - model.vocab_size * model.word_dim) / model.num_layers
    gathered = 2 * computed * layer / sizes["tensor"]  # this layer's weights, and the next one's under way
    batch = sum(math.prod(shape) * jnp.dtype(dtype).itemsize for shape, dtype in _batch(job).values())
    return {
        "parameters": parameters,
        "optimiser": 2 * parameters,
        "batch": int(batch / (sizes["data"] * sizes["fsdp"])),
        "temporaries": int(parameters + _saved(job, sizes) + logits + gathered),
        "program": 0,
    }


def _saved(job: Job, sizes: Mapping[str, int]) -> int:
    """Bytes of activations that a chip keeps for the backward pass."""
    model = job.model
    tokens = job.batch_size * job.length / (sizes["data"] * sizes["fsdp"] * job.microbatches)
    width, ffn, tensor = model.embed_dim, model.mlp_dim, sizes["tensor"]
    # Of a layer: its input; with its products kept also queries, keys, values, attended values, and what leaves
    # both products of the feed-forward; with nothing recomputed the norms' and activations' results too.
    kept = {
        "full": width,
        "dots": width + (4 * width + ffn) / tensor + 2 * width,
        "none": 6 * width + (5 * width + 2 * ffn) / tensor,
    }[model.remat]
    return int(model.num_layers * tokens * kept * jnp.dtype(model.dtype).itemsize)


def _estimate_exchanges(job: Job, sizes: Mapping[str, int]) -> list[Collective]:
    """What a chip sends: weights gathered before use, gradients scattered, activations of split layers summed."""
    model, found = job.model, []
    computed = jnp.dtype(model.dtype).itemsize
    data, fsdp, tensor = sizes["data"], sizes["fsdp"], sizes["tensor"]
    weights = computed * model.num_parameters() / tensor
    tokens = job.batch_size * job.length / (data * fsdp)
    passes = 2 * job.microbatches  # forward, and backward with what it recomputes
    if fsdp > 1:
        share = (fsdp - 1) / fsdp
        found.append(Collective("all-gather", passes * model.num_layers, passes * share * weights))
        scattered = job.microbatches * share * weights
        found.append(Collective("reduce-scatter", job.microbatches * model.num_layers, scattered))
    if data > 1:
        found.append(Collective("all-reduce", 1, 2 * (data - 1) / data * weights / fsdp))
    if tensor > 1:
        summed = computed * tokens * model.embed_dim * 2 * (tensor - 1) / tensor
        times = (4 if model.remat != "full" else 6) * model.num_layers
        found.append(Collective("all-reduce", times * job.microbatches, times * summed))
    return found


def _moved(job: Job, sizes: Mapping[str, int]) -> float:
    """Bytes that a chip reads and writes in a step, at the least: weights, optimiser and saved activations."""
    model = job.model
    computed = jnp.dtype(model.dtype).itemsize
    weights = computed * model.num_parameters() / sizes["tensor"]
    passes = 3 if model.remat == "full" else 2
    shard = model.num_parameters() / (sizes["fsdp"] * sizes["tensor"])
    # Parameters, both moments and the gradient are read, the first three written, all float32.
    return job.microbatches * (passes * weights + 2 * _saved(job, sizes)) + 7 * 4 * shard
