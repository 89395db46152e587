"""Several processes of one run: how they find each other, and how they end together.

JAX's coordination service notices a process that is gone after minutes, and then aborts the others with a stack
trace. So each process also keeps a connection with process 0, over which lines of JSON tell that it lives, that
it has ended well, or why it ends. What is told or noticed reaches every process, and each ends with one message.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from iml.errors import InputError

#: The flags of an entry point that runs in several processes.
FLAGS = {
    "distributed": "join the run's other processes as SLURM, a Cloud TPU pod or Kubernetes names them",
    "coordinator_address": "host:port of process 0, for a run of several processes",
    "num_processes": "how many processes the run has",
    "process_id": "the number of this process, from 0",
}
#: Status of a process that was asked to end (SIGTERM), has saved and wants to be started again, and of one that
#: lost another process of its run: EX_TEMPFAIL.
REQUEUE = 75
#: Seconds between signs of life, and without any after which a process counts as gone.
BEAT, PATIENCE = 5.0, 45.0
#: Seconds that a process has to hand on what it knows before it ends.
_GRACE = 10.0
_KEY = "iml/watch"


def join_by_flags(
    detect: bool, address: str | None, processes: str | None, process: str | None
) -> Watch | None:
    """Joins the other processes as `FLAGS` say; None where none is given.

    Raises:
      InputError: as `join`, and where too few are given.
    """
    numbers = (processes, process)
    if not (detect or address or processes or process):
        return None
    if not detect and None in (address, *numbers):
        raise InputError(
            "a run of several processes needs --coordinator_address, --num_processes and --process_id",
            remedy="Or --distributed, where SLURM, a Cloud TPU pod or Kubernetes says them",
        )
    for name, text in zip(("--num_processes", "--process_id"), numbers, strict=True):
        if text is not None and not str(text).strip().isdigit():
            raise InputError(f"not a whole number: {text!r}", field=name)
    return join(address, *(None if text is None else int(text) for text in numbers))


def join(
    address: str | None = None, processes: int | None = None, process: int | None = None, timeout: int = 300
) -> Watch | None:
    """Joins the other processes of the run; to be called before anything else of JAX.

    Args:
      address: host:port of process 0; None lets JAX ask the environment: SLURM, Open MPI, a Cloud TPU pod or
        Kubernetes.
      processes: how many there are; None likewise.
      process: the number of this one; None likewise.
      timeout: seconds to wait for the others.

    Returns:
      What watches over the others; None where there are none.

    Raises:
      InputError: the environment says nothing, or the others are not there.
    """
    import jax

    try:
        jax.distributed.initialize(address, processes, process, initialization_timeout=timeout)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the processes of the run did not find each other ({reason})",
            field="--distributed" if address is None else "--coordinator_address",
            remedy="Give --coordinator_address, --num_processes and --process_id",
        ) from error
    return Watch(timeout) if jax.process_count() > 1 else None


def numbered() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    import jax

    return jax.process_index(), jax.process_count()


def agreed(numbers: Sequence[int]) -> list[int]:
    """The whole numbers that process 0 gives, in every process; how many the others give does not matter."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return list(numbers)
    count = int(multihost_utils.broadcast_one_to_all(np.int32(len(numbers))))
    own = np.resize(np.array([*numbers, 0], np.int32), count)
    return multihost_utils.broadcast_one_to_all(own).tolist()


@contextlib.contextmanager
def together(watch: Watch | None) -> Iterator[None]:
    """What fails inside ends all processes of the run, each with the same message, instead of hanging them.

    A process that is alone sees the exception as ever. An `InputError` ends with status 2, others with 1; where
    a process is gone the status is `REQUEUE`.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if watch is not None:
            watch.fail(error)
        raise


class Watch:
    """The connections of process 0 with each other process; without it, JAX's own and slower detection holds."""

    def __init__(self, timeout: float):
        import jax
        from jax._src.distributed import global_state  # The only way to the store that all processes share.

        self._process, self._count = jax.process_index(), jax.process_count()
        self._left = False
        self._verdict = threading.Lock()
        self._links: dict[int, _Link] = {}
        self._gone: set[int] = set()
        _delay_abort()
        if self._process == 0:
            server, token = _listen(), secrets.token_hex(8)
            global_state.client.key_value_set(_KEY, f"{server.getsockname()[1]} {token}")
            _start(self._accept, server, token)
        else:
            port, token = global_state.client.blocking_key_value_get(_KEY, int(timeout * 1000)).split()
            host = global_state.coordinator_address.rpartition(":")[0].strip("[]")
            try:
                link = _Link(socket.create_connection((host, int(port)), timeout=_GRACE))
            except OSError as error:
                raise InputError(
                    f"process {self._process} cannot reach process 0 at {host}:{port} ({error})",
                    remedy="Let the hosts of the run connect to each other on all ports",
                ) from error
            link.tell({"token": token, "process": self._process})
            self._attend(0, link)
        _start(self._beat)
        # Before JAX's own end, which waits for all: what it registered earlier runs later.
        atexit.register(self._leave)

    def fail(self, error: BaseException) -> None:
        """Ends all processes because of an error in this one; does not return."""
        import jax

        if isinstance(error, jax.errors.JaxRuntimeError):
            # Most likely the other end of a collective is gone, about which the connections know more.
            time.sleep(_GRACE)
        if isinstance(error, InputError):
            self._end(f"error: process {self._process}: {error}", 2, everywhere=True)
        traceback.print_exception(error)
        text = (str(error).strip().splitlines() or [""])[0]
        self._end(
            f"error: process {self._process} failed: {type(error).__name__}: {text}", 1, everywhere=True
        )

    def _leave(self) -> None:
        """Tells the others that this process has come to its end in good order."""
        self._left = True
        for link in list(self._links.values()):
            link.tell({"bye": True})

    def _accept(self, server: socket.socket, token: str) -> None:
        while True:
            connection, _ = server.accept()
            _start(self._greet, _Link(connection), token)

    def _greet(self, link: _Link, token: str) -> None:
        hello = link.hear()
        if hello is not None and hello.get("token") == token:
            self._attend(hello["process"], link)
        else:
            link.close()

    def _attend(self, process: int, link: _Link) -> None:
        self._links[process] = link
        _start(self._listen_to, process, link)

    def _listen_to(self, process: int, link: _Link) -> None:
        """Hears a process until it ends."""
        said_goodbye = False
        while (said := link.hear()) is not None:
            if "end" in said:
                self._end(said["end"], said["status"], everywhere=self._process == 0)
            said_goodbye |= "bye" in said
        self._gone.add(process)
        if not (said_goodbye or self._left):
            self._end(
                f"error: process {process} of {self._count} is gone: it was killed, or its host or the network "
                f"failed. Process {self._process} ends with status {REQUEUE}; started again, the run goes on "
                "from its latest checkpoint",
                REQUEUE,
                everywhere=self._process == 0,
                reason=process,
            )

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            for link in list(self._links.values()):
                link.tell({})

    def _end(self, text: str, status: int, *, everywhere: bool, reason: int | None = None) -> None:
        """Prints and ends this process, after it has told the others."""
        if not self._verdict.acquire(blocking=False):
            time.sleep(2 * _GRACE)  # Another thread is about to end the process.
        print(text, file=sys.stderr, flush=True)
        if everywhere:
            for process, link in list(self._links.items()):
                said = text.replace(f"Process {self._process} ends", f"Process {process} ends")
                link.tell({"end": said, "status": status})
            # They hang up as they end; when process 0 ends before them, JAX aborts them noisily.
            until = time.monotonic() + _GRACE
            while time.monotonic() < until and self._links.keys() - self._gone - {reason}:
                time.sleep(0.05)
        sys.stdout.flush()
        os._exit(status)


class _Link:
    """Lines of JSON over a connection."""

    def __init__(self, connection: socket.socket):
        connection.settimeout(PATIENCE)
        self._connection, self._reader = connection, connection.makefile("r", encoding="utf-8")
        self._lock = threading.Lock()

    def tell(self, said: dict[str, Any]) -> None:
        """Sends; a broken connection shows where it is listened to."""
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(said).encode() + b"\n")

    def hear(self) -> dict[str, Any] | None:
        """What comes next; None where the other end is closed, silent or talks nonsense."""
        try:
            line = self._reader.readline()
            return json.loads(line) if line.endswith("\n") else None
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        self._connection.close()


def _listen() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _start(work, *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, name="iml-watch", daemon=True).start()


def _delay_abort() -> None:
    """Gives the connections time to say why before JAX aborts a process that has lost process 0.

    On SIGABRT the aborting thread calls libc's `sleep` with the signal's number, 6 seconds, and nothing else: no
    Python runs in it. The other threads go on, and the one that listens ends the process with its message.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
