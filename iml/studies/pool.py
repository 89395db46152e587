"""Several workers on this machine, each with a device of its own."""

from __future__ import annotations

import collections
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

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
      KeyboardInterrupt, SystemExit: after the workers have been asked to save and have ended; with status 75 where
        this process was asked to end.
    """
    directory, runs = read_plan(plan)
    command = [sys.executable, "-m", "iml.studies.work", str(plan), "--wait", "--attached"]
    devices = _devices()
    deaths: collections.Counter[str | None] = collections.Counter()
    known = finished()
    begun: list[subprocess.Popen] = []
    # Before there are workers: one that is begun while the signal comes must be ended too.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        for number in range(workers):
            begun.append(_start(command, devices, number, workers))
        active = set(range(workers))
        while active:
            time.sleep(0.5)
            now = finished()
            if now > known:
                known, deaths[None] = now, 0
            for number in sorted(active):
                worker = begun[number]
                if (status := worker.poll()) is None:
                    continue
                # 0: nothing left to do; 1: runs failed, and 2: a mistake, which are told of.
                if status in (0, 1, 2):
                    active.remove(number)
                    continue
                if status != REQUEUE:
                    run = _run_of(worker.pid, directory, runs)
                    name = None if run is None else run.name
                    deaths[name] += 1
                    if run is None and deaths[name] > _PATIENCE * workers:
                        active.remove(number)
                        continue
                    if run is not None and deaths[name] == _PATIENCE:
                        told = f"{_PATIENCE} workers died at it, the last with status {status}"
                        work.write_failure(directory, run, told)
                        say(f"{run.title} ({run.name}): failed: {told}")
                say(f"worker {number} ended with status {status}; started again")
                worker.stdin.close()
                begun[number] = _start(command, devices, number, workers)
    finally:
        for worker in begun:
            if worker.poll() is None:
                worker.terminate()
        for worker in begun:
            worker.wait()
            worker.stdin.close()
        signal.signal(signal.SIGTERM, previous)


def _interrupt(*_) -> None:
    raise SystemExit(REQUEUE)


def _run_of(process: int, directory: pathlib.Path, runs: Sequence[Run]) -> Run | None:
    """The run that a process was at."""
    for run in runs:
        if work.process_of(directory, run) == process and not work.is_settled(directory, run):
            return run
    return None


def _start(command: list[str], devices: list[dict[str, str]], number: int, workers: int) -> subprocess.Popen:
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
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = sorted(path.name[6:] for path in pathlib.Path("/dev").glob("nvidia[0-9]*"))
    if visible is not None:
        gpus = [name for name in visible.split(",") if name]
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": name} for name in gpus]
    chips = sorted(pathlib.Path("/dev").glob("accel[0-9]*"))
    alone = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
    return [{"TPU_VISIBLE_CHIPS": str(number), **alone} for number in range(len(chips))]
