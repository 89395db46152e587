"""What plans say of memory beside what a step really takes on this machine's CPU.

    python benchmarks/planner_memory.py [--models=tiny,30M,125M] [--devices=1,8] [--output=FILE.json]

Each case has a process of its own, which compiles the step for simulated devices, runs it once to warm up, and once
more to be measured. Shown, of a device:

- kept: parameters, optimiser and batch by the plan; the same as the bytes of the real arrays; and all live arrays
  after the step, among them its number, the key of the random numbers and the metrics, which no plan counts.
- temporaries: by the analytic model; by the compiler (`memory_analysis`); and resident, the growth of the
  process's peak over what it held before the measured step (`VmHWM` after `/proc/self/clear_refs`), Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

#: Name, shape of the model, length of the rows.
MODELS: dict[str, tuple[dict[str, int], int]] = {
    "tiny": ({"vocab_size": 4096, "num_layers": 4, "embed_dim": 256, "num_heads": 8}, 256),
    "30M": ({"vocab_size": 8192, "num_layers": 8, "embed_dim": 512, "num_heads": 8}, 512),
    "125M": ({"vocab_size": 50272, "num_layers": 12, "embed_dim": 768, "num_heads": 12}, 512),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A step to be measured.

    Attributes:
      model: a name of `MODELS`.
      rows: of the batch.
      remat: see `OPTConfig`.
      mesh: sizes of the mesh's axes that are not 1; their product is the number of devices.
      microbatches: see `iml.train`.
      budget: whether the loss is taken at a quarter of the positions.
    """

    model: str
    rows: int
    remat: str
    mesh: Mapping[str, int] = dataclasses.field(default_factory=dict)
    microbatches: int = 1
    budget: bool = False

    @property
    def devices(self) -> int:
        count = 1
        for size in self.mesh.values():
            count *= size
        return count

    def __str__(self) -> str:
        parts = [self.model, f"{self.rows} rows", self.remat]
        parts += [f"{axis} {size}" for axis, size in self.mesh.items()]
        parts += [f"{self.microbatches} microbatches"] * (self.microbatches > 1)
        return ", ".join(parts + ["target budget"] * self.budget)


CASES = (
    *(Case("tiny", 16, remat) for remat in ("full", "attention", "dots", "none")),
    Case("tiny", 16, "full", microbatches=4),
    Case("tiny", 16, "full", budget=True),
    Case("30M", 8, "full"),
    *(Case("125M", 1, remat) for remat in ("full", "dots")),
    Case("tiny", 32, "full", {"fsdp": 8}),
    Case("tiny", 32, "none", {"fsdp": 4, "tensor": 2}),
    Case("tiny", 32, "full", {"data": 2, "fsdp": 2, "tensor": 2}),
)


def make_job(case: Case):
    """The job of a case, float32 as CPUs compute."""
    from iml.models.config import OPTConfig
    from iml.training.job import Job
    from iml.training.mesh import MeshConfig
    from iml.training.optimizer import AdamConfig
    from iml.training.rules import PartitionRules

    shape, length = MODELS[case.model]
    return Job(
        model=OPTConfig(**shape, dropout=0.0, max_positions=length, remat=case.remat, dtype="float32"),
        optimizer=AdamConfig(),
        mesh=MeshConfig(**{"data": 1, "fsdp": 1, "tensor": 1} | dict(case.mesh)),
        rules=PartitionRules(),
        steps=100,
        batch_size=case.rows,
        length=length,
        microbatches=case.microbatches,
        segments=8,
        target_budget=length // 4 if case.budget else None,
    )


def measure(case: Case) -> dict[str, float]:
    """Bytes of a device, by source; runs in a process with as many devices as the case has."""
    import jax
    import jax.numpy as jnp

    from iml.training import analytic, planner
    from iml.training.mesh import make_mesh

    job = make_job(case)
    mesh = make_mesh(job.mesh)
    train_step, abstract = planner.step_of(job, mesh)
    compiled = train_step.lower(*abstract).compile()
    reckoned = analytic.memory(job, dict(mesh.shape), "cpu")

    def fill(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.device_put(jax.random.key(0), leaf.sharding)
        return jax.jit(lambda: jnp.ones(leaf.shape, leaf.dtype), out_shardings=leaf.sharding)()

    state, *rest = jax.tree.map(fill, abstract)
    state, _ = jax.block_until_ready(compiled(state, *rest))
    before = _settled()
    state, _ = jax.block_until_ready(compiled(state, *rest))
    grown = _status("VmHWM") - before
    return {
        "kept, plan": sum(reckoned[kind] for kind in ("parameters", "optimiser", "batch")),
        "kept, state": max(_held((state.params, state.opt_state, rest[:-1])).values()),
        "kept, all live": max(_held(jax.live_arrays()).values()),
        "temporaries, analytic": reckoned["temporaries"],
        "temporaries, compiler": compiled.memory_analysis().temp_size_in_bytes,
        "temporaries, resident": grown / mesh.size,
    }


def _held(tree: Any) -> dict[Any, int]:
    """Bytes of arrays on every device, no buffer counted twice."""
    import jax

    sizes: dict[Any, dict[int, int]] = {}
    for array in jax.tree.leaves(tree):
        for shard in array.addressable_shards:
            held = sizes.setdefault(shard.device, {})
            held[shard.data.unsafe_buffer_pointer()] = shard.data.nbytes
    return {device: sum(held.values()) for device, held in sizes.items()}


def _settled() -> int:
    """What the process holds once the allocator has given back what is free; the peak begins anew from it."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> int:
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(text.split(f"{field}:")[1].split()[0])


def run(case: Case) -> dict[str, float]:
    """`measure` in a process of its own.

    Raises:
      RuntimeError: it failed.
    """
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={case.devices}",
        # Else the threshold grows, and what is freed stays in the process.
        "MALLOC_MMAP_THRESHOLD_": str(2**16),
    }
    done = subprocess.run(
        [sys.executable, __file__, f"--case={json.dumps(dataclasses.asdict(case))}"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help="only cases of these")
    parser.add_argument("--devices", default="1,8", help="only cases of so many")
    parser.add_argument("--output", help="a file for the figures as JSON")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measure(Case(**json.loads(options.case)))))
        return
    rows = []
    for case in CASES:
        if str(case.devices) not in options.devices.split(",") or case.model not in options.models.split(","):
            continue
        rows.append({"case": str(case)} | run(case))
        figures = {name: size for name, size in rows[-1].items() if name != "case"}
        shown = "  ".join(
            f"{name} {size:,.0f} B" if "temp" not in name else f"{name} {size / 2**20:,.1f} MiB"
            for name, size in figures.items()
        )
        print(f"{case}: {shown}", flush=True)
    if options.output:
        pathlib.Path(options.output).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
