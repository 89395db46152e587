"""The loss by chunks against the loss of whole logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iml.models import losses


def problem(rows=3, length=7, vocab=50, width=8, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jax.random.normal(keys[0], (rows, length, width)).astype(dtype)
    table = jax.random.normal(keys[1], (vocab, width))
    targets = jax.random.randint(keys[2], (rows, length), 0, vocab)
    weights = jnp.maximum(jax.random.normal(keys[3], (rows, length)), 0.0)
    return hidden, table, targets, weights


def plain(hidden, table, targets, weights):
    logits = jnp.einsum("bld,vd->blv", hidden, table.astype(hidden.dtype), preferred_element_type=jnp.float32)
    return losses.target_loss(logits, targets, weights)[0], losses.token_nll(logits, targets)


def gradients(loss, arguments):
    return jax.jit(jax.value_and_grad(lambda *a: 3.0 * loss(*a)[0], argnums=(0, 1)))(*arguments)


@pytest.mark.parametrize("chunk", [1, 4, 7, 21, 1000])
def test_chunks_change_neither_loss_nor_gradients(chunk):
    arguments = problem()
    found = gradients(lambda *a: losses.chunked_loss(*a, chunk=chunk), arguments)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        found,
        gradients(plain, arguments),
    )
    # Without a gradient it is the same loss, and each position's is at hand.
    for value, expected in zip(losses.chunked_loss(*arguments, chunk=chunk), plain(*arguments), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_products_in_bfloat16_are_summed_in_float32():
    """Against float64 the error stays that of rounding each product's factors once."""
    hidden, table, targets, weights = problem(4, 256, 500, 32, jnp.bfloat16)
    loss, (by_hidden, by_table) = gradients(
        lambda *a: losses.chunked_loss(*a, chunk=16), (hidden, table, targets, weights)
    )
    assert loss.dtype == by_table.dtype == jnp.float32 and by_hidden.dtype == jnp.bfloat16
    x, t = (np.asarray(array.astype(jnp.bfloat16), np.float64) for array in (hidden, table))
    logits = x @ t.T
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    nll = -np.log(np.take_along_axis(probabilities, np.asarray(targets)[..., None], -1)[..., 0])
    np.testing.assert_allclose(loss, 3 * (nll * np.asarray(weights)).sum(), rtol=1e-5)
    by_logits = (probabilities - np.eye(500)[np.asarray(targets)]) * np.asarray(weights)[..., None] * 3
    expected = np.einsum("blv,bld->vd", by_logits, x)
    assert np.linalg.norm(by_table - expected) < 3e-3 * np.linalg.norm(expected)
    expected = by_logits @ t
    difference = np.asarray(by_hidden, np.float64) - expected
    assert np.linalg.norm(difference) < 5e-3 * np.linalg.norm(expected)


def test_what_weighs_nothing_counts_for_nothing():
    hidden, table, targets, weights = problem()
    weights = weights.at[0].set(0.0)
    arguments = (hidden.at[0].set(1e38), table, targets, weights)  # these logits are infinite
    loss, (by_hidden, by_table) = gradients(lambda *a: losses.chunked_loss(*a, chunk=4), arguments)
    assert jnp.isfinite(loss) and jnp.isfinite(by_table).all()
    assert not by_hidden[0].any()


def test_the_gradient_of_a_frozen_table_is_not_computed():
    hidden, table, targets, weights = problem()

    def products(argnums):
        loss = jax.grad(lambda h, t: losses.chunked_loss(h, t, targets, weights, chunk=4)[0], argnums=argnums)
        return str(jax.make_jaxpr(loss)(hidden, table)).count("dot_general")

    assert products((0, 1)) == products((0,)) + 1 == products((1,)) + 1 == 3
