"""Every attention kernel gives what the plain reference gives, forward and backward, on random packings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.errors import InputError
from iml.models import attention
from iml.models.splash import splash_attention

LENGTH = 256


@st.composite
def packings(draw):
    """Segment ids of two rows: documents of any length, then padding; perhaps nothing but padding."""
    rows = np.zeros((2, LENGTH), np.int32)
    for row in rows:
        ends = sorted(draw(st.sets(st.integers(1, LENGTH), max_size=6)))
        for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False), start=1):
            row[start:end] = number
    return rows


@settings(deadline=None, max_examples=10)
@given(segment_ids=packings(), head_dim=st.sampled_from([64, 80, 128]), seed=st.integers(0, 99))
def test_splash_attention_is_the_reference(segment_ids, head_dim, seed):
    random = np.random.default_rng(seed)
    query, key, value, weights = (
        jnp.asarray(random.normal(size=(2, LENGTH, 2, head_dim)), jnp.float32) for _ in range(4)
    )

    def both(attend):
        def weighed(*arrays):
            mixed = attend(*arrays)
            return (mixed * weights).sum(), mixed

        (_, mixed), grads = jax.value_and_grad(weighed, (0, 1, 2), has_aux=True)(query, key, value)
        return mixed, *grads

    found = both(lambda *arrays: splash_attention(*arrays, segment_ids, interpret=True))
    expected = both(lambda *arrays: attention.document_attention(*arrays, segment_ids))
    for ours, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-5)


def test_splash_attention_needs_whole_blocks():
    array = jnp.zeros((1, 200, 2, 64))
    with pytest.raises(InputError, match="multiple of 128 positions, not 200"):
        splash_attention(array, array, array, jnp.ones((1, 200), jnp.int32), interpret=True)


def test_what_auto_stands_for():
    assert attention.resolve("auto", "tpu") == "splash"
    assert attention.resolve("auto", "cpu") == attention.resolve("auto", "tpu", 0.1) == "xla"


@pytest.mark.parametrize(
    ("name", "platform", "rate", "said"),
    [
        ("flash", "cpu", 0.0, "unknown attention 'flash'"),
        ("splash", "gpu", 0.0, "'splash' does not run on gpu"),
        ("splash", "tpu", 0.1, "'splash' has no dropout"),
    ],
)
def test_what_cannot_be_had_is_refused(name, platform, rate, said):
    with pytest.raises(InputError, match=said):
        attention.resolve(name, platform, rate)
