"""A study that is killed at any moment, with no warning, is gone on with and ends with the same results."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import pytest

from iml.studies import work
from iml.studies.answers import SCORES
from iml.studies.runs import Plan
from tests.studies import tiny

KILLS = 20
#: Seconds in which the runner must get on, on whatever machine.
PATIENCE = 300


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_repeat_no_finished_run(tmp_path):
    studies, moments, seeds = tmp_path / "killed", random.Random(7), [1]
    runner, workers = None, set()
    seen: dict[str, tuple[int, int]] = {}
    kills = 0
    while kills < KILLS:
        plan = tiny.plan(tmp_path, _seeds(seeds), studies=studies)
        if len(_finished(plan)) == len(plan.runs):
            # It was faster than the kills: the study asks for more.
            seeds.append(len(seeds) + 1)
            plan = tiny.plan(tmp_path, _seeds(seeds), studies=studies)
        if runner is None or runner.poll() is not None:
            workers_flag = f"--gin.study.workers={1 if kills < KILLS // 2 else 2}"
            words = tiny.command(tmp_path / "tiny.gin", studies, workers_flag)
            runner = tiny.start(*words, stdout=subprocess.DEVNULL)
        further = moments.choice((0, 0, 1, 1, 2, 3))
        _wait_for(plan, runner, _progress(plan) + further)
        # Starting and compiling take seconds, the steps between two files next to nothing.
        time.sleep(moments.uniform(0, 0.5 if further else 5))
        for name, told in _finished(plan).items():
            seen.setdefault(name, told)
        if runner.poll() is not None:
            continue
        kills += 1
        children = _children(runner.pid)
        workers |= set(children)
        if children and moments.random() < 0.5:
            with contextlib.suppress(ProcessLookupError):
                os.kill(moments.choice(children), signal.SIGKILL)
        else:
            runner.kill()
            runner.wait()
    runner.kill()
    runner.wait()
    _run(tmp_path, studies)
    assert seen and seen.items() <= _finished(plan).items(), "a finished run was done again"
    shutil.copytree(studies / "programs", tmp_path / "whole" / "programs")
    _run(tmp_path, tmp_path / "whole")
    found, wanted = (folder / "tiny" / "results.json" for folder in (studies, tmp_path / "whole"))
    assert found.read_bytes() == wanted.read_bytes()
    assert not any(_lives(worker) for worker in workers), "workers end with their runner"


def _seeds(seeds: list[int]) -> str:
    return f"Design.seeds = {tuple(seeds)}"


def _run(folder: pathlib.Path, studies: pathlib.Path) -> None:
    words = tiny.command(folder / "tiny.gin", studies)
    subprocess.run(words, cwd=tiny.ROOT, env=tiny.environment(), stdout=subprocess.DEVNULL, check=True)


def _wait_for(plan: Plan, runner: subprocess.Popen, progress: int) -> None:
    end = time.monotonic() + PATIENCE
    while runner.poll() is None and _progress(plan) < progress:
        assert time.monotonic() < end, "nothing goes on"
        time.sleep(0.02)


def _progress(plan: Plan) -> int:
    """How far a study is, 8 to a run: three checkpoints, the end of training, three tasks, the scores."""
    done = 0
    for run in plan.runs:
        folder = work.run_folder(plan.directory, run)
        steps = [int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit()]
        done += max(steps, default=0) // 2 if run.steps else 3 * bool(steps)
        done += (folder / work.TRAINED).exists()
        output = work.results_folder(plan.directory, run.name, run.evaluations[0].name)
        if (output / SCORES).exists():
            done += 4
        elif (output / "results.jsonl").exists():
            lines = (output / "results.jsonl").read_bytes().splitlines()
            done += min(3, len({json.loads(line)["task"] for line in lines[:-1]}))
    return done


def _finished(plan: Plan) -> dict[str, tuple[int, int]]:
    """Of each finished run, which file holds its scores and when it was written."""
    found = {}
    for run in plan.runs:
        if work.is_finished(plan.directory, run):
            path = work.results_folder(plan.directory, run.name, run.evaluations[0].name) / SCORES
            found[run.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def _children(process: int) -> list[int]:
    """Workers of a runner."""
    try:
        told = pathlib.Path(f"/proc/{process}/task/{process}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(child) for child in told.split() if b"iml.studies.work" in _command_line(int(child))]


def _command_line(process: int) -> bytes:
    try:
        return pathlib.Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _lives(process: int) -> bool:
    return b"iml.studies.work" in _command_line(process)
