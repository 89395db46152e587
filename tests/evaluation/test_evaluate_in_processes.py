"""Two processes, of one device each, evaluate as one does, and go on with what earlier ones left."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from iml.models.opt import OPT
from iml.training import checkpoints
from launch.local import reserve_port
from tests.data.small_vocabulary import write_vocabulary
from tests.evaluation.models import random_params, small_config
from tests.stores import make_store

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    config = small_config(vocabulary)
    meta = {"model": config.to_json(), "fingerprints": {}, "stream": {}}
    write_vocabulary(tmp_path / "run" / "vocabulary")
    for step in (10, 20):
        written = checkpoints.Checkpoints(tmp_path / "run", None)
        written.save(step, random_params(OPT(config), step), {}, meta | {"step": step})
        written.close()
    choice = [
        {"source": f"is the {i} even?", "target": ["yes", "no"][i % 2], "candidates": ["yes", "no"]}
        for i in range(5)
    ]
    tasks = {
        "t.even": {"card": {"metrics": ["accuracy"]}, "train": choice, "validation": choice},
        "t.copy": {"test": [(f"say {i}", f"{i}") for i in range(3)]},
    }
    make_store(tmp_path, tasks)
    return tmp_path


def evaluate(folder, output, processes, *given, model="run/checkpoints/10"):
    """Evaluates on a mesh of as many processes, of one device each; gives what each of them said."""
    bindings = {
        "evaluate.model": repr(str(folder / model)),
        "evaluate.store_dir": repr(str(folder / "store")),
        "evaluate.output_dir": repr(str(folder / output)),
        "evaluate.suite": "@Suite()",
        "Suite.split_scheme": "'pocket'",
        "Suite.shots": "(0, 1)",
        "Suite.decoding": "@Decoding()",
        "Decoding.max_new_tokens": "4",
        "evaluate.batch_size": "4",
        "evaluate.mesh": "@MeshConfig()",
        "MeshConfig.fsdp": str(processes),
    }
    flags = [f"--gin.{name}={value}" for name, value in bindings.items()]
    command = [sys.executable, "-m", "iml.evaluate", *flags, *given]
    with reserve_port() as port:
        joint = [f"--coordinator_address=localhost:{port.getsockname()[1]}", f"--num_processes={processes}"]
        started = [
            subprocess.Popen(
                [*command, *([*joint, f"--process_id={number}"] if processes > 1 else [])],
                env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=(port.fileno(),),
            )
            for number in range(processes)
        ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes, "\n".join(said)
    return said


def predictions(folder, output):
    """Of every line what the mesh must not change, and its scores."""
    lines = [json.loads(line) for line in (folder / output / "results.jsonl").read_text().splitlines()]
    scores = [value for line in lines for _, values in sorted(line.pop("scores").items()) for value in values]
    return lines, scores


def same(folder, one, other):
    """Whether the predictions in two folders are equal, and scores but for rounding."""
    (alone, scores), (together, others) = predictions(folder, one), predictions(folder, other)
    np.testing.assert_allclose(others, scores, rtol=1e-4, atol=1e-4)
    return together == alone and len(scores) > 20


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(folder):
    for output, processes in (("one", 1), ("two", 2)):
        assert "report:" in evaluate(folder, output, processes)[0]
    assert same(folder, "one", "two")
    results = folder / "two" / "results.jsonl"
    whole = results.read_text()
    results.write_text("".join(line for line in whole.splitlines(True) if "t.even" in line))
    evaluate(folder, "two", 2)
    assert sorted(results.read_text().splitlines()) == sorted(whole.splitlines())


@pytest.mark.slow
def test_two_processes_search_with_beams_through_all_checkpoints_of_a_run(folder):
    given = ("--gin.Decoding.beams=3", "--all_checkpoints")
    evaluate(folder, "one", 1, *given, model="run")
    # One step is there already, as after a kill.
    shutil.copytree(folder / "one" / "20", folder / "two" / "20")
    first, second = evaluate(folder, "two", 2, *given, model="run")
    assert "step 20, 2 of 2: already evaluated" in first and "curve:" in first
    assert "step" not in second and "curve" not in second
    assert same(folder, "one/10", "two/10")
    one, two = (json.loads((folder / name / "curve.json").read_text()) for name in ("one", "two"))
    assert one["chosen"] == two["chosen"]
    assert [point["step"] for point in two["points"]] == [10, 20]
