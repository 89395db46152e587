"""The engine on eight simulated devices, over rows, parameters and heads, answers as on one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import json, pathlib, sys
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.engines.loading import LoadedModel
from iml.evaluation.engines.opt_engine import OPTEngine
from iml.models.opt import OPT
from iml.training import partition
from iml.training.mesh import MeshConfig, make_mesh
from iml.training.rules import PartitionRules
from tests.data.small_vocabulary import write_vocabulary
from tests.evaluation.models import random_params, small_config
import jax

vocabulary = write_vocabulary(pathlib.Path(sys.argv[1]))
results = []
for sizes in json.loads(sys.argv[2]):
    config = small_config(vocabulary, num_layers=1)
    opt = OPT(config)
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: sizes[0] * sizes[1] * sizes[2]])
    shardings = partition.shard_params(opt.abstract_params(), opt.logical_axes(), PartitionRules(), mesh)
    params = jax.device_put(random_params(opt), shardings)
    engine = OPTEngine(LoadedModel(opt, params, vocabulary, mesh, 64, 4))
    pairs = [("the cat in the north on the ant " * 1 + s, ["on", "an ant"]) for s in ("a", "the", "in")] * 3
    scores = [[x.text, x.eos] for row in engine.likelihoods(pairs) for x in row]
    sources = ["the cat", "an", "on the other"]
    greedy = [x.tokens for x in engine.generate(sources, Decoding(5))]
    beams = [x.tokens for x in engine.generate(sources, Decoding(5, beams=2))]
    results.append([scores, greedy, beams])
print(json.dumps(results))
"""


@pytest.mark.slow
def test_meshes_change_nothing(tmp_path):
    meshes = [[1, 1, 1], [8, 1, 1], [2, 2, 2]]
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "vocabulary"), json.dumps(meshes)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, *others = json.loads(done.stdout.splitlines()[-1])
    for other in others:
        np.testing.assert_allclose(other[0], first[0], atol=2e-4)
        assert other[1:] == first[1:]
