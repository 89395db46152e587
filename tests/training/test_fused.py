"""LOMO against plain gradient descent, and the memory it takes."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from iml.errors import InputError
from iml.models.opt import OPT
from iml.training import fused, partition
from iml.training import mesh as mesh_lib
from iml.training import step as step_lib
from iml.training.optimizer import AdamConfig, Lomo, make_optimizer, make_schedule
from iml.training.rules import PartitionRules
from tests.training import sharded, tiny

LOMO = Lomo(learning_rate=0.5, warmup_steps=2, clip=None)
CLIPPED = dataclasses.replace(LOMO, clip=0.05)


def prepare(model, config, **axes):
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(**axes))
    optimizer = make_optimizer(config, 10, model.logical_axes())
    return mesh, optimizer, step_lib.lay_out(model, optimizer, PartitionRules(), mesh)


def run(model, config, **axes):
    """Parameters and metrics after two steps, and what plain descent makes of the same gradients."""
    mesh, optimizer, layout = prepare(model, config, **axes)
    params = jax.jit(model.init, out_shardings=layout.shardings.params)(jax.random.key(0))
    rows = partition.shard_batch(mesh)
    batch = {name: jax.device_put(array, rows) for name, array in sharded.make_batch().items()}
    key, schedule = jax.random.key(1), make_schedule(config, 10)
    gradients = jax.jit(step_lib.make_gradients(model, layout, mesh))
    expected, norms = params, []
    for number in range(2):
        dropout_key = jax.random.fold_in(key, number) if model.drops else None
        grads, _ = gradients(expected, {}, batch, dropout_key)
        norms.append(float(optax.tree.norm(grads)))
        if config.clip is not None:
            grads = jax.tree.map(lambda leaf: leaf * min(1.0, config.clip / norms[-1]), grads)
        if config.clip_value is not None:
            grads = jax.tree.map(lambda leaf: jnp.clip(leaf, -config.clip_value, config.clip_value), grads)
        rate = float(schedule(number))
        expected = jax.tree.map(lambda leaf, grad, rate=rate: leaf - rate * grad, expected, grads)
    expected = jax.tree.map(np.array, expected)
    train_step = fused.make_step(model, config, optimizer, 10, layout, mesh, loss_chunk=7)
    state = step_lib.begin(layout, optimizer, params)
    for norm in norms:
        state, metrics = train_step(state, {}, batch, key)
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    return state.params, expected


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ({}, {}),
        ({"clip": 0.05}, {"dropout": 0.3}),
        ({"clip_value": 1e-3}, {"word_embed_dim": 16, "pre_norm": False, "final_norm": False}),
    ],
)
def test_lomo_is_gradient_descent(changes, model):
    network = OPT(dataclasses.replace(sharded.CONFIG, **model))
    found, expected = run(network, dataclasses.replace(LOMO, **changes), data=1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), found, expected)


@pytest.mark.slow
def test_lomo_on_a_mesh_is_lomo_on_one_device(tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.training.test_fused", str(tmp_path / "found.npz")]
    subprocess.run(command, env=os.environ | flags, cwd=tiny.ROOT, check=True)
    expected, _ = run(OPT(sharded.CONFIG), CLIPPED, data=1)
    with np.load(tmp_path / "found.npz") as found:
        for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
            name = jax.tree_util.keystr(path)
            np.testing.assert_allclose(found[name], leaf, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.slow
def test_lomo_keeps_neither_gradients_nor_moments():
    """All that a step takes beside the batch, by the compiler: about the parameters once, not four times."""
    config = dataclasses.replace(sharded.CONFIG, num_layers=24, embed_dim=64, ffn_dim=256, remat="full")
    model = OPT(config)

    def taken(settings):
        mesh, optimizer, layout = prepare(model, settings, data=1)
        batch = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype)
            for name, array in sharded.make_batch(rows=2).items()
        }
        key = jax.eval_shape(lambda: jax.random.key(0))
        made = fused.make_step(model, settings, optimizer, 10, layout, mesh)
        used = made.lower(layout.placed, {}, batch, key).compile().memory_analysis()
        # What is donated is taken over: results need no room of their own.
        assert used.alias_size_in_bytes > 0.99 * used.output_size_in_bytes
        return (used.argument_size_in_bytes + used.temp_size_in_bytes) / (4 * config.num_parameters())

    assert taken(AdamConfig()) > 3.9
    found = [taken(LOMO), taken(dataclasses.replace(LOMO, clip=1.0))]
    assert max(found) < 1.6, found


def test_what_does_not_go_with_lomo_is_refused():
    model = OPT(sharded.CONFIG)
    mesh, optimizer, layout = prepare(model, LOMO, data=1)
    with pytest.raises(InputError, match=r"train\.microbatches.*does not go with LOMO"):
        fused.make_step(model, LOMO, optimizer, 10, layout, mesh, microbatches=2)
    frozen = dataclasses.replace(layout, frozen={"layers": {}})
    with pytest.raises(InputError, match=r"train\.tuning"):
        fused.make_step(model, LOMO, optimizer, 10, frozen, mesh)
    with pytest.raises(InputError, match=r"Lomo\.clip_value"):
        Lomo(clip=1.0, clip_value=1.0)


if __name__ == "__main__":
    params, descended = run(OPT(sharded.CONFIG), CLIPPED, data=2, fsdp=2, tensor=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), params, descended)
    for matrix in (params["layers"]["fc1"]["kernel"], params["embed_tokens"]["embedding"]):
        assert all(shard.data.size * 4 == matrix.size for shard in matrix.addressable_shards)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    np.savez(sys.argv[1], **{jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves})
