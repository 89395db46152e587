"""The SLURM script, run by bash against stand-ins for sbatch, srun and scontrol."""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAKE = pathlib.Path(__file__).with_name("fake_slurm.py")


class Cluster:
    """A stand-in cluster, on which `python` is a program that notes its arguments and ends with a status."""

    def __init__(self, folder: pathlib.Path, *, status: int = 0, slurm: bool = True):
        self.folder = folder
        (folder / "bin").mkdir()
        real = f"exec {shlex.quote(sys.executable)} -S {shlex.quote(str(FAKE))}"
        programs = {name: f'{real} {name} "$@"' for name in ("sbatch", "srun", "scontrol")} if slurm else {}
        programs["python"] = f'echo "$SLURM_PROCID $@" >> {folder}/tasks; exit {status}'
        for name, line in programs.items():
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
            (folder / "bin" / name).chmod(0o755)
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        self.environment = os.environ | {"FAKE_SLURM": str(folder), "PATH": path}

    def launch(self, *flags: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "launch.slurm", "--nodes=2", "--gpus=8", "--time=1:00:00", *flags]
        command += [f"--log_dir={self.folder}/logs", "--", "--gin_file=a b.gin"]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True)

    def run(self, restarts: int = 0) -> subprocess.CompletedProcess:
        """What SLURM does with a job that was submitted."""
        environment = self.environment | {"SLURM_JOB_ID": "4711"}
        if restarts:
            environment["SLURM_RESTART_COUNT"] = str(restarts)
        script = self.folder / "script"
        return subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True)

    def requeued(self) -> str:
        path = self.folder / "requeued"
        return path.read_text() if path.exists() else ""


def test_asks_for_a_process_a_gpu_and_a_signal_to_the_tasks(tmp_path):
    done = Cluster(tmp_path).launch("--dry_run", "--partition=gpu", "--sbatch=--exclusive", "--notice=120")
    asked = [line.removeprefix("#SBATCH ") for line in done.stdout.splitlines() if line.startswith("#SBATCH")]
    wanted = {"--nodes=2", "--gpus-per-node=8", "--ntasks-per-node=8", "--signal=TERM@120", "--requeue"}
    assert wanted | {"--partition=gpu", "--exclusive", "--open-mode=append"} <= set(asked)
    assert not (tmp_path / "script").exists() and not (tmp_path / "logs").exists()


@pytest.mark.parametrize(("status", "requeued"), [(0, ""), (75, "requeue 4711\n"), (1, ""), (137, "")])
def test_only_a_run_that_has_saved_is_requeued(tmp_path, status, requeued):
    cluster = Cluster(tmp_path, status=status)
    submitted = cluster.launch()
    assert "submitted job 4711" in submitted.stdout and (tmp_path / "logs").is_dir()
    done = cluster.run()
    assert done.returncode == (0 if status == 75 else status) and cluster.requeued() == requeued
    tasks = sorted((tmp_path / "tasks").read_text().splitlines())
    assert tasks == [f"{rank} -u -m iml.train --distributed --gin_file=a b.gin" for rank in range(2)]


def test_requeues_are_bounded(tmp_path):
    cluster = Cluster(tmp_path, status=75)
    cluster.launch("--restarts=3")
    assert cluster.run(restarts=2).returncode == 0 and cluster.requeued()
    done = cluster.run(restarts=3)
    assert done.returncode == 75 and "not requeued after 3 restarts" in done.stderr
    cluster.launch("--restarts=0")
    done = cluster.run()
    assert done.returncode == 75 and "not requeued after 0 restarts of 0" in done.stderr


def test_refusals_are_told(tmp_path):
    cluster = Cluster(tmp_path)
    (tmp_path / "refuse").touch()
    done = cluster.launch()
    assert done.returncode == 2 and "Invalid partition name" in done.stderr and "Traceback" not in done.stderr
    (tmp_path / "elsewhere").mkdir()
    cluster = Cluster(tmp_path / "elsewhere", slurm=False)
    done = cluster.launch()
    assert done.returncode == 2 and "sbatch is not here. Run this on a login node" in done.stderr
