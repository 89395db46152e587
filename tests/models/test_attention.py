"""Every attention kernel gives what the plain reference gives, forward and backward, on random packings."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.errors import InputError
from iml.models import attention, gpu
from iml.models.blocks import blocked_attention, visible_blocks
from iml.models.splash import splash_attention
from iml.training.mesh import MeshConfig, make_mesh
from iml.training.partition import spread_attention

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


def compare(attend, segment_ids, head_dim, seed, rtol=1e-4, atol=1e-5):
    """The reference's result and gradients, and `attend`'s."""
    random = np.random.default_rng(seed)
    shape = (*segment_ids.shape, 2, head_dim)
    query, key, value, weights = (jnp.asarray(random.normal(size=shape), jnp.float32) for _ in range(4))

    def both(attend):
        def weighed(*arrays):
            mixed = attend(*arrays, segment_ids)
            return (mixed * weights).sum(), mixed

        (_, mixed), grads = jax.value_and_grad(weighed, (0, 1, 2), has_aux=True)(query, key, value)
        return mixed, *grads

    for ours, reference in zip(both(attend), both(REFERENCE), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=rtol, atol=atol)


HEAD_DIMS = st.sampled_from([64, 80, 128])
# Compiled once for each shape.
REFERENCE = jax.jit(attention.document_attention)
SPLASH = jax.jit(functools.partial(splash_attention, interpret=True))
BLOCKS = jax.jit(functools.partial(blocked_attention, block=64))
PALLAS = jax.jit(functools.partial(gpu.pallas_attention, interpret=True))


@settings(deadline=None, max_examples=10)
@given(segment_ids=packings(), head_dim=HEAD_DIMS, seed=st.integers(0, 99))
def test_splash_attention_is_the_reference(segment_ids, head_dim, seed):
    compare(SPLASH, segment_ids, head_dim, seed)


@settings(deadline=None, max_examples=8)
@given(segment_ids=packings(), head_dim=HEAD_DIMS, cut=st.sampled_from([0, 37]), seed=st.integers(0, 99))
def test_blocked_attention_is_the_reference(segment_ids, head_dim, cut, seed):
    segment_ids = segment_ids[:, cut:]  # rows need not be whole blocks, nor begin with document 1
    compare(BLOCKS, segment_ids, head_dim, seed)


def test_blocked_attention_takes_ids_in_any_order():
    segment_ids = np.random.default_rng(0).integers(0, 5, (2, LENGTH)).astype(np.int32)
    compare(BLOCKS, segment_ids, 64, 0)


def test_blocks_without_a_common_document_are_left_out():
    ids = np.repeat([[1, 2, 2, 3], [9, 9, 9, 9]], 64, axis=1)
    pairs, count = visible_blocks(ids, 64)
    own = [(0, 0, 0), (0, 1, 1), (0, 2, 1), (0, 2, 2), (0, 3, 3)]
    causal = [(1, i, j) for i in range(4) for j in range(i + 1)]
    assert [tuple(pair) for pair in np.asarray(pairs)[: int(count)]] == own + causal


@settings(deadline=None, max_examples=3)
@given(segment_ids=packings(), head_dim=HEAD_DIMS, seed=st.integers(0, 99))
def test_pallas_attention_is_the_reference(segment_ids, head_dim, seed):
    compare(PALLAS, segment_ids, head_dim, seed)


@settings(deadline=None, max_examples=5)
@given(segment_ids=packings(), head_dim=HEAD_DIMS, seed=st.integers(0, 99))
def test_tokamax_attention_is_the_reference(segment_ids, head_dim, seed):
    base = pytest.importorskip("tokamax._src.ops.attention.base", reason="tokamax is an extra")
    plain = base.DotProductAttention()
    compare(functools.partial(gpu.tokamax_attention, kernel=plain), segment_ids, head_dim, seed)


@settings(deadline=None, max_examples=25)
@given(segment_ids=packings())
def test_bounds_of_documents(segment_ids):
    """What cuDNN and tokamax are told says the same as the mask."""
    place = np.arange(LENGTH)
    first = np.asarray(gpu.first_keys(segment_ids))
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    causal = place[:, None] >= place
    assert ((place >= first[:, :, None]) & causal == same & causal).all()
    starts, sizes, count = map(np.asarray, gpu.packed_layout(jnp.asarray(segment_ids), 8))
    assert starts.shape == (2, 9) and sizes.shape == (2, 8)
    for row, ids in enumerate(segment_ids):
        begins = np.flatnonzero(np.diff(ids, prepend=-1))
        number = int(count[row])
        assert list(starts[row, :number]) == list(begins) and (starts[row, number:] == -1).all()
        assert list(sizes[row, :number]) == list(np.diff([*begins, LENGTH]))
        assert (sizes[row, number:] == -1).all()


def test_more_documents_than_cudnn_was_told_of_are_counted():
    starts, sizes, count = gpu.packed_layout(jnp.asarray([[1, 1, 2, 3, 3, 0]]), 2)
    assert (count > 2).all()
    assert starts.tolist() == [[0, 2, -1]] and sizes.tolist() == [[2, 1]]


@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("name", ["cudnn", "pallas"])
def test_gpu_kernels_lower_for_cuda(monkeypatch, name, head_dim):
    """Without a GPU: forward and backward become calls of the kernel, and no array of all pairs is left."""
    monkeypatch.setattr(gpu, "_capability", lambda: (9, 0))
    cudnn = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda capability: False)
    array = jax.ShapeDtypeStruct((2, 512, 4, head_dim), jnp.bfloat16)
    ids = jax.ShapeDtypeStruct((2, 512), jnp.int32)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])

    def loss(query, key, value, ids):
        attend = functools.partial(attention.document_attention, implementation=name)
        return attend(query, key, value, ids, spread=spread_attention(mesh)).astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(array, array, array, ids)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = {"cudnn": ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"), "pallas": ("triton",)}
    assert all(call in text for call in calls[name])
    assert "512x512" not in text


def test_splash_attention_needs_whole_blocks():
    array = jnp.zeros((1, 200, 2, 64))
    with pytest.raises(InputError, match="multiple of 128 positions, not 200"):
        splash_attention(array, array, array, jnp.ones((1, 200), jnp.int32), interpret=True)


def test_what_auto_stands_for(monkeypatch):
    assert attention.resolve("auto", "tpu") == "splash"
    assert attention.resolve("auto", "cpu") == "blocks"
    assert attention.resolve("auto", "cpu", 0.1) == attention.resolve("auto", "tpu", 0.1) == "xla"
    # Never the plain reference on a GPU: it would hold all pairs in float32.
    assert attention.resolve("auto", "gpu") == "blocks"
    monkeypatch.setattr(gpu, "_capability", lambda: (8, 0))
    assert attention.resolve("auto", "gpu") in ("tokamax", "pallas")
    assert "capability 9.0, not 8.0" in attention.available("gpu")["cudnn"]
    assert attention.resolve("auto", "gpu", dtype="float32") == "pallas"


@pytest.mark.parametrize(
    ("name", "platform", "rate", "said"),
    [
        ("flash", "cpu", 0.0, "unknown attention 'flash'"),
        ("splash", "gpu", 0.0, "'splash' does not run on gpu"),
        ("splash", "tpu", 0.1, "'splash' has no dropout"),
        ("blocks", "cpu", 0.1, "'blocks' has no dropout"),
        ("cudnn", "gpu", 0.0, "no NVIDIA GPU is at hand"),
        ("pallas", "cpu", 0.0, "'pallas' does not run on cpu"),
    ],
)
def test_what_cannot_be_had_is_refused(name, platform, rate, said):
    with pytest.raises(InputError, match=said):
        attention.resolve(name, platform, rate)
