"""A kernel that leaks, or is wrong in its gradients alone, is noticed before a run."""

import jax
import jax.numpy as jnp
import pytest

from iml.models import attention
from iml.models.blocks import blocked_attention
from iml.models.config import OPTConfig
from iml.training import kernel_check
from iml.training.mesh import MeshConfig, make_mesh

CONFIG = OPTConfig(
    vocab_size=64,
    num_layers=1,
    embed_dim=64,
    num_heads=2,
    max_positions=256,
    dtype="float32",
    attention="blocks",
)


def check():
    return kernel_check.compare(CONFIG, make_mesh(MeshConfig(), jax.devices()[:1]), 256)


def leaking(query, key, value, segment_ids):
    return blocked_attention(query, key, value, jnp.ones_like(segment_ids))


def wrong_backwards(query, key, value, segment_ids):
    return blocked_attention(query, key, jax.lax.stop_gradient(value), segment_ids)


def test_a_right_kernel_passes():
    assert 0 < check() < 1e-5


@pytest.mark.parametrize("kernel", [leaking, wrong_backwards])
def test_a_wrong_kernel_is_noticed(monkeypatch, kernel):
    monkeypatch.setattr(attention, "blocked_attention", kernel)
    with pytest.raises(kernel_check.KernelError, match=r"'blocks' is .* away from the reference"):
        check()
