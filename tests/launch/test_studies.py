"""A study's runs as jobs: what is submitted, and that any way of running it gives the same results."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from iml.studies import work
from launch import studies
from tests.launch.test_slurm import Cluster
from tests.studies import made_up, tiny

SLURM = ("--scheduler=slurm", "--time=1:00:00")


@pytest.fixture
def plan_file(tmp_path):
    """The plan of six runs, of which the second and the third are finished."""
    plan = made_up.make_plan(tmp_path / "studies")
    made_up.write_results(plan, made_up.draw_answers(), made_up.SETTINGS[1:2])
    return _write(plan)


def _write(plan) -> pathlib.Path:
    path = plan.folder / "plan.json"
    work.write_json(path, plan.to_json())
    return path


def _asked(script: str) -> set[str]:
    return {line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")}


def test_an_array_of_what_is_not_finished(plan_file, capsys):
    assert (
        studies.main([str(plan_file), *SLURM, "--dry_run", "--at_once=3", "--gpus=2", "--sbatch=-x n1"]) == 0
    )
    told = capsys.readouterr()
    # Those of the second setting, number 1 of the first seed and 4 of the second, are.
    wanted = {
        "--array=0,2-3,5%3",
        "--requeue",
        "--signal=TERM@300",
        "--gpus-per-node=2",
        "--ntasks=1",
        "-x n1",
    }
    assert wanted <= _asked(told.out) and told.err == "2 of 6 runs are finished\n"
    assert [path.name for path in plan_file.parent.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(("status", "requeued"), [(0, ""), (75, "requeue 4711_3\n"), (1, "")])
def test_an_element_does_its_run_of_the_plan_as_it_was(
    tmp_path, plan_file, monkeypatch, capsys, status, requeued
):
    cluster = Cluster(tmp_path, status=status)
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    failure = tmp_path / "studies" / "runs" / "run0seed1" / work.FAILURE
    work.write_json(failure, {"error": "once"})
    before = plan_file.read_bytes()
    assert studies.main([str(plan_file), *SLURM, f"--log_dir={tmp_path / 'logs'}"]) == 0
    assert "submitted job array 4711, 4 runs" in capsys.readouterr().out and not failure.exists()
    work.write_json(plan_file, {"directory": "elsewhere", "runs": []})
    cluster.environment |= {"SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "3"}
    assert cluster.run().returncode == (0 if status == 75 else status) and cluster.requeued() == requeued
    words = (tmp_path / "tasks").read_text().splitlines()[0].split()
    assert words[1:4] == ["-u", "-m", "iml.studies.work"] and words[5:] == ["--number=3"]
    assert pathlib.Path(words[4]).read_bytes() == before


def test_runs_that_begin_from_others_come_after_them(tmp_path, capsys):
    plan = made_up.make_plan(tmp_path)
    after = [dataclasses.replace(run, begins_from="run0seed1") for run in plan.runs[1:3]]
    path = _write(dataclasses.replace(plan, runs=(plan.runs[0], *after, *plan.runs[3:])))
    assert studies.main([str(path), *SLURM, "--dry_run"]) == 0
    first, then = capsys.readouterr().out.split("#!/bin/bash\n")[1:]
    assert "--array=0,3-5" in _asked(first) and "--dependency" not in first
    assert {"--array=1-2", "--dependency=afterany:JOB_0"} <= _asked(then)


def test_jobs_of_skypilot_and_of_cloud_tpu(plan_file, capsys):
    yaml = pytest.importorskip("yaml", reason="reads the SkyPilot task; comes with the extra [data]")
    assert studies.main([str(plan_file), "--scheduler=sky", "--dry_run"]) == 0
    jobs = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    task = yaml.safe_load(pathlib.Path(jobs[0][-1]).read_text())
    given = [dict(word.split("=", 1) for word in job if re.match(r"[A-Z]+=", word)) for job in jobs]
    assert [each["RUN"] for each in given] == ["run0seed1", "run2seed1", "run0seed2", "run2seed2"]
    assert all(each.keys() == task["envs"].keys() for each in given)
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    flags = "--project=p --zone=z --accelerator_type=v5p-8"
    assert studies.main([str(plan_file), "--scheduler=tpu", "--bucket=gs://b/s/", f"--tpu={flags}"]) == 0
    copied, *commands = re.split(r"\n(?=python -m launch)", capsys.readouterr().out.strip())
    words = [shlex.split(command) for command in commands]
    assert copied.startswith("gcloud storage cp") and len(words) == 4
    # launch.tpu takes each of them.
    done = subprocess.run(
        [sys.executable, *words[0][1:5], "--dry_run", *words[0][5:]], cwd=tiny.ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "--run=run0seed1" in done.stdout, done.stderr
    script = words[0][-1]
    assert "gs://b/s/runs/run0seed1" in script and script.endswith("exit $status")
    assert subprocess.run(["bash", "-n", "-c", script]).returncode == 0


def test_what_the_skypilot_task_runs(tmp_path):
    yaml = pytest.importorskip("yaml", reason="reads the SkyPilot task; comes with the extra [data]")
    task = yaml.safe_load((tiny.ROOT / "launch" / "sky" / "study.yaml").read_text())
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\nexit 75\n')
    python.chmod(0o755)
    given = {"FOLDER": str(tmp_path), "PLAN": "studies/a/plan-1.json", "RUN": "r"}
    done = subprocess.run(["bash", "-c", task["run"]], env=os.environ | given, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (75, "-u -m iml.studies.work studies/a/plan-1.json --run=r\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--scheduler=slurm"], "'--time': must be given"),
        (["--scheduler=tpu"], "'--bucket': must be given as gs://"),
        (["--scheduler=sky"], "sky is not here"),
        (list(SLURM), "sbatch is not here"),
    ],
)
def test_what_is_missing_is_said(plan_file, monkeypatch, capsys, words, problem):
    monkeypatch.setenv("PATH", "/nowhere")
    assert studies.main([str(plan_file), *words]) == 2 and problem in capsys.readouterr().err


def test_without_ray_or_a_cluster_or_a_plan(tmp_path, plan_file, monkeypatch, capsys):
    assert studies.main([str(tmp_path / "plan.json"), "--scheduler=ray"]) == 2
    assert "no plan here" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        assert studies.main([str(plan_file), "--scheduler=ray"]) == 2
    assert "Ray is not installed" in capsys.readouterr().err


def test_nothing_is_submitted_where_all_is_finished(tmp_path, capsys):
    plan = made_up.make_plan(tmp_path)
    made_up.write_results(plan, made_up.draw_answers())
    assert studies.main([str(_write(plan)), "--scheduler=slurm"]) == 0
    told = capsys.readouterr()
    assert told.err == "6 of 6 runs are finished\n" and not told.out


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """A folder with a study's gin file, and in `one` the study run in one process."""
    folder = tmp_path_factory.mktemp("studies")
    _run(*tiny.command(tiny.write_study(folder), folder / "one"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("how", ["pool", "ray", "slurm"])
def test_the_same_results_as_one_by_one(one_by_one, tmp_path, how):
    if how == "ray":
        pytest.importorskip("ray", reason="a scheduler to be run here; pip install -e '.[ray]'")
    gin_file, jobs = one_by_one / "tiny.gin", tmp_path / how
    # What is looked for is not in the compiler.
    shutil.copytree(one_by_one / "one" / "programs", jobs / "programs")
    if how == "pool":
        _run(*tiny.command(gin_file, jobs, "--gin.study.workers=3"))
    else:
        _run(*tiny.command(gin_file, jobs, "--dry_run"))
        submit = [sys.executable, "-m", "launch.studies", str(jobs / "tiny" / "plan.json"), "--gpus=0"]
        if how == "ray":
            _run(*submit, "--scheduler=ray", "--local=3", RAY_USAGE_STATS_ENABLED="0")
        else:
            _run_array(tmp_path, submit)
        _run(*tiny.command(gin_file, jobs, "--report"))
    found, wanted = (folder / "tiny" / "results.json" for folder in (jobs, one_by_one / "one"))
    assert json.loads(wanted.read_text())["suites"][0]["rows"][0]["seeds"] == [1, 1]
    assert found.read_bytes() == wanted.read_bytes()


def _run_array(folder: pathlib.Path, submit: list[str]) -> None:
    """What SLURM would do, each task started twice."""
    cluster = Cluster(folder)
    (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    subprocess.run(
        [*submit, *SLURM, f"--log_dir={folder / 'logs'}"], cwd=tiny.ROOT, env=cluster.environment, check=True
    )
    array = next(word for word in _asked((folder / "script").read_text()) if word.startswith("--array="))
    assert array == "--array=0-3"
    for number in range(4):
        cluster.environment |= {"SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": str(number)}
        done = subprocess.run(["bash", str(folder / "script")], cwd=tiny.ROOT, env=cluster.environment)
        assert done.returncode == 0


def _run(*words: str, **variables: str) -> None:
    subprocess.run(words, cwd=tiny.ROOT, env=tiny.environment() | variables, check=True)
