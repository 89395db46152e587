"""Document attention, forward and backward: every implementation that this machine has, beside the plain reference.

    python benchmarks/attention.py [--rows=8] [--length=2048] [--heads=32] [--dtype=bfloat16] [--output=FILE.json]
    python benchmarks/attention.py --rows=1 --heads=2 --length=512 --dtype=float32       on a CPU

Rows are packed with documents of lengths like OPT-IML Bench's (log-normal, mean about 270 tokens). The error is the
largest distance of the result and of the three gradients from the float32 reference, each over the norm of the
reference. The implementations take turns; times are medians of the compiled call, in milliseconds.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import packed_rows

from iml.models import attention

#: The reference holds [rows, heads, length, length] in float32; it is checked on rows for which that is no more.
_MOST_BYTES = 4e9


def passes(name: str, segment_ids: jax.Array) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled forward pass, and forward and backward together: (result, gradients)."""
    attend = functools.partial(attention.document_attention, implementation=name)

    def weighed(query, key, value, weights):
        mixed = attend(query, key, value, segment_ids)
        return (mixed.astype(jnp.float32) * weights).sum(), mixed

    def both(query, key, value, weights):
        grads, mixed = jax.grad(weighed, (0, 1, 2), has_aux=True)(query, key, value, weights)
        return mixed, *grads

    return jax.jit(lambda query, key, value, _: attend(query, key, value, segment_ids)), jax.jit(both)


def seconds(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each of some calls."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - began)
    return found


def measure(arguments: argparse.Namespace, head_dim: int) -> list[dict[str, Any]]:
    """A record for each implementation of the platform."""
    platform = jax.default_backend()
    shape = (arguments.rows, arguments.length, arguments.heads, head_dim)
    random = np.random.default_rng(0)
    exact = [jnp.asarray(random.normal(size=shape), jnp.float32) for _ in range(4)]
    segment_ids = jnp.asarray(packed_rows.make_segments(arguments.rows, arguments.length))
    arrays = [array.astype(arguments.dtype) for array in exact]
    few = max(1, min(arguments.rows, int(_MOST_BYTES / (4 * arguments.heads * arguments.length**2))))
    with jax.default_matmul_precision("highest"):
        rounded = [array[:few].astype(jnp.float32) for array in arrays]
        reference = passes("xla", segment_ids[:few])[1](*rounded)
    records, calls = [], {}
    for name, missing in attention.available(platform, arguments.dtype).items():
        record: dict[str, Any] = {"head_dim": head_dim, "implementation": name}
        records.append(record)
        if missing:
            record["missing"] = missing
            continue
        try:
            forward, both = passes(name, segment_ids)
            found = both(*arrays)
            jax.block_until_ready(forward(*arrays))
        except Exception as error:  # one that fails is reported, and the others are measured
            record["missing"] = f"fails: {type(error).__name__}: {str(error)[:200]}"
            continue
        pairs = zip(found, reference, strict=True)
        record["error"] = max(
            float(jnp.linalg.norm(ours[:few].astype(jnp.float32) - theirs) / jnp.linalg.norm(theirs))
            for ours, theirs in pairs
        )
        calls[name] = [functools.partial(run, *arrays) for run in (forward, both)]
    took: dict[str, list[list[float]]] = {name: [[], []] for name in calls}
    for _ in range(arguments.repeats):
        for name, runs in calls.items():
            for place, run in enumerate(runs):
                took[name][place] += seconds(run, arguments.calls)
    for record in records:
        if record["implementation"] in took:
            forward, both = (1e3 * statistics.median(each) for each in took[record["implementation"]])
            record |= {"forward_ms": forward, "forward_backward_ms": both}
    return records


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = {"rows": 8, "length": 2048, "heads": 32, "repeats": 5, "calls": 3}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--head_dims", default="64,80,128")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--output", help="write the figures there as JSON")
    arguments = parser.parse_args()
    found = []
    print(f"{jax.devices()[0].device_kind}, {arguments.rows} x {arguments.length}, {arguments.heads} heads")
    print("| head size | implementation | forward ms | forward and backward ms | error |")
    print("|---|---|---|---|---|")
    for head_dim in map(int, arguments.head_dims.split(",")):
        for record in measure(arguments, head_dim):
            found.append(record)
            cells = [record.get("missing", ""), "", ""]
            if "missing" not in record:
                cells = [f"{record['forward_ms']:.2f}", f"{record['forward_backward_ms']:.2f}"]
                cells.append(f"{record['error']:.1e}")
            print(f"| {head_dim} | {record['implementation']} | {' | '.join(cells)} |", flush=True)
    if arguments.output:
        pathlib.Path(arguments.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
