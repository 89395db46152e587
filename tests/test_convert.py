import json
import subprocess
import sys
import weakref

import jax
import numpy as np
import pytest

from iml.convert import convert
from iml.errors import InputError
from iml.models import layout, weights_hf
from iml.models.opt import OPT
from tests.data.small_vocabulary import write_vocabulary
from tests.models.peers import KINDS


@pytest.fixture
def folder(tmp_path):
    """A Hugging Face folder with its vocabulary."""
    write_vocabulary(tmp_path / "bpe")
    config = KINDS["post_norm"]
    weights_hf.write(tmp_path / "hf", config, OPT(config).init(jax.random.key(0)), tmp_path / "bpe")
    return tmp_path / "hf"


def test_in_and_out_again_keeps_every_bit(folder, tmp_path, capsys):
    convert(str(folder), str(tmp_path / "iml"))
    convert(str(tmp_path / "iml"), str(tmp_path / "again"), target_format="hf")
    said = capsys.readouterr().out
    assert "largest difference" in said or "not checked" in said
    assert "An OPT decoder of" in (tmp_path / "again" / "README.md").read_text()
    jax.tree.map(
        np.testing.assert_array_equal,
        weights_hf.read_params(folder),
        weights_hf.read_params(tmp_path / "again"),
    )
    for name in ("vocab.json", "merges.txt"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with pytest.raises(InputError, match="exists already"):
        convert(str(folder), str(tmp_path / "iml"))


def test_one_leaf_is_in_memory_at_a_time(folder, tmp_path, monkeypatch):
    read, arrays, held = layout.StoredLeaf.read, [], []

    def watched(leaf, index=None):
        held.append(sum(array() is not None for array in arrays))
        value = read(leaf, index)
        arrays.append(weakref.ref(value))
        return value

    monkeypatch.setattr(layout.StoredLeaf, "read", watched)
    convert(str(folder), str(tmp_path / "iml"), check=False)
    assert len(held) == len(layout.leaves(weights_hf.read_config(folder))) and max(held) <= 1


def test_what_breaks_off_leaves_nothing(folder, tmp_path, monkeypatch):
    read = layout.StoredLeaf.read

    def torn(leaf, index=None):
        if leaf.leaf.path[-2] == "fc2":
            raise InputError("cannot be read", path=str(folder))
        return read(leaf, index)

    monkeypatch.setattr(layout.StoredLeaf, "read", torn)
    with pytest.raises(InputError, match="cannot be read"):
        convert(str(folder), str(tmp_path / "iml"))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bpe", "hf"]


def test_half_precision_leaves(folder, tmp_path):
    convert(str(folder), str(tmp_path / "half"), target_format="hf", dtype="bfloat16")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    one, other = (weights_hf.read_params(path) for path in (folder, tmp_path / "half"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.01), one, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "absent"}, "no such file"),
        ({"source_format": "tf"}, "convert.source_format"),
        ({"target_format": "metaseq"}, "convert.target_format"),
        ({"dtype": "int8"}, "convert.dtype"),
    ],
)
def test_mistakes_are_told(folder, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        convert(**{"source": str(folder), "target": str(tmp_path / "x"), **arguments})
    assert not (tmp_path / "x").exists()


def test_the_command_line(folder, tmp_path):
    command = [sys.executable, "-m", "iml.convert", f"--gin.convert.source={folder}"]
    done = subprocess.run(
        [*command, f"--gin.convert.target={tmp_path / 'x'}", "--dry_run"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout and not (tmp_path / "x").exists()
    done = subprocess.run(
        [*command[:-1], "--gin.convert.source=absent", "--gin.convert.target=x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: absent")
