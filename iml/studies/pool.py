"""Several workers on this machine, each with a device of its own."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

#: Deaths of workers in a row, without a run finished in between, after which the pool gives up.
_PATIENCE = 3


def run_workers(
    plan: pathlib.Path, workers: int, finished: Callable[[], int], say: Callable[[str], None]
) -> None:
    """Runs workers until none has anything left to do; one that dies is started again.

    Args:
      plan: the file that iml.study wrote.
      workers: how many.
      finished: how many runs are finished; asked about once a second.
      say: told what happens.

    Raises:
      KeyboardInterrupt, SystemExit: after the workers have been asked to save and have ended.
    """
    command = [sys.executable, "-m", "iml.studies.work", str(plan)]
    devices = _devices()
    begun = [_start(command, devices, number, workers) for number in range(workers)]
    deaths, known = 0, finished()
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while any(worker.poll() is None for worker in begun):
            time.sleep(0.5)
            now = finished()
            deaths, known = (0 if now > known else deaths), now
            for number, worker in enumerate(begun):
                # 0: nothing left to do; 1: runs failed, which are told of.
                if worker.poll() in (None, 0, 1):
                    continue
                deaths += 1
                if deaths > _PATIENCE * workers:
                    continue
                say(f"worker {number} ended with status {worker.returncode}; started again")
                begun[number] = _start(command, devices, number, workers)
    finally:
        signal.signal(signal.SIGTERM, previous)
        for worker in begun:
            if worker.poll() is None:
                worker.terminate()
        for worker in begun:
            worker.wait()


def _interrupt(*_) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def _start(command: list[str], devices: list[dict[str, str]], number: int, workers: int) -> subprocess.Popen:
    environment = {**os.environ, **(devices[number % len(devices)] if devices else {})}
    cores = sorted(os.sched_getaffinity(0))
    # Without accelerators the cores are shared out: programs of several threads each would be in each other's way.
    share = set(cores[number % len(cores) :: workers]) or set(cores)
    worker = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
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
