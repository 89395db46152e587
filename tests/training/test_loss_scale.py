"""Loss scaling by metaseq's rule: the scale's path, and steps that really overflow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from iml.errors import InputError
from iml.models.opt import OPT
from iml.training.loss_scale import LossScale, check_dtype, check_learning, guard
from tests.training import sharded


def reference(config, overflows):
    """metaseq's scaler written out: scale and window after each step."""
    scale, window, last_overflow, last_change, count = config.initial, config.window, -1, -1, 0
    path = []
    for number, overflow in enumerate(overflows):
        if overflow:
            before, last_overflow, count = scale, number, count + 1
            if count / (number - last_change) >= config.tolerance:
                scale, window = scale / config.factor, max(window // config.factor, 1)
                last_change, count = number, 0
            scale = before if scale < config.minimum else scale
        elif (number - last_overflow) % window == 0:
            scale, window, last_change = scale * config.factor, window * config.factor, number
        path.append((scale, window))
    return path


@pytest.mark.parametrize("tolerance", [0.0, 0.3])
def test_the_scale_moves_as_in_metaseq(tolerance):
    config = LossScale(window=4, tolerance=tolerance, minimum=0.25)
    random = np.random.default_rng(0)
    overflows = np.concatenate([random.random(60) < 0.1, np.ones(16, bool), random.random(60) < 0.1])
    optimizer = guard(optax.adam(0.1), config)
    params = {"w": jnp.ones(3)}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    path = []
    for overflow in overflows:
        grads = {"w": jnp.array([1.0, jnp.inf if overflow else 1.0, jnp.nan if overflow else 1.0])}
        updates, after = update(grads, state, params)
        assert np.array_equal(updates["w"], np.zeros(3)) == overflow
        if overflow:
            jax.tree.map(np.testing.assert_array_equal, after.inner, state.inner)
        state = after
        path.append((float(state.scale), int(state.window)))
    assert path == reference(config, overflows)
    assert int(state.skipped) == overflows.sum()
    assert min(scale for scale, _ in path) == config.minimum


def test_settings_that_cannot_be_are_named():
    for settings, name in (
        ({"window": 0}, "window"),
        ({"factor": 1}, "factor"),
        ({"minimum": 8.0}, "minimum"),
        ({"tolerance": 2.0}, "tolerance"),
    ):
        with pytest.raises(InputError, match=rf"LossScale\.{name}"):
            LossScale(**settings)
    check_dtype("float16", LossScale())
    check_dtype("bfloat16", None)
    for dtype, config in (("float16", None), ("bfloat16", LossScale())):
        with pytest.raises(InputError, match=r"train\.loss_scale"):
            check_dtype(dtype, config)


def test_a_float16_step_that_overflows_is_left_out_and_the_next_ones_learn():
    model = OPT(dataclasses.replace(sharded.CONFIG, dtype="float16"))
    config = LossScale(initial=2.0**17)
    found = sharded.descend(model, config, steps=12, data=1)
    skipped = np.array([metrics["skipped"] for metrics in found.metrics])
    scales = np.array([metrics["loss_scale"] for metrics in found.metrics])
    assert skipped[0] == 1 and not skipped.all() and int(found.state.opt_state.skipped) == skipped.sum()
    assert [round(float(a / b), 3) for a, b in zip(scales[1:], scales, strict=False) if a < b] == [0.5] * int(
        skipped[:-1].sum()
    )
    for metrics, before, after in zip(found.metrics, found.params, found.params[1:], strict=False):
        same = all(jax.tree.leaves(jax.tree.map(np.array_equal, before, after)))
        assert same == bool(metrics["skipped"])
        assert np.isfinite(metrics["grad_norm"])
    losses = [float(metrics["loss_sum"]) for metrics in found.metrics]
    assert losses[-1] < losses[0]
    # The first update that is made is float32's, whatever its step's number.
    first = int(np.argmin(skipped))
    plain = sharded.descend(OPT(sharded.CONFIG), None, steps=1, data=1)
    np.testing.assert_allclose(found.metrics[first]["grad_norm"], plain.metrics[0]["grad_norm"], rtol=1e-2)
    np.testing.assert_allclose(
        found.metrics[first]["learning_rate"], plain.metrics[0]["learning_rate"], rtol=1e-6
    )


def test_a_run_that_only_overflows_ends():
    config = LossScale(minimum=1.0)
    steps = [{"skipped": 1.0, "loss_scale": 2.0}, {"skipped": 1.0, "loss_scale": 1.0}]
    with pytest.raises(InputError, match=r"2 steps.*smallest loss scale 1\.0"):
        check_learning(steps, config)
    check_learning([steps[0], {"skipped": 0.0, "loss_scale": 1.0}], config)
    check_learning(steps[:1], config)
