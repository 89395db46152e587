"""Parameters come back bit by bit, and what is missing or damaged is told in one line."""

import json
import shutil

import jax
import numpy as np
import pytest

from iml.errors import InputError
from iml.models.opt import OPT
from iml.training import checkpoints, initial, partition
from iml.training.mesh import MeshConfig, make_mesh
from iml.training.optimizer import Lomo
from iml.training.rules import PartitionRules
from tests.data.small_vocabulary import write_vocabulary
from tests.training import tiny
from tests.training.sharded import CONFIG


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a run of four steps, checkpoints 0, 2 and 4."""
    folder = tmp_path_factory.mktemp("finished")
    tiny.run(folder, steps=4, checkpoint_period=2)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def assert_equal(found, expected):
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def damage(folder):
    """Cuts every data file to half its length."""
    for file in folder.rglob("*"):
        if file.is_file() and file.stat().st_size > 200:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_parameters_come_back_with_their_configuration_and_vocabulary(tmp_path):
    params = OPT(CONFIG).init(jax.random.key(0))
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    for _ in range(2):  # the second time over the first
        checkpoints.save_params(tmp_path / "saved", CONFIG, params, vocabulary.directory)
    config, found = checkpoints.load_params(tmp_path / "saved")
    assert config == CONFIG
    assert_equal(found, params)
    where = checkpoints.locate(tmp_path / "saved").vocabulary
    assert type(vocabulary)(where).fingerprint == vocabulary.fingerprint

    model, mesh = OPT(CONFIG), make_mesh(MeshConfig())
    shardings = partition.shard_params(model.abstract_params(), model.logical_axes(), PartitionRules(), mesh)
    _, placed = checkpoints.load_params(tmp_path / "saved", shardings)
    assert_equal(placed, params)
    assert jax.tree.map(lambda leaf: leaf.sharding, placed) == shardings


def test_a_run_stands_for_its_latest_checkpoint(run):
    assert checkpoints.complete_steps(run / "run") == (0, 2, 4)
    assert tiny.digest(run / "run") == tiny.digest(run / "run" / "checkpoints" / "4")
    assert tiny.digest(run / "run") == tiny.digest(run / "run" / "checkpoints")
    assert tiny.digest(run / "run") != tiny.digest(run / "run" / "checkpoints" / "2")
    where = checkpoints.locate(run / "run" / "checkpoints" / "2")
    assert where.step == 2 and where.vocabulary
    # What a killed process was writing does not count.
    (run / "run" / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()
    assert checkpoints.locate(run / "run").step == 4


def test_a_run_begins_from_another_ones_parameters(run):
    tiny.run(run, run="second", steps=1, init_from=str(run / "run"))
    assert tiny.digest(run / "second" / "checkpoints" / "0") == tiny.digest(run / "run")
    told = r"another model \(num_layers is 2, not 3\)\. .*add --gin\.OPTConfig\.num_layers=2$"
    with pytest.raises(InputError, match=told):
        tiny.run(run, run="third", model={"num_layers": 3}, init_from=str(run / "run"))


def test_a_run_begins_from_hugging_faces_files(tmp_path):
    from iml.models import weights_hf

    tiny.prepare(tmp_path)
    config = tiny.config(tmp_path)["model"]
    params = OPT(config).init(jax.random.key(3))
    weights_hf.write(tmp_path / "hf", config, params)
    mesh = make_mesh(MeshConfig())
    model = OPT(config)
    shardings = partition.shard_params(model.abstract_params(), model.logical_axes(), PartitionRules(), mesh)
    assert_equal(initial.read_params(str(tmp_path / "hf"), model, shardings), params)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no parameters of iml here\. Name a run"):
        checkpoints.load_params(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no parameters of iml here"):
        tiny.run(tmp_path, init_from=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("part", ["params", "opt_state", "meta"])
def test_a_damaged_checkpoint_names_its_folder_and_the_way_out(run, part):
    damage(run / "run" / "checkpoints" / "4" / part)
    with pytest.raises(InputError, match=r"checkpoints/4.*damaged.*Remove the folder of this step"):
        tiny.run(run, steps=6, checkpoint_period=2)
    shutil.rmtree(run / "run" / "checkpoints" / "4")
    tiny.run(run, steps=6, checkpoint_period=2)
    assert checkpoints.locate(run / "run").step == 6


def test_a_missing_part_is_a_damaged_checkpoint(run):
    shutil.rmtree(run / "run" / "checkpoints" / "4" / "opt_state")
    with pytest.raises(InputError, match="checkpoints/4"):
        tiny.run(run, steps=6, checkpoint_period=2)


def test_damaged_model_json_is_named(run, tmp_path):
    params = OPT(CONFIG).init(jax.random.key(0))
    checkpoints.save_params(tmp_path / "saved", CONFIG, params)
    path = tmp_path / "saved" / "model.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(InputError, match=r"model\.json"):
        checkpoints.load_params(tmp_path / "saved")
    path.write_text(json.dumps({"layers": 3}))
    with pytest.raises(InputError, match=r"model\.json.*layers"):
        checkpoints.load_params(tmp_path / "saved")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eps": 30}, "mixture"),
        ({"batch_size": 4}, "batch_size: was 8, is 4"),
        ({"seed": 5}, "seed: was 1234, is 5"),
        ({"model": {"dropout": 0.2}}, r"dropout was 0\.1, is 0\.2"),
        ({"optimizer": Lomo()}, "optimizer: was 'AdamConfig', is 'Lomo'"),
    ],
)
def test_a_run_does_not_go_on_under_other_settings(finished, changes, said):
    before = (finished / "run" / "config.gin").read_text()
    with pytest.raises(InputError, match=f"begun with other settings.*{said}.*another train.run_dir"):
        tiny.run(finished, steps=6, checkpoint_period=2, **changes)
    assert (finished / "run" / "config.gin").read_text() == before
    assert checkpoints.complete_steps(finished / "run") == (0, 2, 4)


@pytest.mark.parametrize(("begun", "other"), [({}, Lomo()), (Lomo(), {})], ids=["adam", "lomo"])
def test_a_run_from_before_the_optimiser_was_noted_goes_on_with_its_own(tmp_path, begun, other):
    tiny.run(tmp_path, steps=2, optimizer=begun)
    path = tmp_path / "run" / "checkpoints" / "2" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    del meta["fingerprints"]["optimizer"]
    path.write_text(json.dumps(meta))
    with pytest.raises(InputError, match=r"begun with other settings.*optimizer: was"):
        tiny.run(tmp_path, steps=3, optimizer=other)
    assert tiny.run(tmp_path, steps=3, optimizer=begun)["step"] == 3


def test_a_run_keeps_what_it_began_from_and_with(run):
    def told():
        return [(run / "second" / name).read_text() for name in ("plan.json", "config.gin")]

    again = {"run": "second", "optimizer": {"learning_rate": 1e-3}}
    tiny.run(run, run="second", steps=1, init_from=str(run / "run"))
    before = told()
    # A run that has ended, started again, trains nothing.
    assert tiny.run(run, steps=1, init_from="elsewhere", **again) == {}
    assert told() == before
    assert tiny.run(run, steps=2, **again)["step"] == 2
    plan = json.loads(told()[0])
    assert plan["steps"] == 2 and plan["init_from"] == str(run / "run")
