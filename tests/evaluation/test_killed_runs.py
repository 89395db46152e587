"""A run that is killed at any moment, with no warning, is gone on with and ends with the same files."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

from iml.data.store import ExampleStore
from iml.evaluation import runner
from iml.evaluation.engines.engine import Generated
from iml.evaluation.requests import select
from iml.evaluation.suites import Suite
from tests.stores import make_store

SUITE = Suite(shots=(0,), split_scheme="pocket")
TASKS, ROWS = 40, 25


class Echo:
    """Answers with the prompt's last word, slowly, and notes what it was asked."""

    def __init__(self, log: pathlib.Path, seconds: float):
        self.facts = {"engine": "echo"}
        self._log, self._seconds = log, seconds

    def likelihoods(self, pairs, progress=None):
        return []

    def generate(self, sources, decoding, parts=None, progress=lambda count: None):
        with self._log.open("a") as file:
            file.write(json.dumps(sources) + "\n")
        time.sleep(self._seconds)
        progress(len(sources))
        return [Generated(source.split()[-1] + "\u2028\ud800" * 50, (), True, 0) for source in sources]


def answer(folder: pathlib.Path, output: str, seconds: float) -> runner.Outcome:
    store = ExampleStore(folder / "store")
    asking = runner.Runner(Echo(folder / f"{output}.log", seconds), store, SUITE, 1, "echo")
    return asking.run(select(store, SUITE, 1), folder / output, {"seed": 1})


def test_a_run_that_is_killed_again_and_again_repeats_no_finished_task(tmp_path, monkeypatch):
    # A task at a time, so that the file is written often.
    monkeypatch.setattr(runner, "_WAVE", 1)
    rows = [(f"say {i} word", f"word {i}") for i in range(ROWS)]
    make_store(tmp_path, {f"t.task_{i:02}": {"validation": rows} for i in range(TASKS)})
    whole = answer(tmp_path, "whole", 0)
    assert not whole.failures and len(whole.predictions) == TASKS * ROWS
    results = tmp_path / "out" / "results.jsonl"
    command = [sys.executable, "-m", "tests.evaluation.test_killed_runs", os.fspath(tmp_path), "out", "0.02"]
    reached = []
    for kill in range(3):
        process = subprocess.Popen(command, cwd=pathlib.Path(__file__).resolve().parents[2])
        before = finished(results)
        while process.poll() is None and finished(results) <= before + 3 + kill:
            time.sleep(0.001)
        process.kill()
        process.wait()
        reached.append(finished(results))
    assert 0 < reached[0] < reached[1] < reached[2] < TASKS
    outcome = answer(tmp_path, "out", 0)
    assert outcome == whole
    assert results.read_bytes() == (tmp_path / "whole" / "results.jsonl").read_bytes()
    # Asked again was at most the task that each kill interrupted.
    assert len((tmp_path / "out.log").read_text().splitlines()) <= TASKS + 3


def finished(results: pathlib.Path) -> int:
    """Tasks all of whose lines are in the file."""
    return results.read_bytes().count(b"\n") // ROWS if results.exists() else 0


if __name__ == "__main__":
    runner._WAVE = 1
    answer(pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
