"""NF4 against bitsandbytes, where it is installed, and against what the paper says of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iml.models import nf4


def kernel(inputs=256, outputs=96, seed=0):
    return jax.random.normal(jax.random.key(seed), (inputs, outputs)) * 0.02


def test_values_are_those_of_bitsandbytes():
    torch = pytest.importorskip("torch", reason="the peer of NF4 needs torch")
    peer = pytest.importorskip("bitsandbytes.functional", reason="NF4's peer is not installed")
    weights = kernel()
    packed, state = peer.quantize_4bit(
        torch.from_numpy(np.ascontiguousarray(weights.T)),
        blocksize=64,
        compress_statistics=True,
        quant_type="nf4",
    )
    expected = peer.dequantize_4bit(packed, state).numpy().T
    ours = nf4.quantise(weights)
    found = np.asarray(nf4.dequantise(ours, jnp.float32))
    # Weights and scales that lie in the middle between two levels may be rounded to either.
    theirs = packed.numpy().reshape(96, 128).T
    assert (np.asarray(ours["codes"]) == theirs).mean() > 0.999
    assert (np.asarray(ours["absmax"]).T.reshape(-1) == state.absmax.numpy()).mean() > 0.99
    np.testing.assert_allclose(np.asarray(ours["scales"]), state.state2.absmax.numpy(), rtol=1e-5)
    close = np.isclose(found, expected, rtol=1e-5, atol=1e-8)
    assert close.mean() > 0.99
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_each_weight_takes_the_nearest_level_of_its_block():
    weights = kernel()
    quantised = nf4.quantise(weights)
    bits = 8 * sum(array.nbytes for array in quantised.values()) / weights.size
    assert 4.12 < bits < 4.14
    blocks = np.asarray(weights).reshape(4, 64, 96)
    unit = blocks / np.abs(blocks).max(axis=1, keepdims=True)
    levels = np.array(nf4.LEVELS, np.float32)
    nearest = np.abs(unit[..., None] - levels).argmin(axis=-1).reshape(256, 96)
    codes = np.asarray(quantised["codes"])
    assert (np.stack([codes >> 4, codes & 15], 1).reshape(256, 96) == nearest).mean() > 0.9999


def test_a_block_of_zeros_stays_zero_and_its_neighbours_are_unharmed():
    weights = kernel().at[64:128].set(0.0)
    found = nf4.dequantise(nf4.quantise(weights), jnp.float32)
    assert not found[64:128].any()
    assert float(jnp.abs(found - weights).max()) < 0.2 * float(jnp.abs(weights).max())
