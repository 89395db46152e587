"""Notices of Google Cloud that this machine is about to be taken away.

The metadata server of a virtual machine says so under `instance/preempted` (Spot machines) and
`instance/maintenance-event` (host maintenance), usually 30 seconds and more ahead:
https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice. A notice becomes a SIGTERM to this
process, upon which the training loop saves and ends.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator

#: Seconds between two looks; a look takes a millisecond.
PERIOD = 5.0
#: Where Google's own libraries look for another address of the server.
ADDRESS = "GCE_METADATA_HOST"
_DEFAULT = "metadata.google.internal"
_MACHINE = pathlib.Path("/sys/class/dmi/id/product_name")
_TIMEOUT = 3.0
#: Google asks for the header, and sends it back so that no other server is taken for its own.
_HEADER = ("Metadata-Flavor", "Google")


@contextlib.contextmanager
def watching(
    act: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGTERM), period: float = PERIOD
) -> Iterator[None]:
    """Looks for a notice in a thread, and acts on the first; on no machine but Google's.

    Args:
      act: what to do; by default SIGTERM to this process, which every process of a run then heeds.
      period: seconds between two looks.
    """
    server = find_server()
    if server is None:
        yield
        return
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            if notice := read_notice(server):
                print(f"Google Cloud gives notice: {notice}", file=sys.stderr, flush=True)
                act()
                return
            stop.wait(period)

    thread = threading.Thread(target=look, name="iml-preemption", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(2 * _TIMEOUT)


def find_server() -> str | None:
    """The address of the metadata server; None where there is none."""
    given = os.environ.get(ADDRESS)
    if given is None:
        with contextlib.suppress(OSError):
            if "Google" in _MACHINE.read_text():
                given = _DEFAULT
    if given is None or _get(given, "") is None:
        return None
    return given


def read_notice(server: str) -> str | None:
    """What the server announces; None for nothing, or where it does not answer."""
    if _get(server, "instance/preempted") == "TRUE":
        return "this machine is preempted"
    event = _get(server, "instance/maintenance-event") or ""
    # MIGRATE_ON_HOST_MAINTENANCE moves a machine while it runs.
    return event if event.startswith("TERMINATE") else None


def _get(server: str, path: str) -> str | None:
    request = urllib.request.Request(f"http://{server}/computeMetadata/v1/{path}", headers=dict([_HEADER]))
    # Never through a proxy: the server answers its own machine alone.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            if answer.headers.get(_HEADER[0]) != _HEADER[1]:
                return None
            return answer.read().decode().strip()
    except (OSError, ValueError):
        return None
