"""What a worker's process has to do with whoever started it: how it ends, where it prints, which run it is at."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import threading
from collections.abc import Iterator

from iml.training.distributed import REQUEUE


@contextlib.contextmanager
def ends_when_asked() -> Iterator[None]:
    """SIGTERM ends the process with status 75; what was answered by then is kept. Training has its own handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_) -> None:
        raise SystemExit(REQUEUE)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def logged(path: pathlib.Path) -> Iterator[None]:
    """What is printed goes to a file, added to what is there."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("a", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(file))
        stack.enter_context(contextlib.redirect_stderr(file))
        yield


@contextlib.contextmanager
def noted(note: pathlib.Path | None, run: str) -> Iterator[None]:
    """Lets whoever started this process know which run it is at, should it die."""
    if note is None:
        yield
        return
    note.write_text(run, encoding="utf-8")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def end_with(stream: int) -> None:
    """Asks this process to end when the other side of a pipe is closed: whoever started it has died."""

    def watch() -> None:
        while os.read(stream, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
