"""The local launcher with real processes: of a trivial module, and of a tiny iml.train."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.training import tiny

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Seconds that a launch may take on any machine; the processes that it must end would stay for an hour.
PATIENCE = 300
MODULE = """
import os, pathlib, signal, sys, time
given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
rank, folder = int(given["process_id"]), pathlib.Path(given["folder"])
with (folder / f"starts{rank}").open("a") as starts:
    starts.write(given["coordinator_address"] + " " + given["num_processes"] + "\\n")
print(f"hello from {rank}")
def leave(*_):
    print("saved")
    sys.exit(75)
if given["what"] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, leave)
first = not (folder / f"seen{rank}").exists()
(folder / f"seen{rank}").touch()
if given["what"] == "twice" and first or given["what"] == "always":
    sys.exit(75)
if given["what"] in ("fail", "stubborn") and rank == 1:
    sys.exit(7)
if given["what"] in ("fail", "stubborn", "wait"):
    time.sleep(3600)
"""


def start(folder: pathlib.Path, what: str, *flags: str) -> subprocess.Popen:
    (folder / "trivial.py").write_text(MODULE)
    command = [sys.executable, "-m", "launch.local", "--processes=2", "--module=trivial", *flags]
    command += ["--", f"--what={what}", f"--folder={folder}"]
    environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def starts(folder: pathlib.Path, rank: int) -> list[str]:
    path = folder / f"starts{rank}"
    return path.read_text().splitlines() if path.exists() else []


def test_prefixes_lines_and_starts_again_on_75(tmp_path):
    process = start(tmp_path, "twice")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert sorted(out.splitlines()) == ["0: hello from 0"] * 2 + ["1: hello from 1"] * 2
    assert "wants another start (1 of 3)" in err
    assert starts(tmp_path, 0) == starts(tmp_path, 1) and len(starts(tmp_path, 0)) == 2
    assert all(line.startswith("localhost:") and line.endswith(" 2") for line in starts(tmp_path, 0))


def test_restarts_are_bounded(tmp_path):
    process = start(tmp_path, "always", "--restarts=1")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and "more than 1 further starts" in err
    assert len(starts(tmp_path, 0)) == 2


@pytest.mark.parametrize("what", ["fail", "stubborn"])
def test_one_failure_ends_the_others(tmp_path, what):
    process = start(tmp_path, what, "--grace=1")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 7 and "process 1 ended with status 7" in err
    assert len(starts(tmp_path, 0)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(tmp_path, number):
    process = start(tmp_path, "wait")
    while not (tmp_path / "seen0").exists() or not (tmp_path / "seen1").exists():
        time.sleep(0.02)
    process.send_signal(number)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75 and out.count("saved") == 2
    assert len(starts(tmp_path, 0)) == 1


@pytest.mark.slow
def test_trains_in_two_processes(tmp_path):
    tiny.prepare(tmp_path)
    (tmp_path / "run.gin").write_text(
        f"""
include 'runs/finetune.gin'
include 'mixtures/opt_iml.gin'
STORE_DIR = '{tmp_path}/store'
VOCABULARY_DIR = '{tmp_path}/vocabulary'
RUN_DIR = '{tmp_path}/run'
Mixture.split_scheme = '{tmp_path}/splits_none.json'
OPTConfig.vocab_size = 272
OPTConfig.num_layers = 2
OPTConfig.embed_dim = 32
OPTConfig.num_heads = 8
OPTConfig.ffn_dim = 64
OPTConfig.max_positions = 64
OPTConfig.dtype = 'float32'
LENGTH = 64
BATCH_SIZE = 4
TRAIN_STEPS = 2
WARMUP_STEPS = 1
"""
    )
    command = [sys.executable, "-m", "launch.local", "--processes=2", "--devices=1", "--"]
    done = subprocess.run(
        [*command, f"--gin_file={tmp_path}/run.gin"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 process(es)" in done.stdout and tiny.steps(tmp_path / "run")[-1] == 2
