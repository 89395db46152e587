"""What plans say of memory beside what a step really takes on this machine's CPU.

    python benchmarks/planner_memory.py [--devices=1,8] [--output=FILE.json]

For each configuration a process of its own compiles the step for simulated devices, then runs it. Shown, per
device, are what stays from step to step by the analytic model and as the bytes of the live arrays; and what a step
allocates beside it, by the analytic model, by the compiler (`memory_analysis`) and as the growth of the process's
peak resident memory over what it held before.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

MODEL = {"vocab_size": 4096, "num_layers": 4, "embed_dim": 256, "num_heads": 8, "dropout": 0.0}
LENGTH = 256
#: Name, devices, mesh, remat, rows, microbatches, whether the loss is taken at a quarter of the positions.
CASES = (
    ("full", 1, {}, "full", 16, 1, False),
    ("attention", 1, {}, "attention", 16, 1, False),
    ("dots", 1, {}, "dots", 16, 1, False),
    ("none", 1, {}, "none", 16, 1, False),
    ("full, 4 microbatches", 1, {}, "full", 16, 4, False),
    ("full, target budget", 1, {}, "full", 16, 1, True),
    ("full, fsdp 8", 8, {"data": 1, "fsdp": 8}, "full", 32, 1, False),
    ("none, fsdp 4, tensor 2", 8, {"data": 1, "fsdp": 4, "tensor": 2}, "none", 32, 1, False),
)


def make_job(case: tuple[Any, ...]):
    """The job of a case, float32 as CPUs compute."""
    from iml.models.config import OPTConfig
    from iml.training.job import Job
    from iml.training.mesh import MeshConfig
    from iml.training.optimizer import AdamConfig
    from iml.training.rules import PartitionRules

    _, _, mesh, remat, rows, microbatches, budget = case
    return Job(
        model=OPTConfig(**MODEL, max_positions=LENGTH, remat=remat, dtype="float32"),
        optimizer=AdamConfig(),
        mesh=MeshConfig(**mesh),
        rules=PartitionRules(),
        steps=100,
        batch_size=rows,
        length=LENGTH,
        microbatches=microbatches,
        segments=8,
        target_budget=LENGTH // 4 if budget else None,
    )


def measure(case: tuple[Any, ...], execute: bool = True) -> dict[str, float]:
    """Bytes a device, by source; runs in a process with as many devices as the case has."""
    import jax
    import jax.numpy as jnp

    from iml.training import analytic, planner
    from iml.training.mesh import make_mesh

    job, mesh = make_job(case), make_mesh(make_job(case).mesh)
    devices = mesh.size
    train_step, abstract = planner.step_of(job, mesh)
    compiled = train_step.lower(*abstract).compile()
    reckoned = analytic.memory(job, dict(mesh.shape), "cpu")
    found = {
        "kept, reckoned": sum(reckoned[kind] for kind in ("parameters", "optimiser", "batch")),
        "temporaries, reckoned": reckoned["temporaries"],
        "temporaries, compiler": compiled.memory_analysis().temp_size_in_bytes,
    }
    if not execute:
        return found

    def fill(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.device_put(jax.random.key(0), leaf.sharding)
        make = jax.jit(lambda: jnp.ones(leaf.shape, leaf.dtype), out_shardings=leaf.sharding)
        return make()

    return found | _run(compiled, jax.tree.map(fill, abstract), devices)


def _run(compiled: Any, arguments: Any, devices: int) -> dict[str, float]:
    import jax

    jax.block_until_ready(arguments)
    live = sum(array.nbytes for array in jax.live_arrays())
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held
    before = _status("VmRSS")
    jax.block_until_ready(compiled(*arguments))
    grown = _status("VmHWM") - before
    return {"kept, live arrays": live / devices, "temporaries, resident": grown / devices}


def _status(field: str) -> int:
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(text.split(f"{field}:")[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", default="1,8", help="only cases of so many")
    parser.add_argument("--output", help="a file for the figures as JSON")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measure(CASES[options.case])))
        return
    rows = []
    for number, case in enumerate(CASES):
        if str(case[1]) not in options.devices.split(","):
            continue
        flags = f"--xla_force_host_platform_device_count={case[1]}"
        done = subprocess.run(
            [sys.executable, __file__, f"--case={number}"],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(done.stderr)
        rows.append({"case": case[0]} | json.loads(done.stdout.splitlines()[-1]))
        figures = "  ".join(
            f"{name} {size / 2**20:,.1f}" for name, size in rows[-1].items() if name != "case"
        )
        print(f"{case[0]}: {figures} MiB", flush=True)
    if options.output:
        pathlib.Path(options.output).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
