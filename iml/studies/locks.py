"""Files by which processes, on one machine or several, agree on who does what."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
from collections.abc import Callable, Iterator
from typing import IO

from iml.errors import InputError


@contextlib.contextmanager
def locked(path: pathlib.Path, wait: Callable[[], None] | None) -> Iterator[bool]:
    """Holds a file's lock; the kernel frees that of a process that dies.

    Args:
      path: the file; made where it is missing.
      wait: called before another process's lock is waited for; None not to wait.

    Yields:
      Whether it is held.

    Raises:
      InputError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        held = _take(file, fcntl.LOCK_NB)
        if not held and wait is not None:
            wait()
            held = _take(file)
        yield held


def _take(file: IO[str], flags: int = 0) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | flags)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(
            f"this file system cannot lock files ({error.strerror}), by which workers agree on who does what",
            path=file.name,
            remedy="Mount it with locks (flock), or give study.studies_dir another place",
        ) from error
    return True
