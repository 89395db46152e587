"""Examines a machine with the run's own step: devices, attention, the leak probe and some timed steps."""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from iml.models import attention
from iml.training import feed, flops, kernel_check, leak_probe, loop, tuning

#: Steps timed; one before them compiles.
STEPS = 20


def examine(setup: loop.Setup, console: Console) -> dict[str, Any]:
    """Runs a few steps of a run from random parameters, and writes nothing.

    Returns:
      What was found and measured: devices, attention (the one in use), kernels (each that there is for the
      platform, or why it cannot be had), kernel_error (see `kernel_check.compare`), tokens_per_second,
      step_seconds (median), compile_seconds, input_wait (share of the time that steps waited for batches), mfu
      and device_memory (bytes at the peak) where they are known.

    Raises:
      LeakError: packed documents see each other.
      KernelError: the attention in use is not the reference's.
    """
    device, config = jax.devices()[0], setup.model.config
    kernels = attention.available(device.platform, config.dtype)
    with console.status("comparing attention with the reference"):
        error = kernel_check.compare(config, setup.mesh, setup.stream.length)
    state, frozen = loop.begin(setup, None)
    probed = f"skipped: {setup.packing}"
    if setup.packing.document_mask:
        with console.status("probing for leaks"):
            params = tuning.join(state.params, frozen)
            change = leak_probe.probe(setup.model, params, setup.mesh, setup.stream.length)
        probed = f"passed: a document changes itself (by {change:.2g}) and no other"
    train_step, key = loop.compile_step(setup), jax.random.key(setup.seed)
    batches = feed.feed(setup.stream, setup.stream.initial_state(), setup.mesh, setup.data_threads)
    seconds, waited, tokens = [], 0.0, 0.0
    try:
        for number in range(STEPS + 1):
            with console.status(f"step {number} of {STEPS}" if number else "compiling the step"):
                fed = next(batches)
                began = time.perf_counter()
                state, metrics = jax.block_until_ready(train_step(state, frozen, fed.batch, key))
                seconds.append(time.perf_counter() - began)
            if number:
                waited += fed.waited
                tokens += float(metrics["tokens"])
    finally:
        batches.close()
    median = statistics.median(seconds[1:])
    found: dict[str, Any] = {
        "devices": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "attention": config.attention,
        "kernels": "; ".join(
            name if why is None else f"{name}: not here, {why}" for name, why in kernels.items()
        ),
        "kernel_error": error,
        "leak_probe": probed,
        "compile_seconds": seconds[0] - median,
        "step_seconds": median,
        "tokens_per_second": tokens / STEPS / median,
        "input_wait": waited / (waited + sum(seconds[1:])),
    }
    peak = flops.peak_flops(device.device_kind)
    if peak:
        stream = setup.stream
        learnt = (stream.limits.targets or stream.length) / stream.length
        counted = flops.flops_per_token(setup.model.config, stream.length, learnt, setup.tuning.settings)
        done = stream.batch_size * stream.length * counted
        found["mfu"] = done / median / (peak * jax.device_count())
    memory = device.memory_stats() or {}
    if "peak_bytes_in_use" in memory:
        found["device_memory"] = memory["peak_bytes_in_use"]
    table = Table(title=f"examined with {STEPS} steps", show_header=False)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), _told(name, value))
    console.print(table)
    return found


def _told(name: str, value: Any) -> str:
    if name in ("mfu", "input_wait"):
        return f"{value:.1%}"
    if name == "device_memory":
        return f"{value / 2**30:.1f} GiB"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return value
