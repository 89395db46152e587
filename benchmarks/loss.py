"""Time and memory of the loss over OPT's vocabulary, with its gradients: whole logits against chunks.

    python benchmarks/loss.py [--widths=768,2048,4096] [--rows=2] [--length=1024] [--targets=0.1] [--turns=5]
    python benchmarks/loss.py --topology=v5p:2x2x1 --rows=8 --length=2048 --dtype=bfloat16
    python benchmarks/loss.py --steps=125m [--topology=v5p:2x2x1] [--remat=full] ...

Measured is the end of a training step alone: from hidden states and the token table to the loss and its gradients
by both, at all positions and at a share of them, gathered. "scan, recomputed" is the usual way to save the logits'
memory: a scan over chunks whose backward pass makes the logits again. The variants take turns; times are medians,
and ratios the medians of the ratios to whole logits at all positions, turn by turn: by the clock, and by processor
time for a machine that others use as well. With --topology nothing runs: each is compiled for one chip of a TPU
slice, and its memory shown.

With --steps it is the memory of a run's whole train step, with Adam, for models by name. Nothing runs: the step is
compiled for this machine's device, or for a whole TPU slice over which the parameters are sharded.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from iml.models import losses
from iml.models.config import OPTConfig
from iml.training.job import Job
from iml.training.machines import tpu_devices
from iml.training.mesh import MeshConfig, make_mesh
from iml.training.optimizer import AdamConfig
from iml.training.planner import step_of
from iml.training.rules import PartitionRules

VOCAB = 50272
#: (layers, width, heads) of OPT's sizes.
MODELS = {"125m": (12, 768, 12), "1.3b": (24, 2048, 32), "6.7b": (32, 4096, 32)}
WHOLE = "whole logits"


@dataclasses.dataclass(frozen=True)
class Case:
    """Where the loss is taken.

    Attributes:
      width: of the model.
      rows: of the batch.
      length: of a row.
      share: of a row's positions that are learnt.
      dtype: of the hidden states and of the products.
    """

    width: int
    rows: int
    length: int
    share: float
    dtype: str

    @property
    def learnt(self) -> int:
        """Positions of a row that are learnt."""
        return round(self.length * self.share)

    @property
    def positions(self) -> int:
        """Positions of all rows at which the loss is taken."""
        return self.rows * self.learnt

    def arguments(self) -> list[jax.ShapeDtypeStruct]:
        """Hidden states, token table, learnt places, their targets and weights."""
        learnt = (self.rows, self.learnt)
        return [
            jax.ShapeDtypeStruct((self.rows, self.length, self.width), self.dtype),
            jax.ShapeDtypeStruct((VOCAB, self.width), jnp.float32),
            jax.ShapeDtypeStruct(learnt, jnp.int32),
            jax.ShapeDtypeStruct(learnt, jnp.int32),
            jax.ShapeDtypeStruct(learnt, jnp.float32),
        ]

    def draw(self) -> list[jax.Array]:
        """Random arguments; the learnt places are a row's last."""
        random = np.random.default_rng(0)
        hidden, table, places, targets, weights = self.arguments()
        last = np.arange(self.length - self.learnt, self.length)
        return [
            jnp.asarray(random.standard_normal(hidden.shape, np.float32), hidden.dtype),
            jnp.asarray(0.02 * random.standard_normal(table.shape, np.float32)),
            jnp.asarray(np.broadcast_to(last, places.shape), places.dtype),
            jnp.asarray(random.integers(0, VOCAB, targets.shape), targets.dtype),
            jnp.ones(weights.shape, weights.dtype),
        ]


def plain(hidden, table, targets, weights):
    """The loss of whole logits."""
    logits = jnp.einsum("bld,vd->blv", hidden, table.astype(hidden.dtype), preferred_element_type=jnp.float32)
    return losses.target_loss(logits, targets, weights)[0]


def recomputed(hidden, table, targets, weights, *, chunk):
    """A scan over chunks, whose logits are made again in the backward pass."""
    parts = [array.reshape(-1, chunk, *array.shape[2:]) for array in (hidden, targets, weights)]

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(total, part):
        states, wanted, weight = part
        return total + plain(states[None], table, wanted[None], weight[None]), None

    return jax.lax.scan(add, jnp.float32(0), tuple(parts))[0]


def chunked(*arguments, chunk):
    """What a training step uses."""
    return losses.chunked_loss(*arguments, chunk=chunk)[0]


def variants(case: Case, chunks: list[int]) -> dict[str, Callable[..., Any]]:
    """Losses by name. Of chunks that hold all positions only the smallest is taken."""
    found: dict[str, Callable[..., Any]] = {WHOLE: plain}
    fewer = [chunk for chunk in chunks if chunk < case.positions]
    for chunk in fewer:
        found[f"chunks of {chunk}"] = functools.partial(chunked, chunk=chunk)
    if len(fewer) < len(chunks):
        found["one chunk"] = functools.partial(chunked, chunk=case.positions)
    if fewer:
        chunk = math.gcd(fewer[-1], case.positions)
        found[f"scan of {chunk}, recomputed"] = functools.partial(recomputed, chunk=chunk)
    return found


def differentiated(loss: Callable[..., Any], case: Case) -> Callable[..., Any]:
    """The loss of a case's arguments and its gradients by hidden states and table."""

    def value(hidden, table, places, targets, weights):
        if case.share < 1:
            hidden = jnp.take_along_axis(hidden, places[..., None], axis=1)
        return loss(hidden, table, targets, weights)

    return jax.value_and_grad(value, argnums=(0, 1))


def compile_or_say(lowered: jax.stages.Lowered) -> Any:
    """The program; None where the compiler finds no room for it."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def compile_all(case: Case, chunks: list[int], device: Any) -> dict[str, Any]:
    """A case's programs by name."""
    placed = jax.sharding.SingleDeviceSharding(device)
    abstract = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed) for leaf in case.arguments()]
    return {
        name: compile_or_say(jax.jit(differentiated(loss, case)).lower(*abstract))
        for name, loss in variants(case, chunks).items()
    }


def measure(compiled: dict[tuple[Case, str], Any], turns: int) -> dict[tuple[Case, str], np.ndarray]:
    """Seconds by the clock and of the processors, [2, turns], by case and name."""
    arguments = {case: case.draw() for case, _ in compiled}
    seconds: dict[tuple[Case, str], list[tuple[float, float]]] = {key: [] for key in compiled}
    for turn in range(turns + 1):
        for key, run in compiled.items():
            began, used = time.perf_counter(), time.process_time()
            jax.block_until_ready(run(*arguments[key[0]]))
            if turn:  # the first warms up
                seconds[key].append((time.perf_counter() - began, time.process_time() - used))
    return {key: np.array(taken).T for key, taken in seconds.items()}


def temporaries(program: Any) -> str:
    """Gigabytes beside arguments and results."""
    return "no room" if program is None else f"{program.memory_analysis().temp_size_in_bytes / 1e9:.3f}"


def show_losses(given: argparse.Namespace) -> None:
    """Prints one table a width: the loss alone."""
    chunks = sorted(map(int, given.chunks.split(",")))
    device = tpu_devices(given.topology)[0] if given.topology else jax.devices()[0]
    for width in map(int, given.widths.split(",")):
        cases = [Case(width, given.rows, given.length, share, given.dtype) for share in (1.0, given.targets)]
        compiled = {
            (case, name): run for case in cases for name, run in compile_all(case, chunks, device).items()
        }
        seconds = {} if given.topology else measure(compiled, given.turns)
        table = Table("loss", "positions", "GB of temporaries", "seconds", "ratio", "by processor")
        table.title = f"width {width}, {given.dtype}, {device.device_kind}"
        for case in cases:
            for name in (name for each, name in compiled if each is case):
                row = [name, str(case.positions), temporaries(compiled[case, name])]
                if seconds:
                    mine, whole = seconds[case, name], seconds[cases[0], WHOLE]
                    ratios = np.median(mine / whole, axis=1)
                    row += [f"{np.median(mine[0]):.3f}", *(f"{ratio:.2f}" for ratio in ratios)]
                table.add_row(*row)
            table.add_section()
        Console(width=100).print(table)


def show_steps(given: argparse.Namespace) -> None:
    """Prints the whole train steps' memory."""
    devices = tpu_devices(given.topology) if given.topology else jax.devices()[:1]
    sizes = MeshConfig(data=1, fsdp=-1)
    mesh = make_mesh(sizes, devices)
    table = Table("model", "loss", "positions learnt a device", "GB of temporaries a device")
    table.title = f"{len(devices)} x {devices[0].device_kind}, {given.dtype}, remat {given.remat}"
    chunks = [None, *sorted(map(int, given.chunks.split(",")))]
    for name in given.steps.split(","):
        layers, width, heads = MODELS[name]
        shape = {"num_layers": layers, "embed_dim": width, "num_heads": heads, "max_positions": given.length}
        model = OPTConfig(**shape, dtype=given.dtype, remat=given.remat)
        for budget in (None, round(given.length * given.targets)):
            for chunk in chunks:
                job = Job(
                    model=model,
                    optimizer=AdamConfig(),
                    mesh=sizes,
                    rules=PartitionRules(),
                    steps=10,
                    batch_size=given.rows * len(devices),
                    length=given.length,
                    microbatches=1,
                    segments=64,
                    target_budget=budget,
                    loss_chunk=chunk,
                )
                train_step, abstract = step_of(job, mesh)
                used = temporaries(compile_or_say(train_step.lower(*abstract)))
                loss = f"chunks of {chunk}" if chunk else WHOLE
                table.add_row(name, loss, str(given.rows * (budget or given.length)), used)
        table.add_section()
    Console(width=100).print(table)


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", default="768,2048,4096")
    parser.add_argument("--chunks", default="512,1024", help="positions whose logits are held at a time")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--topology", help="compile for a TPU slice such as v5p:2x2x1; nothing runs")
    parser.add_argument("--steps", help=f"whole train steps of some of {', '.join(MODELS)}")
    parser.add_argument("--remat", default="none", help="of whole steps; see OPTConfig")
    parser.add_argument("--targets", type=float, default=0.1, help="share of the positions that is gathered")
    for name, default in (("rows", 2), ("length", 1024), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    (show_steps if given.steps else show_losses)(given)


if __name__ == "__main__":
    main()
