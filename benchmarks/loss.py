"""Time and memory of the loss over OPT's vocabulary, with its gradients: whole logits against chunks.

    python benchmarks/loss.py [--widths=256,768] [--rows=2] [--length=1024] [--chunks=256,512,1024,2048]
    python benchmarks/loss.py --topology=v5p:2x2x1 --widths=768,2048,4096 --rows=8 --length=2048 --dtype=bfloat16

Measured is the end of a training step alone: from hidden states and the token table to the loss and its gradients
by both, at all positions and at a quarter of them (gathered targets). "scan, recomputed" is the usual way to save
the logits' memory: a scan over chunks whose backward pass makes the logits again. The variants take turns; times
are medians. With --topology nothing runs: each is compiled for one chip of a TPU slice, and its memory shown.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from iml.models import losses

VOCAB = 50272


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


def variants(chunks: list[int]) -> dict[str, Callable[..., Any]]:
    """Losses by name."""
    found: dict[str, Callable[..., Any]] = {"whole logits": plain}
    for chunk in chunks:
        found[f"chunks of {chunk}"] = functools.partial(chunked, chunk=chunk)
    found[f"scan of {chunks[-1]}, recomputed"] = functools.partial(recomputed, chunk=chunks[-1])
    return found


def arguments_of(width: int, rows: int, length: int, dtype: str) -> list[jax.ShapeDtypeStruct]:
    shape = (rows, length)
    return [
        jax.ShapeDtypeStruct((*shape, width), dtype),
        jax.ShapeDtypeStruct((VOCAB, width), jnp.float32),
        jax.ShapeDtypeStruct(shape, jnp.int32),
        jax.ShapeDtypeStruct(shape, jnp.float32),
    ]


def compile_all(abstract: list[jax.ShapeDtypeStruct], chunks: list[int], device: Any) -> dict[str, Any]:
    """Compiled losses with gradients, by name; the compiler's words where one has no room."""
    placed = jax.sharding.SingleDeviceSharding(device)
    abstract = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed) for leaf in abstract]
    found = {}
    for name, loss in variants(chunks).items():
        try:
            found[name] = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*abstract).compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            found[name] = str(error)
    return found


def measure(compiled: dict[str, Any], abstract: list[jax.ShapeDtypeStruct], turns: int) -> dict[str, float]:
    """Median seconds by name."""
    keys = jax.random.split(jax.random.key(0), 4)
    hidden, table, targets, weights = abstract
    arguments = (
        jax.random.normal(keys[0], hidden.shape, hidden.dtype),
        0.02 * jax.random.normal(keys[1], table.shape, table.dtype),
        jax.random.randint(keys[2], targets.shape, 0, VOCAB),
        jnp.ones(weights.shape, weights.dtype),
    )
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    for turn in range(turns + 1):
        for name, run in compiled.items():
            began = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def main() -> None:
    """Measures and prints one table a width."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", default="256,768")
    parser.add_argument("--chunks", default="256,512,1024,2048")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--topology")
    for name, default in (("rows", 2), ("length", 1024), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    device = jax.devices()[0]
    if given.topology:
        from iml.training.machines import tpu_devices

        device = tpu_devices(given.topology)[0]
    for width in map(int, given.widths.split(",")):
        table = Table("loss", "positions", "GB beside arguments and results", "seconds")
        table.title = f"width {width}, {given.dtype}, {device.device_kind}"
        for length in (given.length, given.length // 4):
            chunks = [c for c in map(int, given.chunks.split(",")) if c <= given.rows * length]
            abstract = arguments_of(width, given.rows, length, given.dtype)
            compiled = compile_all(abstract, chunks, device)
            seconds = {} if given.topology else measure(compiled, abstract, given.turns)
            for name, program in compiled.items():
                used = "no room"
                if not isinstance(program, str):
                    used = f"{program.memory_analysis().temp_size_in_bytes / 1e9:.3f}"
                took = f"{seconds[name]:.3f}" if name in seconds else "-"
                table.add_row(name, str(given.rows * length), used, took)
            table.add_section()
        Console(width=100).print(table)


if __name__ == "__main__":
    main()
