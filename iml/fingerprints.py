"""Hashes of what a task's examples depend on: data files, and the code and definitions that read them."""

from __future__ import annotations

import functools
import hashlib
import inspect
import pathlib
import sys
from collections.abc import Iterator

from etils import epath

from iml.data.store import hash_strings
from iml.errors import InputError


@functools.lru_cache(maxsize=4096)
def hash_file(path: str) -> str:
    """Hash of a file's bytes, local or remote.

    Raises:
      InputError: it cannot be read.
    """
    try:
        with epath.Path(path).open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error


@functools.cache
def hash_reader(name: str) -> str:
    """Hash over an imported module's source, over those of its own package that it uses, and definitions.

    Definitions are the files that its source names in a folder `definitions` beside the module or its package.
    """
    package, pending, seen = name.partition(".")[0], [name], set()
    while pending:
        module = sys.modules.get(pending.pop())
        if module is None or module.__name__ in seen:
            continue
        seen.add(module.__name__)
        for value in vars(module).values():
            used = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
            if isinstance(used, str) and used.partition(".")[0] == package and package != "iml":
                pending.append(used)
    files = [getattr(sys.modules[used], "__file__", None) for used in sorted(seen)]
    sources = [file for file in files if file]
    return hash_strings(*(hash_file(file) for source in sources for file in (source, *_definitions(source))))


def _definitions(source: str) -> Iterator[str]:
    """The definition files that a source file names, in order."""
    text = pathlib.Path(source).read_text(encoding="utf-8", errors="replace")
    for folder in pathlib.Path(source).resolve().parents[:2]:
        for path in sorted(folder.glob("definitions/*.json")):
            if path.name in text:
                yield str(path)
