"""Projections with adapters compute what their merged weights do, and no gradient of what is frozen."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iml.errors import InputError
from iml.models import lora as lora_lib
from iml.models.adapters import PROJECTIONS, LoRA
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training.tuning import join, make_tuning

CONFIG = OPTConfig(
    vocab_size=64, num_layers=2, embed_dim=64, num_heads=4, ffn_dim=128, max_positions=16, dtype="float32"
)
TOKENS = np.random.default_rng(0).integers(4, 64, (2, 16))
ROWS = (TOKENS, np.ones_like(TOKENS), np.broadcast_to(np.arange(16), TOKENS.shape))


PLAIN = OPT(CONFIG)
# Compiled once for all.
apply_plain = jax.jit(PLAIN.apply)


def adapted(lora: LoRA):
    """A model with adapters that do something, and its parameters."""
    model = OPT(CONFIG, lora=lora)
    trained, frozen = make_tuning(lora).split(jax.jit(model.init)(jax.random.key(0)))
    random = np.random.default_rng(1)
    trained = jax.tree.map(lambda leaf: jnp.asarray(random.normal(0, 0.05, leaf.shape), jnp.float32), trained)
    return model, trained, frozen


@pytest.mark.parametrize("base", ["float32", "bfloat16", "nf4"])
@pytest.mark.parametrize("targets", [("fc2",), PROJECTIONS])
def test_merged_parameters_compute_the_same(base, targets):
    model, trained, frozen = adapted(LoRA(4, 16.0, targets=targets, base=base))
    params = join(trained, frozen)
    merged = lora_lib.merge(model.lora, CONFIG, params)
    assert jax.tree.map(jnp.shape, merged) == jax.tree.map(jnp.shape, PLAIN.abstract_params())
    found, expected = jax.jit(model.apply)(params, *ROWS), apply_plain(merged, *ROWS)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    without = apply_plain(lora_lib.merge(model.lora, CONFIG, frozen), *ROWS)
    assert float(jnp.abs(found - without).max()) > 0.01


def test_fresh_adapters_change_nothing():
    model, key = OPT(CONFIG, lora=LoRA(targets=PROJECTIONS)), jax.random.key(0)
    found = jax.jit(model.apply)(jax.jit(model.init)(key), *ROWS)
    expected = apply_plain(jax.jit(PLAIN.init)(key), *ROWS)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_dropout_is_of_the_adapters_alone():
    lora = LoRA(4, 16.0, 0.5, PROJECTIONS)
    model = OPT(dataclasses.replace(CONFIG, dropout=0.0), lora=lora)
    _, trained, frozen = adapted(lora)

    @jax.jit
    def states(params, seed):
        return model.hidden(params, *ROWS, dropout_key=jax.random.key(seed))

    assert model.drops
    params = join(trained, frozen)
    assert jnp.abs(states(params, 0) - states(params, 1)).max() > 0.01
    still = join(jax.tree.map(jnp.zeros_like, trained), frozen)
    np.testing.assert_array_equal(states(still, 0), states(still, 1))


def test_frozen_weights_cost_no_gradient():
    """Of forward 2, and backward 2 for inputs and 2 for weights, the last is left out."""
    model, trained, frozen = adapted(LoRA(1, targets=("q_proj",)))

    def of_adapters(trained, frozen):
        return model.hidden(join(trained, frozen), *ROWS).sum()

    def of_all(params):
        return PLAIN.hidden(params, *ROWS).sum()

    def flops(function, *arguments):
        # One layer's: XLA counts the body of a loop once.
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

    few, forward = flops(jax.grad(of_adapters), trained, frozen), flops(of_adapters, trained, frozen)
    weights = 2 * TOKENS.size * (4 * CONFIG.embed_dim**2 + 2 * CONFIG.embed_dim * CONFIG.mlp_dim)
    full = flops(jax.grad(of_all), PLAIN.abstract_params())
    assert full - few > 0.9 * weights
    assert few < 2.6 * forward


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "at least 1"),
        ({"dropout": 1.0}, r"in \[0, 1\)"),
        ({"targets": ("query",)}, "some of q_proj"),
        ({"base": "int4"}, "float32, bfloat16, nf4"),
    ],
)
def test_mistakes_are_told(settings, message):
    with pytest.raises(InputError, match=message):
        LoRA(**settings)


def test_widths_that_cannot_be_cut_into_blocks_are_refused():
    with pytest.raises(InputError, match="multiples of 64; embed_dim is 96"):
        OPT(dataclasses.replace(CONFIG, embed_dim=96), lora=LoRA(base="nf4"))
