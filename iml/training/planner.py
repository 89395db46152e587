"""Does a job fit a machine that is not at hand, and how long does it take there?

For TPUs the run's own step is compiled ahead of time for the topology, so that memory and exchanges are what the
compiler made; the time is a roofline over the makers' figures. For GPUs, whose compiler needs the GPU, memory
and exchanges come from the analytic model, and the plan says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from iml.errors import InputError
from iml.models.config import REMAT
from iml.models.opt import OPT
from iml.training import analytic, machines, partition
from iml.training import mesh as mesh_lib
from iml.training import optimizer as optimizer_lib
from iml.training import step as step_lib
from iml.training.chips import Chip
from iml.training.collectives import Collective, collectives
from iml.training.fused import make_step
from iml.training.job import Job
from iml.training.mesh import MeshConfig
from iml.training.tuning import make_tuning

#: What is tried when meshes are ranked.
_TENSOR, _DATA = (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32, 64)
#: Attention's kernels for GPUs save nothing by name.
_REMAT = {"tpu": REMAT, "gpu": tuple(name for name in REMAT if name != "attention")}
#: Share of the memory that a suggestion may take: compilers need some of their own.
_SAFE = 0.9


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
      moved: bytes between a chip and its memory, at the least (analytic).
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
    moved: float
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
            "memory": self.moved / self.chip.memory_bandwidth,
            "links": sent / self.chip.link_bandwidth,
        }

    @property
    def seconds(self) -> float:
        """Seconds of a step if arithmetic, memory and links all overlap: no step is faster."""
        return max(self.seconds_by_limit.values())

    @property
    def serial_seconds(self) -> float:
        """Seconds of a step if nothing overlaps, each part still at its peak."""
        return sum(self.seconds_by_limit.values())

    @property
    def mfu(self) -> float:
        """Model FLOP/s by the chips' peak, if all overlaps."""
        return self._mfu(self.seconds)

    @property
    def serial_mfu(self) -> float:
        """Model FLOP/s by the chips' peak, if nothing overlaps."""
        return self._mfu(self.serial_seconds)

    def _mfu(self, seconds: float) -> float:
        return self.model_flops / seconds / (self.chips * self.chip.peak)

    @property
    def tokens_per_second(self) -> float:
        return self.job.tokens / self.seconds

    @property
    def hours(self) -> float:
        """Hours of the whole run, if all overlaps."""
        return self.job.steps * self.seconds / 3600

    @property
    def serial_hours(self) -> float:
        """Hours of the whole run, if nothing overlaps."""
        return self.job.steps * self.serial_seconds / 3600


def announcement(job: Job, topology: str) -> str:
    """What `plan` is about to do, in words.

    Raises:
      InputError: no such machine.
    """
    chip, count = machines.parse(topology)
    done = "compiling" if _platform(chip) == "tpu" else "reckoning"
    return f"{done} for {topology}, {count} chips, {job.model.num_parameters():,} parameters ..."


def plan(job: Job, topology: str) -> Plan:
    """The plan of a job on a topology.

    Args:
      topology: a TPU slice, "v5p:4x4x4", or a number of GPUs, "h200:8".

    Raises:
      InputError: no such machine, or the job's mesh or batch does not go with it, or its settings with each other.
    """
    chip, _ = machines.parse(topology)
    if _platform(chip) == "tpu":
        return _compile(job, topology, chip, machines.tpu_devices(topology))
    return reckon(job, topology)


def suggest(job: Job, topology: str, tried: int = 0) -> list[Plan]:
    """Plans of the same job under other meshes and remat policies, by the analytic model, the quickest first.

    Only those that fit are given, with a tenth of the memory left free. They are ranked by the mean of the time
    if all overlaps and the time if nothing does.

    Args:
      tried: how many to give at most; 0 for all.
    """
    chip, count = machines.parse(topology)
    found = []
    for tensor in _TENSOR:
        for data in _DATA:
            if count % (tensor * data) or job.model.num_heads % tensor:
                continue
            sizes = {"data": data, "fsdp": count // tensor // data, "tensor": tensor}
            if job.batch_size % (data * sizes["fsdp"] * job.microbatches) or not _divides(job, sizes):
                continue
            for remat in _REMAT[_platform(chip)]:
                model = dataclasses.replace(job.model, remat=remat)
                changed = dataclasses.replace(job, model=model, mesh=MeshConfig(**sizes))
                reckoned = _reckon(changed, topology, chip, count, sizes)
                if sum(reckoned.memory.values()) <= _SAFE * chip.memory:
                    found.append(reckoned)
    found.sort(key=lambda each: (each.seconds + each.serial_seconds, sum(each.memory.values())))
    return found[:tried] if tried else found


def _divides(job: Job, sizes: Mapping[str, int]) -> bool:
    """Whether the parameters' axes can be divided over a mesh."""
    try:
        analytic.kept(job, sizes)
    except InputError:
        return False
    return True


def _platform(chip: Chip) -> str:
    return "tpu" if chip.kind.startswith("TPU") else "gpu"


def reckon(job: Job, topology: str) -> Plan:
    """The plan of a job on a topology by the analytic model, whose compiler is not asked.

    Raises:
      InputError: as `plan`.
    """
    chip, count = machines.parse(topology)
    sizes = dict(zip(mesh_lib.AXES, job.mesh.sizes(count), strict=True))
    shards = math.prod(sizes[axis] for axis in partition.BATCH_AXES)
    step_lib.check_batch_size(job.batch_size, job.microbatches, shards)
    optimizer_lib.check_lomo(job.optimizer, job.microbatches, job.model.dtype, job.tuning is None)
    return _reckon(job, topology, chip, count, sizes)


def _reckon(job: Job, topology: str, chip: Chip, count: int, sizes: Mapping[str, int]) -> Plan:
    """The plan by the analytic model."""
    platform = _platform(chip)
    return Plan(
        job,
        topology,
        chip,
        count,
        sizes,
        compiled=False,
        memory=analytic.memory(job, sizes, platform),
        saved=analytic.saved(job, sizes, platform),
        exchanges=analytic.exchanges(job, sizes),
        moved=analytic.moved(job, sizes, platform),
        **analytic.arithmetic(job),
    )


def _compile(job: Job, topology: str, chip: Chip, devices: list[Any]) -> Plan:
    """The plan by the compiler, of the very step that `iml.train` runs."""
    mesh = mesh_lib.make_mesh(job.mesh, devices)
    train_step, abstract = step_of(job, mesh)
    state, frozen, batch, _ = abstract
    memory = {
        "parameters": analytic.bytes_on_a_chip((state.params, frozen)),
        "optimiser": analytic.bytes_on_a_chip(state.opt_state),
        "batch": analytic.bytes_on_a_chip(batch),
    }
    overflow, exchanges = "", []
    try:
        compiled = train_step.lower(*abstract).compile()
    except jax.errors.JaxRuntimeError as error:
        message = str(error)
        if "RESOURCE_EXHAUSTED" not in message and "memory" not in message.lower():
            raise
        overflow = " ".join(message.split())[:400]
    else:
        used = compiled.memory_analysis()
        memory["temporaries"] = used.temp_size_in_bytes
        memory["program"] = used.generated_code_size_in_bytes
        exchanges = collectives(compiled.as_text())
    sizes = dict(mesh.shape)
    return Plan(
        job,
        topology,
        chip,
        len(devices),
        sizes,
        compiled=True,
        memory=memory,
        saved=analytic.saved(job, sizes, "tpu"),
        exchanges=exchanges,
        moved=analytic.moved(job, sizes, "tpu"),
        **analytic.arithmetic(job),
        overflow=overflow,
    )


def step_of(job: Job, mesh: jax.sharding.Mesh) -> tuple[Any, tuple[Any, ...]]:
    """A run's own step for a mesh, not yet compiled, and its arguments as abstract arrays with shardings.

    Raises:
      InputError: the batch or a parameter cannot be divided over the mesh.
    """
    step_lib.check_batch_size(job.batch_size, job.microbatches, partition.batch_shards(mesh))
    rows = partition.shard_batch(mesh)
    tuning = make_tuning(job.tuning)
    network = OPT(
        job.model,
        constrain=lambda x: jax.lax.with_sharding_constraint(x, rows),
        spread=partition.spread_attention(mesh),
        platform=mesh.devices.flat[0].platform,
        lora=tuning.lora,
        gather=partition.gather_frozen(mesh, job.rules),
    )
    trained_axes, _ = tuning.split(network.logical_axes())
    update = optimizer_lib.make_optimizer(job.optimizer, job.steps, trained_axes, job.loss_scale)
    layout = step_lib.lay_out(network, update, job.rules, mesh, tuning)
    train_step = make_step(
        network,
        job.optimizer,
        update,
        job.steps,
        layout,
        mesh,
        job.microbatches,
        loss_chunk=job.loss_chunk,
    )
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=rows)
        for name, (shape, dtype) in job.batch().items()
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=partition.replicated(mesh))
    return train_step, (layout.placed, layout.frozen, batch, key)
