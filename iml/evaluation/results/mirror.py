"""Results on a bucket, whose files cannot be added to: written to a local folder, and copied."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Iterator

from etils import epath

#: Seconds between two copies: what the loss of the machine may cost.
PERIOD = 60.0


@contextlib.contextmanager
def mirrored(path: str | os.PathLike[str], writes: bool = True) -> Iterator[str]:
    """A local folder that stands for one which may be a bucket's.

    It begins with the files that lie there. What is written, and what is removed, reaches the bucket once a minute
    and at the end, however that comes about.

    Args:
      path: the folder; a local one stands for itself.
      writes: whether this process writes; in one that does not, the folder is of no use.
    """
    if "://" not in os.fspath(path) or not writes:
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory(prefix="iml-results-") as folder:
        # The ends of its path are what reports call a result.
        local = pathlib.Path(folder, *os.fspath(path).partition("://")[2].split("/"))
        mirror = _Mirror(epath.Path(path), local)
        mirror.fetch()
        ended = threading.Event()
        copying = threading.Thread(target=mirror.keep_copying, args=(ended,), daemon=True)
        copying.start()
        try:
            yield os.fspath(local)
        finally:
            ended.set()
            copying.join()
            mirror.copy()


class _Mirror:
    """A bucket's folder and the local one that stands for it."""

    def __init__(self, bucket: epath.Path, local: pathlib.Path):
        self._bucket, self._local = bucket, local
        # By file of the bucket, size and time of the local one that it is equal to.
        self._copied: dict[str, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Brings the files of the bucket, with their times."""
        self._local.mkdir(parents=True)
        self._fetch(self._bucket, self._local)
        self._copied = self._files()

    def copy(self) -> None:
        """Makes the bucket hold what the local folder holds."""
        found = self._files()
        for name, state in found.items():
            if self._copied.get(name) != state:
                target = self._bucket / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((self._local / name).read_bytes())
                self._copied[name] = state
        for name in self._copied.keys() - found.keys():
            (self._bucket / name).unlink(missing_ok=True)
            del self._copied[name]

    def keep_copying(self, ended: threading.Event) -> None:
        """Copies once a minute; what fails is done by a later copy, the last of which tells of its failure."""
        while not ended.wait(PERIOD):
            with contextlib.suppress(Exception):
                self.copy()

    def _files(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file; those whose names begin with a dot are being written."""
        found = {}
        for file in self._local.rglob("[!.]*"):
            with contextlib.suppress(FileNotFoundError):
                if file.is_file():
                    state = file.stat()
                    found[file.relative_to(self._local).as_posix()] = (state.st_size, state.st_mtime_ns)
        return found

    def _fetch(self, source: epath.Path, target: pathlib.Path) -> None:
        for entry in source.iterdir() if source.exists() else ():
            if entry == source:  # Some clients list the mark of a folder in itself.
                continue
            if entry.is_dir():
                (target / entry.name).mkdir()
                self._fetch(entry, target / entry.name)
            else:
                with entry.open("rb") as file, (target / entry.name).open("wb") as copied:
                    shutil.copyfileobj(file, copied)
                os.utime(target / entry.name, (entry.stat().mtime,) * 2)
