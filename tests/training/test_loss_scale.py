"""Loss scaling by metaseq's rule: the scale's path, and steps that really overflow."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from iml.errors import InputError
from iml.training.loss_scale import LossScale, check_dtype, guard


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
