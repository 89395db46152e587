"""Small random models for the tests of evaluation."""

from __future__ import annotations

import pathlib

import jax

from iml.data.vocabulary import Vocabulary
from iml.evaluation.engines.loading import LoadedModel
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training.mesh import MeshConfig, make_mesh
from tests.data.small_vocabulary import write_vocabulary


def small_config(vocabulary: Vocabulary, **changes) -> OPTConfig:
    fields = {"num_layers": 2, "embed_dim": 32, "num_heads": 2, "max_positions": 64, "dtype": "float32"}
    return OPTConfig(vocab_size=vocabulary.padded_size, **{**fields, **changes})


def random_params(opt: OPT, seed: int = 0):
    """Parameters large enough that the model has opinions."""
    return jax.tree.map(lambda x: x * 20 if x.ndim > 1 else x, opt.init(jax.random.key(seed)))


def small_model(
    folder: pathlib.Path, vocabulary: Vocabulary | None = None, bos: bool = False, **changes
) -> LoadedModel:
    vocabulary = vocabulary or write_vocabulary(folder / "vocabulary")
    config = small_config(vocabulary, **changes)
    opt = OPT(config)
    mesh = make_mesh(MeshConfig())
    return LoadedModel(opt, random_params(opt), vocabulary, mesh, config.max_positions, 4, bos)
