"""Meshes and partition rules, and what does not fit."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from iml.errors import InputError
from iml.models.opt import OPT
from iml.training import partition
from iml.training.mesh import AXES, MeshConfig, make_mesh
from iml.training.rules import PartitionRules
from tests.training.sharded import CONFIG


def test_sizes_fill_the_devices():
    assert MeshConfig().sizes(8) == (8, 1, 1)
    assert MeshConfig(data=2, fsdp=-1, tensor=2).sizes(8) == (2, 2, 2)
    for config in (MeshConfig(tensor=3), MeshConfig(data=4), MeshConfig(data=16)):
        with pytest.raises(InputError, match="does not fit 8 devices"):
            config.sizes(8)
    with pytest.raises(InputError, match="one of them may be -1"):
        MeshConfig(data=-1, fsdp=-1)


def test_rules_place_every_parameter_and_use_a_mesh_axis_once():
    mesh, model = make_mesh(MeshConfig()), OPT(CONFIG)
    shardings = partition.shard_params(model.abstract_params(), model.logical_axes(), PartitionRules(), mesh)
    layer = shardings["layers"]
    assert layer["fc1"]["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert layer["self_attn"]["out_proj"]["kernel"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert shardings["embed_tokens"]["embedding"].spec == PartitionSpec("tensor", "fsdp")
    assert PartitionRules().mesh_axes(("embed", "word_embed"), AXES) == ("fsdp", None)
    assert PartitionRules((("mlp", None), ("mlp", "tensor"))).mesh_axes(("mlp",), AXES) == (None,)


def test_wrong_rules_and_sizes_are_named():
    with pytest.raises(InputError, match="no mesh axis 'tensr'"):
        PartitionRules((("mlp", "tensr"),)).mesh_axes(("mlp",), AXES)
    with pytest.raises(InputError, match="pairs"):
        PartitionRules((("mlp",),))

    mesh = AbstractMesh((1, 1, 3), AXES)
    model = OPT(CONFIG)
    with pytest.raises(InputError, match="'vocab' of size 64 cannot be divided over 3"):
        partition.shard_params(model.abstract_params(), model.logical_axes(), PartitionRules(), mesh)


def test_a_process_feeds_the_rows_of_its_devices():
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), AXES)
    assert partition.local_lanes(mesh, 6) == [0, 1, 2, 3, 4, 5]
