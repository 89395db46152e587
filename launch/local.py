"""Runs iml.train in several processes of this machine.

    python -m launch.local --processes=2 -- --gin_file=... --gin.RUN_DIR=runs/first

Every line of output begins with the number of its process. When one process fails the others are ended; when all
have ended with status 75 (saved after SIGTERM, wants another start) and nobody has asked to stop, they are started
again. SIGTERM and Ctrl-C are passed on, so that the run saves.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from iml.errors import InputError
from launch.drive import PREEMPTED, say


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "python -m launch.local", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--processes", type=int, required=True)
    made.add_argument("--module", default="iml.train", help="what `python -m` runs (default: iml.train)")
    made.add_argument("--devices", type=int, help="simulated devices a process, without accelerators")
    made.add_argument("--restarts", type=int, default=3, help="starts after the first")
    made.add_argument("--grace", type=float, default=60.0, help="seconds to end in, before SIGKILL")
    made.add_argument("--dry_run", action="store_true", help="print the commands only")
    return made


class Group:
    """The processes of one start."""

    def __init__(
        self,
        commands: list[list[str]],
        environment: dict[str, str],
        grace: float,
        port: socket.socket,
        asked: threading.Event,
    ):
        self._grace, self._stopped_at, self._asked = grace, None, asked
        self.processes = [
            subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(port.fileno(),),
                # Ctrl-C reaches the whole group of a terminal; each process is to be told once, by us.
                start_new_session=True,
            )
            for command in commands
        ]
        self._readers = [
            threading.Thread(target=_prefix, args=(number, process), daemon=True)
            for number, process in enumerate(self.processes)
        ]
        for reader in self._readers:
            reader.start()

    def _stop(self) -> None:
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
            for process in self.processes:
                if process.poll() is None:
                    process.terminate()

    def wait(self) -> int:
        """Waits for all: the first failing status, else 75 if there is one, else 0."""
        first = 0
        while any(process.poll() is None for process in self.processes):
            first = first or next(filter(None, (_failure(process) for process in self.processes)), 0)
            if first and self._stopped_at is None:
                number = [_failure(process) for process in self.processes].index(first)
                say(f"process {number} ended with status {first}; ending the others")
                self._stop()
            if self._asked.is_set():
                self._stop()
            if self._stopped_at is not None and time.monotonic() > self._stopped_at + self._grace:
                for process in self.processes:
                    process.kill()
            time.sleep(0.05)
        for reader in self._readers:
            reader.join()
        statuses = [process.returncode for process in self.processes]
        failures = filter(None, (_failure(process) for process in self.processes))
        return first or next(failures, 0) or (PREEMPTED if PREEMPTED in statuses else 0)


def main(argv: list[str] | None = None) -> int:
    """Runs the processes.

    Returns:
      0, 75 if the run was asked to stop and has saved, the first failing status, or 2 after a mistake.
    """
    words = sys.argv[1:] if argv is None else argv
    cut = words.index("--") if "--" in words else len(words)
    arguments = parser().parse_args(words[:cut])
    try:
        if arguments.processes < 1:
            raise InputError(f"must be at least 1, not {arguments.processes}", field="--processes")
        return _run(arguments, words[cut + 1 :])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace, words: list[str]) -> int:
    environment = dict(os.environ)
    if arguments.devices:
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={arguments.devices}"
        environment["JAX_PLATFORMS"] = "cpu"
    # Noted from before the first start, so that no signal ends the launcher and leaves processes behind.
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    for start in range(arguments.restarts + 1):
        # A new port each time: the coordinator's last one may still be in use.
        with reserve_port() as port:
            commands = _commands(arguments, words, port.getsockname()[1])
            if arguments.dry_run:
                print("\n".join(" ".join(command) for command in commands))
                return 0
            if start:
                say(f"the run has saved and wants another start ({start} of {arguments.restarts})")
            group = Group(commands, environment, arguments.grace, port, asked)
        status = group.wait()
        if status != PREEMPTED or asked.is_set():
            return status
    raise InputError(f"the run wanted more than {arguments.restarts} further starts", field="--restarts")


def reserve_port() -> socket.socket:
    """A socket on a port of this machine that no program is given as long as the socket is open anywhere.

    A coordinator may listen there all the same: gRPC's servers share a port with whoever lets them. So the
    processes of a run inherit the socket, and until process 0 listens nobody else takes the port.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("localhost", 0))
    return held


def _commands(arguments: argparse.Namespace, words: list[str], port: int) -> list[list[str]]:
    command = [sys.executable, "-u", "-m", arguments.module, *words]
    if arguments.processes == 1:
        return [command]
    joint = [f"--coordinator_address=localhost:{port}", f"--num_processes={arguments.processes}"]
    return [[*command, *joint, f"--process_id={number}"] for number in range(arguments.processes)]


def _prefix(number: int, process: subprocess.Popen) -> None:
    """Passes the output of a process on, a line at a time."""
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.buffer.write(f"{number}: ".encode() + line.rstrip(b"\n") + b"\n")
        sys.stdout.buffer.flush()


def _failure(process: subprocess.Popen) -> int | None:
    """The status of a process that has failed."""
    status = process.poll()
    if status in (None, 0, PREEMPTED):
        return None
    return status if status > 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
