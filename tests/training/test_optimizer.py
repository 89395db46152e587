"""The optimiser against Adam written out, and its schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iml.errors import InputError
from iml.training.optimizer import AdamConfig, make_optimizer, make_schedule


def test_schedule_rises_to_the_peak_then_falls_to_zero():
    schedule = make_schedule(AdamConfig(learning_rate=6e-5, warmup_steps=60), 4000)
    rates = [float(schedule(count)) for count in range(4001)]
    np.testing.assert_allclose(rates[:60], 6e-5 * np.arange(1, 61) / 60, rtol=1e-5)
    assert max(rates) == pytest.approx(6e-5)
    np.testing.assert_allclose(rates[60:], 6e-5 * (4000 - np.arange(60, 4001)) / 3940, rtol=1e-4, atol=1e-12)
    assert rates[3999] > 0 == rates[4000]


@pytest.mark.parametrize(("warmup", "steps"), [(0, 5), (60, 5), (1, 1), (4, 5)])
def test_short_runs_have_a_positive_rate_at_every_step(warmup, steps):
    schedule = make_schedule(AdamConfig(learning_rate=1.0, warmup_steps=warmup), steps)
    assert all(0 < float(schedule(count)) <= 1 for count in range(steps))


def test_updates_are_clipped_adam_with_decoupled_decay_on_matrices():
    config = AdamConfig(learning_rate=0.1, weight_decay=0.1, warmup_steps=0, clip=1.0)
    random = np.random.default_rng(0)
    axes = {"kernel": ("layers", "embed", "mlp"), "bias": ("layers", "embed"), "table": ("vocab", "embed")}
    shapes = {"kernel": (2, 3, 4), "bias": (2, 3), "table": (5, 3)}
    params = {name: random.normal(size=shape) for name, shape in shapes.items()}
    grads = [{name: 3 * random.normal(size=shape) for name, shape in shapes.items()} for _ in range(6)]
    optimizer = make_optimizer(config, 10, axes)
    found = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    state = optimizer.init(found)
    first, second = (dict.fromkeys(shapes, 0.0) for _ in range(2))
    for count, grad in enumerate(grads):
        updates, state = optimizer.update(
            jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), grad), state, found
        )
        found = jax.tree.map(jnp.add, found, updates)
        norm = np.sqrt(sum((leaf**2).sum() for leaf in grad.values()))
        rate = 0.1 * (10 - count) / 10
        for name in shapes:
            clipped = grad[name] / max(norm, 1.0)
            first[name] = 0.9 * first[name] + 0.1 * clipped
            second[name] = 0.95 * second[name] + 0.05 * clipped**2
            unbiased = second[name] / (1 - 0.95 ** (count + 1))
            step = first[name] / (1 - 0.9 ** (count + 1)) / (np.sqrt(unbiased) + 1e-8)
            decay = 0.1 * params[name] if name != "bias" else 0
            params[name] = params[name] - rate * (step + decay)
    for name in shapes:
        np.testing.assert_allclose(found[name], params[name], rtol=2e-5, atol=1e-6, err_msg=name)


def test_negative_settings_are_named():
    with pytest.raises(InputError, match=r"AdamConfig\.weight_decay"):
        AdamConfig(weight_decay=-1)
