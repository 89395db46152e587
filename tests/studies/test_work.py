"""Runs that fail, runs that others have, and what becomes of workers: what a study does beside training."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import pytest

from iml.errors import InputError
from iml.studies import pool, work
from iml.studies.answers import CURVE, SCORES
from iml.study import study
from tests.studies import made_up, tiny


@pytest.fixture
def own_programs():
    """Leaves JAX's cache of compiled programs as it was."""
    from jax.experimental.compilation_cache import compilation_cache

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_a_run_that_fails_is_told_of_and_tried_again(tmp_path, capsys, own_programs):
    lines = (
        f"Factor.values = {{'broken': \"INIT_FROM = '{tmp_path / 'start'}'\", 'good': ()}}",
        "Design.baseline = 'good'",
        "Design.untuned = False",
    )
    design = tiny.read_design(tmp_path, *lines)
    studies = str(tmp_path / "studies")
    assert study(design, studies, dry_run=True) == {}
    listed = capsys.readouterr().out
    assert "broken" in listed and "to do" in listed and "2 runs, 1,536 tokens" in listed
    assert not (tmp_path / "studies" / "runs").exists()
    with pytest.raises(SystemExit) as ended:
        study(design, studies)
    told = capsys.readouterr().out
    assert ended.value.code == 1 and f"failed: broken: {tmp_path / 'start'}" in told.replace("\n", " ")
    assert "1 of 2 runs finished" in told
    plan = tiny.plan(tmp_path, *lines)
    broken, good = plan.runs
    assert work.is_finished(plan.directory, good) and work.read_failure(plan.directory, broken)
    # What it asked for is there now.
    (tmp_path / "start").symlink_to(work.run_folder(plan.directory, good))
    scores = work.results_folder(plan.directory, good.name, good.evaluations[0].name) / SCORES
    written = scores.stat()
    results = study(design, studies)
    assert "1 of 2 runs are finished already" in capsys.readouterr().out
    assert [row["seeds"] for row in results["suites"][0]["rows"]] == [[1, 1], [1, 1]]
    assert (scores.stat().st_ino, scores.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert study(design, studies, report=True) == results


def test_a_task_that_failed_is_asked_again(tmp_path, capsys, own_programs):
    lines = ("Factor.values = {'2': 'TRAIN_STEPS = 2'}", "Design.untuned = False")
    design, studies = tiny.read_design(tmp_path, *lines), str(tmp_path / "studies")
    results = study(design, studies)
    plan = tiny.plan(tmp_path, *lines)
    run = plan.runs[0]
    folder = work.run_folder(plan.directory, run)
    times = (folder / work.TIMES).read_bytes()
    # As an evaluation leaves them in which one task failed.
    output = work.results_folder(plan.directory, run.name, run.evaluations[0].name)
    scores, answers = json.loads((output / SCORES).read_text()), output / "results.jsonl"
    lost = next(iter(scores["tasks"]))
    del scores["tasks"][lost]
    work.write_json(output / SCORES, scores | {"failures": {lost: "OSError: a bad moment"}})
    answers.write_text("".join(line for line in answers.open() if json.loads(line)["task"] != lost))
    assert not work.is_finished(plan.directory, run)
    assert study(design, studies) == results and work.is_finished(plan.directory, run)
    assert (folder / work.TIMES).read_bytes() == times, "what a part of a run took is no time of a run"


def test_a_checkpoint_that_was_chosen_without_a_task_is_chosen_again(tmp_path):
    plan = made_up.make_plan(tmp_path)
    made_up.write_results(plan, made_up.draw_answers())
    run = plan.runs[0]
    curve = work.results_folder(plan.directory, run.name, "asked") / CURVE / "curve.json"
    for left_out, finished in (["a.one"], False), ([], True):
        work.write_json(curve, {"left_out": left_out})
        assert work.is_finished(plan.directory, run) == finished


@pytest.mark.parametrize("asked", [{"dry_run": True}, {"report": True}, {"compare": ("2", "8")}])
def test_what_trains_nothing_makes_no_store(tmp_path, asked):
    design = tiny.read_design(tmp_path, "Base.prepare = ('runs/quickstart/prepare.gin',)")
    shutil.rmtree(tmp_path / "store")
    made = (
        f"python -m iml.prepare --gin_file=runs/quickstart/prepare.gin --gin.STORE_DIR={tmp_path / 'store'}"
    )
    with pytest.raises(InputError, match=f"no example store here. Make it: {made}"):
        study(design, str(tmp_path / "studies"), **asked)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gin"]


def test_what_begins_from_a_failed_run_fails_too(tmp_path, own_programs):
    plan = tiny.plan(
        tmp_path,
        f"Design.before = {{'first': \"INIT_FROM = '{tmp_path / 'nowhere'}'\"}}",
        "Factor.values = {'a': \"INIT_FROM = '{first}'\", 'b': (\"INIT_FROM = '{first}'\", 'TRAIN_STEPS = 7')}",
        "Design.baseline = 'a'",
        "Design.untuned = False",
    )
    told = []
    work.work(plan.directory, plan.runs, None, told.append)
    failures = [work.read_failure(plan.directory, run) for run in plan.runs]
    assert len(failures) == 3 and all("nowhere" in failure for failure in failures)
    assert all("begins from first" in failure for failure in failures[1:])
    assert sum("begins" in line and "failed" not in line for line in told) == 1, "it is tried once"


@pytest.mark.parametrize("changed", ["train", "evaluate"])
def test_gin_files_that_changed_since_the_plan_are_refused(tmp_path, changed, own_programs):
    files = {"train": "TRAIN_STEPS = 0\n", "evaluate": "Suite.max_prompts_per_task = 4\n"}
    for name, text in files.items():
        (tmp_path / f"{name}.gin").write_text(text)
    included = {name: f"include '{tmp_path / name}.gin'" for name in files}
    plan = tiny.plan(
        tmp_path,
        f'Factor.values = {{"a": "{included["train"]}"}}',
        f'Design.suites = {{"suite": "{included["evaluate"]}"}}',
        "Design.baseline = 'a'",
        "Design.untuned = False",
    )
    (tmp_path / f"{changed}.gin").write_text(files[changed].replace("0", "1").replace("4", "3"))
    work.work(plan.directory, plan.runs, None, print)
    run = plan.runs[0]
    failure = work.read_failure(plan.directory, run)
    assert f"runs/quickstart/{changed}.gin" in failure and "Plan again" in failure
    assert (work.run_folder(plan.directory, run) / work.TRAINED).exists() == (changed == "evaluate")


def test_a_run_that_others_have_is_left_to_them(tmp_path, own_programs):
    plan = tiny.plan(tmp_path)
    with _held(plan, *plan.runs):
        told = []
        work.work(plan.directory, plan.runs, None, told.append)
    assert not told and not any(work.is_settled(plan.directory, run) for run in plan.runs)


def test_a_file_system_without_locks_is_an_error(tmp_path, monkeypatch, own_programs):
    plan = made_up.make_plan(tmp_path)

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError, match=r"cannot lock files.*study\.studies_dir"):
        work.work(plan.directory, plan.runs, None, print)


@pytest.mark.parametrize("how", ["TERM", "closed"])
def test_a_worker_that_waits_ends_when_it_is_asked_to(tmp_path, how):
    plan = made_up.make_plan(tmp_path)
    work.write_json(tmp_path / "plan.json", plan.to_json())
    words = [str(tmp_path / "plan.json"), "--number=1", *(["--attached"] if how == "closed" else [])]
    with _held(plan, plan.runs[1]):
        worker = tiny.start(
            sys.executable, "-m", "iml.studies.work", *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert b"50 %, seed 1 (run1seed1): waits" in worker.stdout.readline()
        if how == "TERM":
            worker.send_signal(signal.SIGTERM)
        else:
            worker.stdin.close()
        assert worker.wait(timeout=120) == 75


@pytest.fixture
def worker_program(tmp_path, monkeypatch):
    """Lets workers be a shell script, in which $note is their note."""
    program = tmp_path / "python"

    def write(*lines: str) -> None:
        note = 'for word; do case "$word" in --note=*) note=${word#--note=};; esac; done'
        program.write_text("\n".join(["#!/bin/sh", note, *lines]) + "\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return write


def test_a_run_at_which_workers_die_is_given_up(tmp_path, worker_program):
    plan = made_up.make_plan(tmp_path, seeds=(1,))
    work.write_json(tmp_path / "plan.json", plan.to_json())
    # Dies at the first run; once that is given up nothing is left to do.
    failure = work.run_folder(plan.directory, plan.runs[0]) / work.FAILURE
    worker_program(f"[ -e {failure} ] && exit 0", f"printf {plan.runs[0].name} > $note", "kill -9 $$")
    told = []
    # Another process has the run by the time the worker's end is seen.
    with _held(plan, plan.runs[0]):
        pool.run_workers(tmp_path / "plan.json", 1, lambda: 0, told.append)
    assert work.read_failure(plan.directory, plan.runs[0]) == "3 workers died at it, the last with status -9"
    assert sum("started again" in line for line in told) == 3
    assert not any(work.read_failure(plan.directory, run) for run in plan.runs[1:])


def test_a_worker_that_dies_outside_all_runs_is_given_up(tmp_path, worker_program):
    plan = made_up.make_plan(tmp_path, seeds=(1,))
    work.write_json(tmp_path / "plan.json", plan.to_json())
    worker_program("exit 9")
    told = []
    pool.run_workers(tmp_path / "plan.json", 1, lambda: 0, told.append)
    assert told[-1] == "worker 0 ended with status 9; given up, after 4 such ends"
    assert not any(work.read_failure(plan.directory, run) for run in plan.runs)


def test_a_worker_s_note_names_its_run_until_that_is_done(tmp_path, own_programs):
    plan = tiny.plan(tmp_path, "Factor.values = {'2': \"INIT_FROM = '/nowhere'\"}", "Design.untuned = False")
    note, seen = tmp_path / "note", []
    work.work(plan.directory, plan.runs, None, lambda _: seen.append(note.read_text()), note=note)
    assert seen == [plan.runs[0].name] * 2 and not note.exists()


@pytest.mark.parametrize(
    ("visible", "seen"), [("0,GPU-7", ["0", "GPU-7"]), ("-1", ["-1"]), ("", [""]), ("0,-1,1", None)]
)
def test_each_worker_has_an_accelerator_of_its_own(tmp_path, monkeypatch, worker_program, visible, seen):
    work.write_json(tmp_path / "plan.json", made_up.make_plan(tmp_path).to_json())
    worker_program(f'echo "$CUDA_VISIBLE_DEVICES" > {tmp_path}/$(basename $note)')
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if seen is None:
        with pytest.raises(InputError, match="2 workers cannot share 1 accelerators"):
            pool.run_workers(tmp_path / "plan.json", 2, lambda: 0, print)
        return
    pool.run_workers(tmp_path / "plan.json", 2, lambda: 0, print)
    found = [(tmp_path / str(number)).read_text().strip() for number in range(2)]
    # Without any, workers share the processor and see what this process sees.
    assert found == (seen if len(seen) == 2 else seen * 2)


def test_the_command_line_s_mistakes(tmp_path, capsys):
    plan = made_up.make_plan(tmp_path)
    path = tmp_path / "plan.json"
    work.write_json(path, plan.to_json())
    for words, problem in (
        ([str(tmp_path / "none.json")], "no plan here"),
        ([str(path), "--number=6"], "the plan has 6 runs"),
        ([str(path), "--run=x"], "not in the plan: x"),
    ):
        assert work.main(words) == 2 and problem in capsys.readouterr().err


class _held:
    """Holds the locks of runs, as another process would."""

    def __init__(self, plan, *runs):
        self._paths = [work.run_folder(plan.directory, run) / ".lock" for run in runs]

    def __enter__(self):
        self._files = []
        for path in self._paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files.append(path.open("a"))
            fcntl.flock(self._files[-1], fcntl.LOCK_EX)

    def __exit__(self, *_):
        for file in self._files:
            file.close()
