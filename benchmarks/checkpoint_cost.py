"""What saving costs training: steps with a checkpoint written beside them, and steps without.

    python benchmarks/checkpoint_cost.py [--layers=6] [--width=256] [--steps=20] [--rounds=5] [--period=500]

Rounds of equal numbers of steps take turns; in every second one a checkpoint (parameters and Adam's state) is begun
before the first step, and its files are written while the steps go on. What the round takes longer, the wait for
the writing's end included, is the price of one checkpoint; over `period` steps it is the share that saving costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time

import jax
import numpy as np

from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training import checkpoints, mesh, optimizer, partition, step
from iml.training.rules import PartitionRules


def measure(arguments: argparse.Namespace, folder: str) -> dict[str, float]:
    """Medians over the rounds: seconds a step, and what one checkpoint adds."""
    config = OPTConfig(
        vocab_size=arguments.vocabulary,
        num_layers=arguments.layers,
        embed_dim=arguments.width,
        num_heads=arguments.width // 64,
        ffn_dim=4 * arguments.width,
        max_positions=arguments.length,
        dtype="float32",
        dropout=0.0,
    )
    devices, network, adam = mesh.make_mesh(mesh.MeshConfig()), OPT(config), optimizer.AdamConfig()
    update = optimizer.make_optimizer(adam, 100, network.logical_axes())
    layout = step.lay_out(network, update, PartitionRules(), devices)
    train_step = step.make_train_step(network, update, optimizer.make_schedule(adam, 100), layout, devices)
    params = jax.jit(network.init, out_shardings=layout.shardings.params)(jax.random.key(0))
    state, key = step.begin(layout, update, params), jax.random.key(1)
    shape = (arguments.batch_size, arguments.length)
    tokens = np.random.default_rng(0).integers(4, arguments.vocabulary, shape).astype(np.int32)
    batch = {
        "tokens": tokens,
        "targets": tokens,
        "segment_ids": np.ones(shape, np.int32),
        "positions": np.broadcast_to(np.arange(arguments.length, dtype=np.int32), shape),
        "loss_weights": np.ones(shape, np.float32),
        "task_ids": np.zeros((arguments.batch_size, 1), np.int32),
    }
    batch = jax.device_put(batch, partition.shard_batch(devices))
    keeper = checkpoints.Checkpoints(folder, keep=2)
    rounds: dict[bool, list[float]] = {False: [], True: []}
    begun = []
    for number in range(1 + 2 * arguments.rounds):  # The first one compiles and counts for nothing.
        saves = number % 2 == 0
        before = time.perf_counter()
        if saves:
            keeper.save(number, state.params, state.opt_state, {"step": number})
            begun.append(time.perf_counter() - before)
        for _ in range(arguments.steps):
            state, metrics = train_step(state, {}, batch, key)
            metrics["loss_sum"].block_until_ready()
        keeper.wait()
        if number:
            rounds[saves].append(time.perf_counter() - before)
    keeper.close()
    without, beside = (statistics.median(rounds[saves]) for saves in (False, True))
    step_seconds = without / arguments.steps
    return {
        "parameters": config.num_parameters(),
        "state_megabytes": 12 * config.num_parameters() / 1e6,
        "step_seconds": step_seconds,
        "steps_wait_for_copy_seconds": statistics.median(begun[1:]),
        "checkpoint_costs_seconds": beside - without,
        "checkpoint_costs_steps": (beside - without) / step_seconds,
        "share_of_period": (beside - without) / (arguments.period * step_seconds),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = {"layers": 6, "width": 256, "vocabulary": 8192, "length": 256, "batch_size": 4}
    for name, value in {**defaults, "steps": 20, "rounds": 5, "period": 500}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(parser.parse_args(), folder), indent=1))
