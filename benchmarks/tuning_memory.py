"""Memory of a step under every kind of tuning, each in a process of its own.

    python benchmarks/tuning_memory.py [--gin_file=models/opt_125m.gin] [--rows=1] [--length=512] [--dtype=float32]
        [--remat=none] [--kinds=full,lomo,lora,qlora,bitfit] [--compile_only]

Bytes of parameters and optimiser state are those of the arrays that a step takes; temporaries are what the
compiler says that it allocates besides (`memory_analysis`); the peak is that of the process's resident memory after
two steps from random parameters, with JAX and the compiler in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

KINDS = ("full", "lomo", "lora", "qlora", "bitfit")
_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def measure(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of one kind of tuning, in this process."""
    import gin
    import jax
    import jax.numpy as jnp
    import numpy as np

    from iml.models.adapters import LoRA
    from iml.models.config import OPTConfig
    from iml.models.opt import OPT
    from iml.training import mesh, optimizer, partition, step
    from iml.training.fused import make_step
    from iml.training.rules import PartitionRules
    from iml.training.tuning import make_tuning
    from iml.training.tunings import BitFit

    configurable = gin.external_configurable(OPTConfig, "OPTConfig")
    gin.parse_config_file(f"gin_configs/{arguments.gin_file}", skip_unknown=True)
    config = dataclasses.replace(configurable(), dtype=arguments.dtype, remat=arguments.remat)
    settings = {
        "lora": LoRA(targets=_TARGETS, base="bfloat16"),
        "qlora": LoRA(targets=_TARGETS, base="nf4"),
        "bitfit": BitFit(),
    }.get(kind)
    adam = optimizer.Lomo() if kind == "lomo" else optimizer.AdamConfig()
    devices, tuning = mesh.make_mesh(mesh.MeshConfig()), make_tuning(settings)
    network = OPT(config, lora=tuning.lora)
    update = optimizer.make_optimizer(adam, 100, tuning.split(network.logical_axes())[0])
    layout = step.lay_out(network, update, PartitionRules(), devices, tuning)
    train_step = make_step(network, adam, update, 100, layout, devices, loss_chunk=256)
    rows = partition.shard_batch(devices)
    whole = np.zeros((arguments.rows, arguments.length), np.int32)
    names = ("tokens", "targets", "segment_ids", "positions")
    batch = dict.fromkeys(names, whole) | {"task_ids": np.zeros((arguments.rows, 4), np.int32)}
    batch |= {"segment_ids": whole + 1, "positions": whole + np.arange(arguments.length, dtype=np.int32)}
    batch["loss_weights"] = np.ones(whole.shape, np.float32)
    batch = {name: jax.device_put(array, rows) for name, array in batch.items()}
    key = jax.random.key(0)
    compiled = train_step.lower(layout.placed, layout.frozen, batch, key).compile()

    def size(*trees: Any) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trees))

    params = layout.placed.params
    found = {
        "trained": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "parameters": size(params, layout.frozen),
        "optimiser": size(layout.placed.opt_state),
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
    }
    if not arguments.compile_only:
        start = jax.jit(network.init, out_shardings=layout.params_shardings)(key)
        trained, frozen = tuning.split(start)
        state = step.begin(layout, update, trained)
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            state, metrics = jax.block_until_ready(compiled(state, frozen, batch, key))
            seconds.append(time.perf_counter() - began)
        assert jnp.isfinite(metrics["loss_sum"])
        found |= {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "seconds": min(seconds)}
    return found


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gin_file", default="models/opt_125m.gin")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--compile_only", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments)))
        return
    columns = ("trained", "parameters", "optimiser", "temporaries", "peak", "seconds")
    table = Table("kind", *columns, title=f"{arguments.gin_file}, {arguments.rows} x {arguments.length}, MiB")
    for kind in arguments.kinds.split(","):
        command = [sys.executable, __file__, *sys.argv[1:], f"--one={kind}"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = json.loads(said.splitlines()[-1])
        shown = {name: f"{value / 2**20:,.1f}" for name, value in found.items()}
        shown |= {"trained": f"{found['trained']:,}", "seconds": f"{found.get('seconds', float('nan')):.2f}"}
        table.add_row(kind, *(shown.get(name, "") for name in columns))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
