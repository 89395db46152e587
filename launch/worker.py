"""Keeps a job alive on one worker of a slice, whatever becomes of the connection that started it.

`start` leaves a supervisor behind that no closed connection ends; it holds a lock while the job lives, so that a
worker runs one job at a time and a second `start` of the same attempt does nothing. The output and the exit
status of every attempt go into files. Runs on what the worker's image has: Python 3.8, standard library.

    python3 worker.py start JOB ATTEMPT COMMAND
    python3 worker.py state JOB
    python3 worker.py follow JOB ATTEMPT OFFSET SECONDS
    python3 worker.py tail JOB ATTEMPT LINES
    python3 worker.py stop JOB SECONDS
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path.home() / "iml"
#: Before a line that `state` prints, among whatever else a login prints.
MARK = "iml-worker "
#: Exit status of `start` where another job runs.
BUSY = 73


def start(job: str, attempt: str, command: str) -> int:
    """Starts an attempt, unless it has been started already."""
    folder = ROOT / "jobs" / job
    folder.mkdir(parents=True, exist_ok=True)
    lock = _open_lock()
    if not _take(lock, fcntl.LOCK_EX, tries=30):
        other = _read(ROOT / "current")
        if other == job:
            print(f"{job} runs already")
            return 0
        print(f"another job runs: {other}", file=sys.stderr)
        return BUSY
    if _read(folder / "attempt") == attempt:
        print(f"attempt {attempt} of {job} has been started already")
        return 0
    if (folder / "status").exists():
        (folder / "status").unlink()
    _write(ROOT / "current", job)
    _write(folder / "attempt", attempt)
    with (folder / f"log.{attempt}").open("ab") as log:
        subprocess.Popen(
            [sys.executable, __file__, "supervise", job, str(lock.fileno()), command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
    print(f"attempt {attempt} of {job} started")
    return 0


def supervise(job: str, lock: str, command: str) -> int:
    """Waits for the job and keeps its status; passes SIGTERM on."""
    # The job inherits the lock: it stays held even if this supervisor is killed.
    process = subprocess.Popen(["bash", "-c", command], pass_fds=[int(lock)])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    _write(ROOT / "jobs" / job / "pid", str(process.pid))
    status = process.wait()
    _write(ROOT / "jobs" / job / "status", str(status if status >= 0 else 128 - status))
    # What the job left behind would hold the lock; this ends it, and the supervisor with it.
    os.killpg(os.getpgrp(), signal.SIGKILL)
    return 0


def state(job: str) -> int:
    """Prints what is known of the job: absent, running, ended (with its status) or lost (ended without one)."""
    folder = ROOT / "jobs" / job
    attempt, status = _read(folder / "attempt"), _read(folder / "status")
    if _running(job):
        found = "running"
    elif not attempt:
        found = "absent"
    else:
        found = "ended" if status else "lost"
    report = {"host": socket.gethostname(), "state": found, "attempt": int(attempt or 0)}
    print(MARK + json.dumps({**report, "status": int(status) if status else None}), flush=True)
    return 0


def follow(job: str, attempt: str, offset: str, seconds: str) -> int:
    """Writes the attempt's output from a byte on, until the job ends or the time is up."""
    path = ROOT / "jobs" / job / f"log.{attempt}"
    until = time.monotonic() + float(seconds)
    place = int(offset)
    while True:
        running = _running(job)
        if path.exists():
            with path.open("rb") as log:
                log.seek(place)
                data = log.read()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            place += len(data)
        if not running or time.monotonic() > until:
            return 0
        time.sleep(0.2)


def tail(job: str, attempt: str, lines: str) -> int:
    """Prints the last lines of the attempt's output, unless it ended with status 0 here."""
    folder = ROOT / "jobs" / job
    path = folder / f"log.{attempt}"
    if path.exists() and _read(folder / "status") != "0":
        with path.open(errors="replace") as log:
            last = list(log)[-int(lines) :]
        sys.stdout.write("".join(f"{socket.gethostname()}: {line.rstrip()}\n" for line in last))
    return 0


def stop(job: str, seconds: str) -> int:
    """Ends the job: SIGTERM, and SIGKILL where it still runs after some seconds."""
    for number, patience in ((signal.SIGTERM, float(seconds)), (signal.SIGKILL, 10.0)):
        until = time.monotonic() + patience
        pid = _read(ROOT / "jobs" / job / "pid")
        if _running(job) and pid:
            with contextlib.suppress(ProcessLookupError):
                # The supervisor leads the session, so its group holds the job and what the job started.
                os.killpg(os.getpgid(int(pid)), number)
        while _running(job) and time.monotonic() < until:
            time.sleep(0.1)
    return 0


def _running(job: str) -> bool:
    if not (ROOT / "lock").exists() or _read(ROOT / "current") != job:
        return False
    with _open_lock() as lock:
        return not _take(lock, fcntl.LOCK_SH, tries=1)


def _open_lock():
    return (ROOT / "lock").open("a")


def _take(lock, kind: int, tries: int) -> bool:
    """Takes the lock; tries again, since one who only looks holds it for an instant."""
    for left in reversed(range(tries)):
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if left:
                time.sleep(0.1)
    return False


def _read(path: pathlib.Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _write(path: pathlib.Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text + "\n")
    new.replace(path)


if __name__ == "__main__":
    actions = (start, supervise, state, follow, tail, stop)
    sys.exit({action.__name__: action for action in actions}[sys.argv[1]](*sys.argv[2:]))
