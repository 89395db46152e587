"""Several workers on this machine, each with a device of its own."""

from __future__ import annotations

import collections
import functools
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from iml.errors import InputError
from iml.studies import work
from iml.studies.runs import Run, read_plan
from iml.training.distributed import REQUEUE

#: How many workers may die at one run before it counts as failed, and how many outside all runs in a row.
_PATIENCE = 3


def run_workers(
    plan: pathlib.Path, workers: int, finished: Callable[[], int], say: Callable[[str], None]
) -> None:
    """Runs workers until none has anything left to do; one that dies is started again.

    A run at which workers die again and again fails, so that the others go on. Workers end with this process,
    however it ends.

    Args:
      plan: the file that iml.study wrote.
      workers: how many.
      finished: how many runs are finished; asked about twice a second.
      say: told what happens.

    Raises:
      InputError: there are more workers than accelerators; each takes the memory of one.
      KeyboardInterrupt, SystemExit: after the workers have been asked to save and have ended; with status 75 where
        this process was asked to end.
    """
    directory, runs = read_plan(plan)
    command = [sys.executable, "-m", "iml.studies.work", str(plan), "--wait", "--attached"]
    devices = _devices()
    if devices and workers > len(devices):
        raise InputError(
            f"{workers} workers cannot share {len(devices)} accelerators, of which each takes one",
            field="study.workers",
        )
    deaths: collections.Counter[str | None] = collections.Counter()
    known = finished()
    begun: list[subprocess.Popen] = []
    # Before there are workers: one that is begun while the signal comes must be ended too.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    notes = tempfile.TemporaryDirectory()
    start = functools.partial(_start, command, devices, workers, pathlib.Path(notes.name))
    try:
        for number in range(workers):
            begun.append(start(number))
        active = set(range(workers))
        while active:
            time.sleep(0.5)
            now = finished()
            if now > known:
                known, deaths[None] = now, 0
            for number in sorted(active):
                if (status := begun[number].poll()) is None:
                    continue
                # 0: nothing left to do; 1: runs failed, and 2: a mistake, which are told of.
                if status in (0, 1, 2):
                    active.remove(number)
                    continue
                if status != REQUEUE:
                    run = _run_of(_note(pathlib.Path(notes.name), number), directory, runs)
                    name = None if run is None else run.name
                    deaths[name] += 1
                    if run is None and deaths[name] > _PATIENCE * workers:
                        active.remove(number)
                        say(
                            f"worker {number} ended with status {status}; given up, after {deaths[name]} such ends"
                        )
                        continue
                    if run is not None and deaths[name] == _PATIENCE:
                        told = f"{_PATIENCE} workers died at it, the last with status {status}"
                        work.write_failure(directory, run, told)
                        say(f"{run.title} ({run.name}): failed: {told}")
                say(f"worker {number} ended with status {status}; started again")
                begun[number].stdin.close()
                begun[number] = start(number)
    finally:
        for worker in begun:
            if worker.poll() is None:
                worker.terminate()
        for worker in begun:
            worker.wait()
            worker.stdin.close()
        notes.cleanup()
        signal.signal(signal.SIGTERM, previous)


def _interrupt(*_) -> None:
    raise SystemExit(REQUEUE)


def _note(notes: pathlib.Path, number: int) -> pathlib.Path:
    """Where a worker keeps the name of the run that it is at."""
    return notes / str(number)


def _run_of(note: pathlib.Path, directory: pathlib.Path, runs: Sequence[Run]) -> Run | None:
    """The run that a worker died at."""
    name = note.read_text(encoding="utf-8") if note.exists() else None
    found = (run for run in runs if run.name == name and not work.is_settled(directory, run))
    return next(found, None)


def _start(
    command: list[str], devices: list[dict[str, str]], workers: int, notes: pathlib.Path, number: int
) -> subprocess.Popen:
    note = _note(notes, number)
    note.unlink(missing_ok=True)
    command = [*command, f"--note={note}"]
    environment = {**os.environ, **(devices[number % len(devices)] if devices else {})}
    cores = sorted(os.sched_getaffinity(0))
    # Without accelerators the cores are shared out: programs of several threads each would be in each other's way.
    share = set(cores[number % len(cores) :: workers]) or set(cores)
    # The pipe tells a worker when this process dies. A session of its own, since Ctrl-C reaches the whole group of
    # a terminal, and a worker is to be told once, by us.
    worker = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
    if not devices:
        os.sched_setaffinity(worker.pid, share)
    return worker


def _devices() -> list[dict[str, str]]:
    """For each accelerator of this machine, the variables that show a process this one alone."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = sorted(path.name[6:] for path in pathlib.Path("/dev").glob("nvidia[0-9]*"))
    if visible is not None:
        # As CUDA reads it: what stands behind a -1 is not visible.
        names = (name.strip() for name in visible.split(","))
        gpus = [name for name in itertools.takewhile(lambda name: name != "-1", names) if name]
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": name} for name in gpus]
    chips = sorted(pathlib.Path("/dev").glob("accel[0-9]*"))
    alone = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
    return [{"TPU_VISIBLE_CHIPS": str(number), **alone} for number in range(len(chips))]
