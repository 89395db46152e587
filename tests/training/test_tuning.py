"""Every kind of tuning trains what it should, on one device as on eight, and goes on where it stopped."""

import collections
import dataclasses
import math
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iml.models.adapters import PROJECTIONS, LoRA
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training import flops, partition
from iml.training import mesh as mesh_lib
from iml.training import optimizer as optimizer_lib
from iml.training import step as step_lib
from iml.training.rules import PartitionRules
from iml.training.tuning import Tuning, join, make_tuning
from iml.training.tunings import BitFit, Settings
from tests.training import sharded, tiny

CONFIG = OPTConfig(
    vocab_size=64,
    num_layers=2,
    embed_dim=64,
    num_heads=8,
    ffn_dim=128,
    max_positions=32,
    dropout=0.0,
    dtype="float32",
)
KINDS = {
    "full": None,
    "bitfit": BitFit(norms=True),
    "lora": LoRA(8, 16.0, 0.0, PROJECTIONS),
    "qlora": LoRA(8, 16.0, 0.0, PROJECTIONS, "nf4"),
    "full rank": LoRA(64, 64.0, 0.0, PROJECTIONS),
}


def losses(tuning: Tuning, steps: int, rate: float = 5e-3, **axes: int) -> list[float]:
    """Losses of steps on one batch, from the same random parameters; asserts that nothing frozen changed."""
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(**axes))
    gather = partition.gather_frozen(mesh, PartitionRules())
    model = OPT(CONFIG, lora=tuning.lora, gather=gather)
    adam = optimizer_lib.AdamConfig(learning_rate=rate, warmup_steps=2, eps=1e-6)
    update = optimizer_lib.make_optimizer(adam, 1000, tuning.split(model.logical_axes())[0])
    layout = step_lib.lay_out(model, update, PartitionRules(), mesh, tuning)
    schedule = optimizer_lib.make_schedule(adam, 1000)
    train_step = step_lib.make_train_step(model, update, schedule, layout, mesh)
    params = jax.jit(model.init, out_shardings=layout.params_shardings)(jax.random.key(0))
    trained, frozen = tuning.split(params)
    before = jax.tree.map(np.asarray, frozen)
    state = step_lib.begin(layout, update, trained)
    rows = partition.shard_batch(mesh)
    batch = {name: jax.device_put(array, rows) for name, array in sharded.make_batch().items()}
    found = []
    for _ in range(steps):
        state, metrics = train_step(state, frozen, batch, jax.random.key(0))
        found.append(float(metrics["loss_sum"] / metrics["target_tokens"]))
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, frozen))
    return found


def test_split_and_join_are_inverse():
    tuning = make_tuning(BitFit())
    tree = OPT(CONFIG).abstract_params()
    trained, frozen = tuning.split(tree)
    assert join(trained, frozen) == tree
    names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(trained)}
    assert names == {"bias"} and "embed_tokens" not in trained


@pytest.mark.parametrize("kind", ["full", "lora", "bitfit"])
def test_arithmetic_is_what_xla_counts(kind):
    # As in test_planner.py: plain attention computes all pairs, and a scan of one layer is counted in full.
    shape = {"vocab_size": 1024, "num_layers": 1, "embed_dim": 512, "ffn_dim": 2048, "max_positions": 256}
    config = dataclasses.replace(CONFIG, **shape, attention="xla", remat="none")
    settings = KINDS[kind]
    tuning = make_tuning(settings)
    model = OPT(config, lora=tuning.lora)
    trained, frozen = tuning.split(model.abstract_params())

    def loss(trained, frozen, tokens):
        logits = model.apply(join(trained, frozen), tokens, jnp.ones_like(tokens), tokens % 256)
        return (logits**2).sum()

    lowered = jax.jit(jax.grad(loss)).lower(trained, frozen, jax.ShapeDtypeStruct((4, 256), jnp.int32))
    expected = 4 * 256 * flops.flops_per_token(config, 2 * 256, tuning=settings)
    assert lowered.cost_analysis()["flops"] == pytest.approx(expected, rel=0.03)
    if tuning.lora:
        assert settings.num_parameters(config) == sum(leaf.size for leaf in jax.tree.leaves(trained))


def test_weights_of_4_bits_are_unpacked_a_layer_at_a_time():
    width, ffn = 256, 1024
    unpacked = 4 * (4 * width**2 + 2 * width * ffn)

    def temporaries(layers: int) -> int:
        shape = {"num_layers": layers, "embed_dim": width, "ffn_dim": ffn}
        config = dataclasses.replace(CONFIG, **shape, remat="none")
        tuning = make_tuning(KINDS["qlora"])
        model = OPT(config, lora=tuning.lora)
        trained, frozen = tuning.split(model.abstract_params())

        def loss(trained, frozen, tokens):
            return model.apply(join(trained, frozen), tokens, jnp.ones_like(tokens), tokens).sum()

        rows = jax.ShapeDtypeStruct((1, 8), jnp.int32)
        compiled = jax.jit(jax.grad(loss)).lower(trained, frozen, rows).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, more = temporaries(2), temporaries(6)
    assert few < 2 * unpacked
    assert more - few < unpacked


@pytest.mark.slow
def test_every_kind_learns_and_adapters_of_full_rank_learn_as_much_as_tuning_their_weights():
    tunings = {name: make_tuning(KINDS[name]) for name in ("bitfit", "qlora", "full rank")}
    tunings["weights"] = Tuning(lambda path: path[0] == "layers" and path[-1] == "kernel")
    found = {name: losses(tuning, 20) for name, tuning in tunings.items()}
    fallen = {name: each[0] - each[-1] for name, each in found.items()}
    assert min(fallen.values()) > 0.02, fallen
    assert fallen["full rank"] > 0.5 * fallen["weights"], fallen
    # The same beginning, but for what 4 bits lose.
    assert len({round(found[name][0], 4) for name in ("bitfit", "full rank", "weights")}) == 1
    assert abs(found["qlora"][0] - found["weights"][0]) < 0.1


@pytest.mark.slow
def test_eight_devices_lose_what_one_does():
    program = "from tests.training import test_tuning as t; t.on_eight_devices()"
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=tiny.ROOT, check=True)


def on_eight_devices() -> None:
    assert jax.device_count() == 8
    weights_are_gathered_packed()
    for name in ("bitfit", "qlora"):
        one = mesh_losses(KINDS[name], 1)
        np.testing.assert_allclose(mesh_losses(KINDS[name], 8), one, rtol=2e-5, err_msg=name)


def weights_are_gathered_packed() -> None:
    tuning, mesh = make_tuning(KINDS["qlora"]), mesh_lib.make_mesh(mesh_lib.MeshConfig(fsdp=8))
    config = dataclasses.replace(CONFIG, embed_dim=512, ffn_dim=1024)
    model = OPT(config, lora=tuning.lora, gather=partition.gather_frozen(mesh, PartitionRules()))
    abstract, axes = model.abstract_params(), model.logical_axes()
    trained, frozen = tuning.split(partition.shard_params(abstract, axes, PartitionRules(), mesh))
    rows = partition.shard_batch(mesh)

    def loss(trained, frozen, tokens):
        hidden = model.hidden(join(trained, frozen), tokens, jnp.ones_like(tokens), tokens)
        return hidden.sum()

    shapes = (*tuning.split(abstract), jax.ShapeDtypeStruct((8, 8), jnp.int32))
    text = jax.jit(jax.grad(loss), in_shardings=(trained, frozen, rows)).lower(*shapes).compile().as_text()
    gathered = re.findall(r"= (\w+)\[([\d,]+)\]\S* all-gather\(", text)
    sizes = collections.defaultdict(list)
    for kind, shape in gathered:
        sizes[kind].append(math.prod(int(size) for size in shape.split(",")))
    assert max(sizes["u8"]) == 512 * 1024 // 2
    assert all(size <= 512 * 64 for size in sizes["f32"]), sizes  # biases, adapters and the token table


def mesh_losses(settings: Settings, devices: int) -> list[float]:
    if devices == 8:
        return losses(make_tuning(settings), 3, data=2, fsdp=2, tensor=2)
    make_mesh, mesh_lib.make_mesh = mesh_lib.make_mesh, lambda config: make_mesh(config, jax.devices()[:1])
    try:
        return losses(make_tuning(settings), 3)
    finally:
        mesh_lib.make_mesh = make_mesh


@pytest.mark.slow
@pytest.mark.parametrize("settings", [LoRA(4, base="nf4"), BitFit()], ids=["qlora", "bitfit"])
def test_a_run_that_goes_on_ends_with_the_same_bits_and_keeps_what_is_frozen_once(tmp_path, settings):
    tiny.prepare(tmp_path)
    changes = {"model": {"embed_dim": 64, "ffn_dim": 128}, "tuning": settings, "checkpoint_period": 2}
    tiny.run(tmp_path, run="straight", **changes | {"model": dict(changes["model"])})
    written = (tmp_path / "straight" / "frozen" / "_METADATA").stat().st_mtime_ns
    expected = tiny.digest(tmp_path / "straight")
    for step in (4, 6):
        (tmp_path / "straight" / "checkpoints" / str(step)).rename(tmp_path / f"gone{step}")
    tiny.run(tmp_path, run="straight", **changes | {"model": dict(changes["model"])})
    assert tiny.digest(tmp_path / "straight") == expected
    assert (tmp_path / "straight" / "frozen" / "_METADATA").stat().st_mtime_ns == written
