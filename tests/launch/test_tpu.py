"""The TPU launcher against a stand-in for gcloud that fails in the ways gcloud does."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAKE = pathlib.Path(__file__).with_name("fake_gcloud.py")
#: Does ten steps, each kept in the bucket; ends with 75 on SIGTERM.
JOB = """
trap 'exit 75' TERM
echo "start $(hostname)" >> $FAKE_CLOUD/bucket/starts
while [ $(wc -c < $FAKE_CLOUD/bucket/steps) -lt 20 ]; do
  echo "line $(wc -c < $FAKE_CLOUD/bucket/steps)"; printf x >> $FAKE_CLOUD/bucket/steps; sleep 0.15
done
echo finished
"""


class Cloud:
    """A stand-in cloud in a folder."""

    def __init__(self, folder: pathlib.Path, **faults: list[str | None]):
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "bucket").mkdir()
        (folder / "bucket" / "steps").touch()
        (folder / "bucket" / "starts").touch()
        python = f"{shlex.quote(sys.executable)} -S"
        for name, line in (("gcloud", f"{python} {shlex.quote(str(FAKE))}"), ("python3", python)):
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {line} "$@"\n')
            (folder / "bin" / name).chmod(0o755)
        (folder / "faults.json").write_text(json.dumps(faults))

    def start(self, action: str, *flags: str, job: str | None = JOB) -> subprocess.Popen:
        environment = os.environ | {
            "FAKE_CLOUD": str(self.folder),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }
        command = [sys.executable, "-m", "launch.tpu", action, "slice", "--project=p", "--zone=us-east5-a"]
        command += ["--accelerator_type=v5p-128", "--tier=spot", "--setup=true", "--poll=0.05", "--grace=2"]
        command += ["--look=2", *flags, *(["--", "bash", "-c", job] if job else [])]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    def launch(self, action: str, *flags: str, job: str | None = JOB, status: int = 0) -> tuple[str, str]:
        process = self.start(action, *flags, job=job)
        out, err = process.communicate(timeout=100)
        assert process.returncode == status, f"status {process.returncode}\n{out}\n{err}"
        return out, err

    def calls(self, *words: str) -> int:
        """How many calls of gcloud hold all of the words."""
        lines = (self.folder / "calls").read_text().splitlines()
        return sum(all(word in line for word in words) for line in lines)

    def starts(self) -> int:
        return len((self.folder / "bucket" / "starts").read_text().splitlines())

    def resources(self) -> dict:
        return json.loads((self.folder / "resources.json").read_text())


@pytest.fixture
def cloud(tmp_path, request):
    made = []

    def make(**faults) -> Cloud:
        made.append(Cloud(tmp_path, **faults))
        return made[0]

    yield make
    if made and (tmp_path / "resources.json").exists():
        made[0].launch("delete", job=None)


def test_a_job_from_request_to_end_and_asked_for_again(cloud):
    bench = cloud()
    (bench.folder / "bucket" / "b" / "store").mkdir(parents=True)
    (bench.folder / "bucket" / "b" / "store" / "task").write_text("rows\n")
    out, err = bench.launch("up", "--fetch=gs://b/store=store", job=JOB + "cat store/task; ls setup.py")
    assert out.startswith("line ") and out.endswith("finished\nrows\nsetup.py\n")
    assert "CHARGED" in err and "launch.tpu delete slice --project=p --zone=us-east5-a" in err
    assert (
        bench.calls("create", "--spot", "--accelerator-type=v5p-128", "--runtime-version=v2-alpha-tpuv5") == 1
    )
    assert bench.starts() == 2, "one process on each worker"
    bench.launch("up", "--fetch=gs://b/store=store", job=JOB + "cat store/task; ls setup.py")
    assert bench.starts() == 2, "a job that ended is not run again"
    out, _ = bench.launch("status", job=JOB + "cat store/task; ls setup.py")
    assert "slice: ACTIVE" in out and out.count("state='ended', attempt=1, status=0") == 2


@pytest.mark.slow
def test_deletes_when_told_to(cloud):
    bench = cloud(delete=["unavailable"])
    _, err = bench.launch("up", "--delete=success", job="exit 0")
    assert bench.resources() == {} and "CHARGED" not in err
    bench.launch("up", "--delete=success", job="exit 3", status=3)
    assert "slice" in bench.resources()


def test_dropped_connections_start_no_second_job(cloud):
    bench = cloud(
        install=["refuse"], start=["partly"], follow=["drop", "drop"], state=["refuse", None, "refuse"]
    )
    out, _ = bench.launch("up")
    lines = [line for line in out.splitlines() if line.startswith("line ")]
    assert lines[0] in ("line 0", "line 1") and out.count("finished") == 1, out
    assert len(lines) == len(set(lines)), "no output twice"
    assert bench.starts() == 2


@pytest.mark.parametrize("kind", ["suspend", pytest.param("preempt", marks=pytest.mark.slow)])
def test_a_preempted_slice_is_replaced_and_the_job_goes_on(cloud, kind):
    bench = cloud(follow=[kind, None])
    out, err = bench.launch("up")
    assert "preempted; asking for another" in err and out.endswith("finished\n")
    assert bench.calls("queued-resources", "create") == 2 and bench.calls("delete", "--force") == 1
    assert bench.starts() == 4, "two attempts on two workers"
    assert (bench.folder / "bucket" / "steps").read_text() in ("x" * 20, "x" * 21), "went on, not over"


def test_status_75_starts_again_and_others_stop_with_the_ends_of_the_logs(cloud):
    bench = cloud()
    # The first attempt leaves a process behind, which must not keep the second from starting.
    once = "sleep 300 & test -e ~/seen || { touch ~/seen; exit 75; }; echo again; sleep 0.2;"
    once += 'echo "broken: $HOME" >&2; exit 9'
    out, err = bench.launch("up", job=once, status=9)
    assert out.count("again\n") == 1 and "wants another start" in err
    assert err.count("broken: ") == 2 and "/w-0" in err and "/w-1" in err and "CHARGED" in err
    assert "preempted" not in err
    _, err = bench.launch("up", "--restarts=2", job="exit 75", status=2)
    assert "more than 2 starts" in err


@pytest.mark.slow
def test_a_worker_that_fails_alone_ends_the_others(cloud):
    bench = cloud()
    _, err = bench.launch("up", "--grace=0.5", job="case $HOME in *w-1) exit 4;; esac; sleep 3600", status=4)
    assert "stopping" in err


def test_waits_out_missing_capacity(cloud):
    bench = cloud(create=["stockout", None, "unavailable"], provision=["reserved", "stockout"])
    _, err = bench.launch("up", job="true")
    assert "no more capacity in the zone" in err and "Insufficient reserved capacity" in err
    assert bench.calls("queued-resources", "create") == 5
    bench.launch("delete", job=None)
    (bench.folder / "faults.json").write_text(json.dumps({"create": ["stockout"] * 9}))
    _, err = bench.launch("up", "--refusals=2", job="true", status=2)
    assert "no slice after 3 requests" in err


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ({"create": ["quota"]}, "Ask for more quota"),
        ({"create": ["badtype"]}, "Check --project, --zone and --accelerator_type"),
        ({"provision": ["badtype"]}, "FAILED: INVALID_ARGUMENT"),
        ({"login": ["login"]}, "Run: gcloud auth login"),
        ({"install": ["key"]}, "Run: ssh-add"),
    ],
)
def test_what_repeating_does_not_mend_is_one_error_with_its_remedy(cloud, faults, expected):
    bench = cloud(**faults)
    _, err = bench.launch("up", job="true", status=2)
    assert expected in err and "Traceback" not in err
    assert bench.calls("queued-resources", "create") <= 1
    assert "launch.tpu delete slice" in err


@pytest.mark.slow
def test_interrupting_leaves_the_job_and_says_how_to_go_on(cloud):
    bench = cloud()
    slow = "cd $FAKE_CLOUD/bucket; echo start >> starts; until test -e go; do sleep 0.1; done; echo finished"
    process = bench.start("up", job=slow)
    until = time.monotonic() + 100
    while bench.starts() < 2 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130 and "CHARGED" in err and "go on:  python -m launch.tpu up slice" in err
    assert "slice" in bench.resources()
    _, err = bench.launch("up", job="true", status=2)
    assert "another job runs" in err
    again = bench.start("up", job=slow)
    calls = bench.calls("worker.py follow")
    while bench.calls("worker.py follow") == calls and again.poll() is None:
        time.sleep(0.05)
    (bench.folder / "bucket" / "go").touch()
    out, err = again.communicate(timeout=100)
    assert again.returncode == 0 and "joining attempt 1" in err
    assert out.endswith("finished\n") and bench.starts() == 2


@pytest.mark.slow
def test_stop_lets_the_job_save(cloud):
    bench = cloud()
    bench.launch("create", job=None)
    bench.launch("install", job=None)
    job = "cd $FAKE_CLOUD/bucket; trap 'touch saved.$$; exit 75' TERM; touch up; sleep 3600 & wait"
    running = bench.start("run", "--restarts=0", job=job)
    while not (bench.folder / "bucket" / "up").exists():
        time.sleep(0.05)
    bench.launch("stop", job=job)
    running.communicate(timeout=100)
    # One for each worker's shell.
    assert len(list((bench.folder / "bucket").glob("saved.*"))) == 2


def test_dry_run_prints_every_command_and_calls_none(cloud):
    bench = cloud()
    out, err = bench.launch("up", "--dry_run", "--fetch=gs://b/store=store", job="true")
    actions = "describe create describe describe scp ssh ssh ssh ssh ssh delete".split()
    assert [shlex.split(line)[4] for line in out.splitlines()] == actions
    assert not (bench.folder / "calls").exists() and "CHARGED" not in err


def test_mistakes(cloud, tmp_path):
    bench = cloud()
    _, err = bench.launch("up", job=None, status=2)
    assert "needs the job's command after --" in err
    _, err = bench.launch("up", "--fetch=store", status=2)
    assert "gs://FROM=TO" in err
    _, err = bench.launch("up", f"--git={ROOT}@no-such-branch", status=2)
    assert "has no branch or tag 'no-such-branch'" in err
    command = [sys.executable, "-m", "launch.tpu", "up", "slice", "--project=p", "--zone=z"]
    command += ["--accelerator_type=v5p-128", "--"]
    without = os.environ | {"PATH": str(tmp_path / "nothing")}
    lost = subprocess.run([*command, "x", "--gin.RUN_DIR=runs/1"], cwd=ROOT, capture_output=True, text=True)
    assert lost.returncode == 2 and "would be lost with the slice" in lost.stderr
    missing = subprocess.run([*command, "x"], cwd=ROOT, env=without, capture_output=True, text=True)
    assert (
        missing.returncode == 2 and "gcloud is not installed. See https://cloud.google.com" in missing.stderr
    )
