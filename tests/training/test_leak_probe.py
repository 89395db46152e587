"""The leak probe passes on OPT and notices each kind of leak."""

import jax
import jax.numpy as jnp
import pytest

from iml.models.opt import OPT
from iml.training import leak_probe
from iml.training.mesh import MeshConfig, make_mesh
from tests.training.sharded import CONFIG


class OneSegment(OPT):
    """Attends over the whole row."""

    def hidden(self, params, tokens, segment_ids, positions, **options):
        return super().hidden(params, tokens, jnp.minimum(segment_ids, 1), positions, **options)


class Blind(OPT):
    """Does not look at its input."""

    def hidden(self, params, tokens, segment_ids, positions, **options):
        return super().hidden(params, 0 * tokens, segment_ids, positions, **options)


class NotFinite(OPT):
    def hidden(self, params, tokens, segment_ids, positions, **options):
        return super().hidden(params, tokens, segment_ids, positions, **options) * jnp.nan


@pytest.mark.parametrize("length", [4, 5, 32])
def test_document_attention_passes(length):
    model = OPT(CONFIG)
    mesh = make_mesh(MeshConfig())
    assert leak_probe.probe(model, model.init(jax.random.key(0)), mesh, length) > 0


@pytest.mark.parametrize(
    ("kind", "message"), [(OneSegment, "packing leaks"), (Blind, "its own"), (NotFinite, "inf")]
)
def test_leaks_are_noticed(kind, message):
    model = kind(CONFIG)
    with pytest.raises(leak_probe.LeakError, match=message):
        leak_probe.probe(model, model.init(jax.random.key(0)), make_mesh(MeshConfig()), 32)
