"""The SkyPilot tasks: by SkyPilot's own reading of them, and what their commands run on each node."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

yaml = pytest.importorskip("yaml", reason="reads the SkyPilot tasks; comes with the extra [data]")

TASKS = pathlib.Path(__file__).resolve().parents[2] / "launch" / "sky"
GIVEN = {name: f"gs://b/{name.lower()}" for name in ("RUN_DIR", "STORE", "VOCABULARY_DIR", "INIT_FROM")}


@pytest.mark.parametrize("name", ["tpu", "gpu"])
def test_skypilot_accepts_the_task(name):
    sky = pytest.importorskip("sky", reason="SkyPilot checks the task against its schema")
    read = yaml.safe_load((TASKS / f"{name}.yaml").read_text())
    with pytest.raises(ValueError, match="RUN_DIR"):
        sky.Task.from_yaml_config(read)
    task = sky.Task.from_yaml_config(read, env_overrides=list(GIVEN.items()))
    (resources,) = task.resources
    assert resources.use_spot and resources.job_recovery["recover_on_exit_codes"] == [75]


@pytest.mark.parametrize(
    ("name", "nodes", "joined"),
    [
        ("tpu", 1, ["--distributed"]),
        ("gpu", 1, []),
        ("gpu", 2, ["--coordinator_address=10.0.0.1:12321", "--num_processes=2", "--process_id=1"]),
    ],
)
def test_what_a_node_runs(tmp_path, name, nodes, joined):
    task = yaml.safe_load((TASKS / f"{name}.yaml").read_text())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 75\n')
    python.chmod(0o755)
    around = {
        "SKYPILOT_NUM_NODES": str(nodes),
        "SKYPILOT_NODE_RANK": "1",
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    }
    environment = os.environ | {**task["envs"], **GIVEN, **around}
    done = subprocess.run(
        ["bash", "-c", task["run"]], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    words = done.stdout.split("\n")[:-1]
    assert done.returncode == 75, "the recovery goes by the status"
    assert words[: 3 + len(joined)] == ["-u", "-m", "iml.train", *joined]
    assert {
        "--gin.RUN_DIR=gs://b/run_dir",
        "--gin.STORE_DIR=store",
        "--gin.INIT_FROM=gs://b/init_from",
    } <= set(words)
    assert all(word.startswith("--") for word in words[3:])
