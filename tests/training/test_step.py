"""Neither accumulation nor the mesh changes loss, gradients or the update."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iml.errors import InputError
from iml.models.opt import OPT
from iml.training import fused
from iml.training import mesh as mesh_lib
from iml.training import optimizer as optimizer_lib
from iml.training import step as step_lib
from iml.training.rules import PartitionRules
from tests.training import sharded, tiny


@pytest.fixture(scope="module")
def whole():
    return sharded.compute(data=1)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


def test_loss_is_the_sum_over_targets_by_the_targets_of_the_batch(whole):
    batch, model = sharded.make_batch(), OPT(sharded.CONFIG)
    params = model.init(jax.random.key(0))

    def loss(params):
        logits = model.apply(params, batch["tokens"], batch["segment_ids"], batch["positions"])
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets"][..., None], -1)[..., 0]
        return (nll * batch["loss_weights"]).sum() / batch["loss_weights"].sum()

    value, grads = jax.value_and_grad(loss)(params)
    count = whole["metrics['target_tokens']"]
    assert count == batch["loss_weights"].sum()
    np.testing.assert_allclose(whole["metrics['loss_sum']"] / count, value, rtol=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        found = whole["grads" + jax.tree_util.keystr(path)]
        np.testing.assert_allclose(found, leaf, rtol=2e-5, atol=2e-6)
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(grads)))
    np.testing.assert_allclose(whole["metrics['grad_norm']"], norm, rtol=1e-5)


def test_loss_by_benchmark_sums_to_the_loss(whole):
    batch = sharded.make_batch()
    expected = np.zeros(2)
    for row, position in zip(*np.nonzero(batch["loss_weights"]), strict=True):
        task = batch["task_ids"][row, batch["segment_ids"][row, position] - 1]
        expected[sharded.TASK_BENCHMARKS[task]] += 1
    np.testing.assert_array_equal(whole["metrics['benchmark_tokens']"], expected)
    sums = whole["metrics['benchmark_loss_sum']"]
    np.testing.assert_allclose(sums.sum(), whole["metrics['loss_sum']"], rtol=1e-5)
    assert (sums > 0).all()


@pytest.mark.parametrize("microbatches", [2, 4, 8])
def test_microbatches_change_nothing(whole, microbatches):
    assert_same(sharded.compute(microbatches, data=1), whole)


@pytest.mark.parametrize("microbatches", [1, 4])
def test_a_loss_at_gathered_targets_is_the_same(whole, microbatches):
    assert_same(sharded.compute(microbatches, target_budget=30, data=1), whole)


def test_a_loss_of_whole_logits_is_the_same(whole):
    assert_same(sharded.compute(loss_chunk=None, data=1), whole)


@pytest.mark.slow
def test_the_mesh_changes_nothing(whole, tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.training.sharded", str(tmp_path)]
    subprocess.run(command, env=os.environ | flags, cwd=tiny.ROOT, check=True)
    for name in sharded.MESHES:
        with np.load(tmp_path / f"{name}.npz") as found:
            assert_same(dict(found), whole)


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
@pytest.mark.parametrize("config", [sharded.ADAM, optimizer_lib.Lomo()], ids=["adam", "lomo"])
def test_dropout_follows_the_step_and_the_key(rate, config):
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig())
    model = OPT(dataclasses.replace(sharded.CONFIG, **{rate: 0.5}))
    optimizer = optimizer_lib.make_optimizer(config, 10, model.logical_axes())
    layout = step_lib.lay_out(model, optimizer, PartitionRules(), mesh)
    train_step = fused.make_step(model, config, optimizer, 10, layout, mesh)

    def loss(step, key):
        params = model.init(jax.random.key(0))
        state = step_lib.begin(layout, optimizer, params, step)
        batch = sharded.make_batch()
        return float(train_step(state, {}, batch, jax.random.key(key))[1]["loss_sum"])

    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(1, 1), loss(0, 2)}) == 3


BFLOAT16 = dataclasses.replace(sharded.CONFIG, dtype="bfloat16", param_dtype="bfloat16")


def test_gradients_of_bfloat16_parameters_add_up_in_float32():
    mesh, model, batch = mesh_lib.make_mesh(mesh_lib.MeshConfig()), OPT(BFLOAT16), sharded.make_batch()
    optimizer = optimizer_lib.make_optimizer(sharded.ADAM, 10, model.logical_axes())
    layout = step_lib.lay_out(model, optimizer, PartitionRules(), mesh)
    params = model.init(jax.random.key(0))

    def flat(gradients, rows):
        """The gradients of some rows, times the number of their targets, as one vector."""
        part = {name: array[rows] for name, array in batch.items()}
        grads, metrics = gradients(params, {}, part, None)
        leaves = jax.tree.leaves(grads)
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
        return np.concatenate([np.ravel(leaf) for leaf in leaves]) * max(float(metrics["target_tokens"]), 1)

    def make(microbatches):
        return jax.jit(step_lib.make_gradients(model, layout, mesh, microbatches, loss_chunk=7))

    found, each = flat(make(8), slice(None)), make(1)
    by_row = [flat(each, slice(row, row + 1)) for row in range(8)]
    exact, rounded = sum(by_row), np.zeros_like(found)
    for row in by_row:
        rounded = (rounded + row).astype(jnp.bfloat16).astype(np.float32)
    assert np.linalg.norm(found - exact) < 0.1 * np.linalg.norm(rounded - exact)


def test_a_step_takes_the_state_over_and_keeps_its_types():
    mesh, model = mesh_lib.make_mesh(mesh_lib.MeshConfig()), OPT(BFLOAT16)
    optimizer = optimizer_lib.make_optimizer(sharded.ADAM, 10, model.logical_axes())
    layout = step_lib.lay_out(model, optimizer, PartitionRules(), mesh)
    schedule = optimizer_lib.make_schedule(sharded.ADAM, 10)
    train_step = step_lib.make_train_step(model, optimizer, schedule, layout, mesh, loss_chunk=7)
    key = jax.eval_shape(lambda: jax.random.key(0))
    lowered = train_step.lower(layout.placed, {}, sharded.make_batch(), key)
    state, _ = lowered.out_info
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    assert described == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), layout.abstract)
    # All results but the metrics lie where the state lay before.
    used = lowered.compile().memory_analysis()
    assert used.alias_size_in_bytes > 0.99 * used.output_size_in_bytes


def test_rows_that_cannot_be_divided_are_refused():
    with pytest.raises(InputError, match=r"6 rows cannot be divided into 4 microbatches.*multiple of 4"):
        step_lib.check_batch_size(6, 4, 1)
    step_lib.check_batch_size(8, 4, 1)
