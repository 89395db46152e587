"""Gradients and two updates on several meshes, as a program: `python -m tests.training.sharded FOLDER`."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training import mesh as mesh_lib
from iml.training import optimizer as optimizer_lib
from iml.training import partition
from iml.training import step as step_lib
from iml.training.loss_scale import LossScale
from iml.training.rules import PartitionRules

CONFIG = OPTConfig(
    vocab_size=64,
    num_layers=2,
    embed_dim=32,
    num_heads=8,
    ffn_dim=64,
    max_positions=32,
    dropout=0.0,
    dtype="float32",
)
ADAM = optimizer_lib.AdamConfig(learning_rate=1e-2, warmup_steps=2, eps=1e-3, clip=None)
TASK_BENCHMARKS = (0, 1, 0)


def make_batch(rows: int = 8, length: int = 32) -> dict[str, np.ndarray]:
    """Packed rows with very uneven numbers of targets, one row of padding alone among them."""
    random = np.random.default_rng(0)
    tokens = random.integers(4, CONFIG.vocab_size, (2, rows, length)).astype(np.int32)
    segment_ids, positions = np.zeros((2, rows, length), np.int32)
    weights = np.zeros((rows, length), np.float32)
    task_ids = np.full((rows, 4), -1, np.int32)
    for row in range(rows - 1):
        ends = np.sort(random.choice(np.arange(2, length), 3, replace=False))
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            segment_ids[row, start:end] = number + 1
            positions[row, start:end] = np.arange(end - start)
            weights[row, end - 1 - random.integers(0, end - start) * (row % 3) : end] = 1
            task_ids[row, number] = random.integers(0, 3)
    tokens, targets = tokens
    return {
        "tokens": tokens,
        "targets": targets,
        "segment_ids": segment_ids,
        "positions": positions,
        "loss_weights": weights * (segment_ids > 0),
        "task_ids": task_ids,
    }


def compute(
    microbatches: int = 1, target_budget: int | None = None, loss_chunk: int | None = 7, **axes: int
) -> dict[str, np.ndarray]:
    """Loss, metrics, gradients of a first update and parameters after a second, by name, on a mesh."""
    made = make_batch()
    if target_budget is not None:
        made["target_positions"] = np.full((len(made["tokens"]), target_budget), -1, np.int32)
        for places, weights in zip(made["target_positions"], made["loss_weights"], strict=True):
            learnt = np.flatnonzero(weights)
            places[: len(learnt)] = learnt
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(**axes))
    model = OPT(CONFIG)
    optimizer = optimizer_lib.make_optimizer(ADAM, 10, model.logical_axes())
    layout = step_lib.lay_out(model, optimizer, PartitionRules(), mesh)
    params = jax.jit(model.init, out_shardings=layout.shardings.params)(jax.random.key(0))
    rows = partition.shard_batch(mesh)
    batch = {name: jax.device_put(array, rows) for name, array in made.items()}
    train_step = step_lib.make_train_step(
        model,
        optimizer,
        optimizer_lib.make_schedule(ADAM, 10),
        layout,
        mesh,
        microbatches,
        TASK_BENCHMARKS,
        2,
        loss_chunk,
    )
    state, metrics = train_step(step_lib.begin(layout, optimizer, params), {}, batch, jax.random.key(1))
    # The first moment after one update is a tenth of the gradient. A copy: the next step takes the state over.
    grads = jax.tree.map(lambda leaf: np.array(leaf) / (1 - ADAM.b1), optax.tree.get(state.opt_state, "mu"))
    state, _ = train_step(state, {}, batch, jax.random.key(1))
    assert int(state.step) == 2
    parts = mesh.shape["fsdp"] * mesh.shape["tensor"]
    for tree in (state.params, optax.tree.get(state.opt_state, "mu"), optax.tree.get(state.opt_state, "nu")):
        for matrix in (tree["layers"]["fc1"]["kernel"], tree["embed_tokens"]["embedding"]):
            assert all(shard.data.size * parts == matrix.size for shard in matrix.addressable_shards)
    trees = {"grads": grads, "metrics": metrics, "params": state.params}
    return {
        name + jax.tree_util.keystr(path): np.asarray(leaf)
        for name, tree in trees.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


class Descent(NamedTuple):
    """Steps of one batch: each one's metrics, the parameters before the first and after each, the state at last."""

    metrics: list[dict[str, np.ndarray]]
    params: list[Any]
    state: step_lib.TrainState


def descend(
    model: OPT, loss_scale: LossScale | None, steps: int, spoilt_row: int | None = None, **axes: int
) -> Descent:
    """Trains on one batch; the loss of a spoilt row overflows float16 on the device that has it."""
    mesh, made = mesh_lib.make_mesh(mesh_lib.MeshConfig(**axes)), make_batch()
    if spoilt_row is not None:
        made["loss_weights"][spoilt_row] *= 1e6
    optimizer = optimizer_lib.make_optimizer(ADAM, 100, model.logical_axes(), loss_scale)
    layout = step_lib.lay_out(model, optimizer, PartitionRules(), mesh)
    params = jax.jit(model.init, out_shardings=layout.shardings.params)(jax.random.key(0))
    rows = partition.shard_batch(mesh)
    batch = {name: jax.device_put(array, rows) for name, array in made.items()}
    schedule = optimizer_lib.make_schedule(ADAM, 100)
    train_step = step_lib.make_train_step(model, optimizer, schedule, layout, mesh, loss_chunk=7)
    state, found = (
        step_lib.begin(layout, optimizer, params),
        Descent([], [jax.tree.map(np.array, params)], None),
    )
    for _ in range(steps):
        state, metrics = train_step(state, {}, batch, jax.random.key(1))
        found.metrics.append(jax.device_get(metrics))
        found.params.append(jax.tree.map(np.array, state.params))
    return found._replace(state=state)


MESHES = {
    "data": {"data": 8},
    "fsdp": {"data": 1, "fsdp": 8},
    "tensor": {"data": 1, "tensor": 8},
    "fsdp and tensor": {"data": 1, "fsdp": 2, "tensor": 4},
    "all": {"data": 2, "fsdp": 2, "tensor": 2},
    "gathered targets": {"data": 2, "fsdp": 2, "tensor": 2, "target_budget": 30},
    "all, accumulated": {"data": 2, "fsdp": 2, "tensor": 2, "microbatches": 2},
}

if __name__ == "__main__":
    # One device's overflow leaves the update out on all.
    half = OPT(dataclasses.replace(CONFIG, dtype="float16"))
    spoilt = descend(half, LossScale(), 1, spoilt_row=1, data=2, fsdp=2, tensor=2)
    assert spoilt.metrics[0]["skipped"] == 1 and spoilt.state.opt_state.scale == 2
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, *spoilt.params)))
    for name, settings in MESHES.items():
        np.savez(pathlib.Path(sys.argv[1]) / f"{name}.npz", **compute(**settings))
