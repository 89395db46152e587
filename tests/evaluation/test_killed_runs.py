"""A run that is killed at any moment, with no warning, is gone on with and ends with the same files."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

from iml.data.store import ExampleStore
from iml.evaluation.engines.engine import Generated
from iml.evaluation.requests import select
from iml.evaluation.results import results_folder
from iml.evaluation.results.results_folder import ANSWERS, RESULTS
from iml.evaluation.runner import Outcome, Runner
from iml.evaluation.suites import Suite
from tests.stores import make_store

SUITE = Suite(shots=(0,), split_scheme="pocket")
TASKS, ROWS = 40, 25
#: Seconds whose answers a kill may lose, here.
PERIOD = 0.05


class Echo:
    """Answers with the prompt's last word, slowly, so often at `most`, and notes what it was asked."""

    def __init__(self, log: pathlib.Path, seconds: float, most: float = float("inf")):
        self.facts = {"engine": "echo"}
        self._log, self._seconds, self._left = log, seconds, most

    def likelihoods(self, pairs, tell=None):
        return []

    def generate(self, sources, decoding, parts=None, tell=lambda number, answer: None):
        answers = []
        for number, source in enumerate(sources):
            time.sleep(self._seconds)
            self._left -= 1
            while self._left < 0:
                time.sleep(1)
            with self._log.open("a") as file:
                file.write(source.splitlines()[0] + "\n")
            answers.append(Generated(source.split()[-1] + "\u2028\ud800" * 50, (), True, 0))
            tell(number, answers[-1])
        return answers


def answer(folder: pathlib.Path, output: str, seconds: float, seed: int = 1, **options) -> Outcome:
    store = ExampleStore(folder / "store")
    asking = Runner(Echo(folder / f"{output}.log", seconds, **options), store, SUITE, seed, "echo")
    return asking.run(select(store, SUITE, seed), folder / output, {"seed": seed})


def test_a_run_that_is_killed_again_and_again_repeats_next_to_nothing(tmp_path):
    rows = [(f"say {i} word", f"word {i}") for i in range(ROWS)]
    make_store(tmp_path, {f"t.task_{i:02}": {"validation": rows} for i in range(TASKS)})
    whole = answer(tmp_path, "whole", 0)
    assert not whole.failures and len(whole.predictions) == TASKS * ROWS
    folder, log = tmp_path / "out", tmp_path / "out.log"
    command = [sys.executable, "-m", "tests.evaluation.test_killed_runs", os.fspath(tmp_path), "out", "0.002"]
    random, repeated = np.random.default_rng(0), 0
    for _ in range(3):
        known, asked = answered(folder), lines(log)
        process = subprocess.Popen(command, cwd=pathlib.Path(__file__).resolve().parents[2])
        while process.poll() is None and answered(folder) == known:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        process.wait()
        assert process.returncode < 0, "the run ended before it was killed"
        assert answered(folder) > known
        repeated += known + lines(log) - asked - answered(folder)
    known, asked = answered(folder), lines(log)
    # The end of the last line was not written yet.
    journal = folder / ANSWERS
    if journal.stat().st_size:
        journal.write_bytes(journal.read_bytes()[:-7])
    outcome = answer(tmp_path, "out", 0)
    assert outcome == whole
    for name in ("header.json", "results.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not journal.exists()
    # Asked again was what no period had written yet.
    assert lines(log) - asked <= TASKS * ROWS - known + 1 and repeated <= 3 * (PERIOD / 0.002 + 2)


def test_answers_of_a_task_that_fails_are_kept(tmp_path, monkeypatch):
    make_store(tmp_path, {"t.task": {"validation": [(f"say {i} word", f"word {i}") for i in range(ROWS)]}})
    monkeypatch.setattr(Echo, "generate", failing(Echo.generate, 10))
    assert answer(tmp_path, "out", 0).failures == {"t.task": "RuntimeError: lost"}
    monkeypatch.undo()
    assert len(answer(tmp_path, "out", 0).predictions) == ROWS
    assert lines(tmp_path / "out.log") == ROWS
    # Another header: nothing of it is taken.
    answer(tmp_path, "out", 0, seed=2)
    assert lines(tmp_path / "out.log") == 2 * ROWS


def failing(generate, after: int):
    """`generate`, which breaks down after so many answers."""

    def broken(self, sources, decoding, parts=None, tell=None):
        generate(self, sources[:after], decoding, parts, tell)
        raise RuntimeError("lost")

    return broken


def answered(folder: pathlib.Path) -> int:
    """Requests with an answer that the next run will find."""
    found = set()
    for name in (RESULTS, ANSWERS):
        for line in (folder / name).read_bytes().splitlines() if (folder / name).exists() else ():
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                found.add((told["task"], told["row"]))
    return len(found)


def lines(path: pathlib.Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


if __name__ == "__main__":
    results_folder._PERIOD = PERIOD
    # However late it is killed, it does not come to its end.
    answer(pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), most=TASKS * ROWS // 4)
