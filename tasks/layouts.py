"""Finds the files of a data set by the patterns that its definition gives, and guards their reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from etils import epath

from iml.errors import InputError

Splits = dict[str, tuple[epath.Path, ...]]

_Record = TypeVar("_Record")


def find(home: epath.Path, pattern: str) -> list[epath.Path]:
    """The files of the first of several patterns (`a|b`) that has any, plain or gzipped, sorted."""
    for one in pattern.split("|"):
        if "*" in one:
            paths = sorted(home.glob(one))
        else:
            paths = [path for path in (home / one, home / f"{one}.gz") if path.exists()][:1]
        if paths:
            return paths
    return []


def find_splits(home: epath.Path, patterns: Mapping[str, Iterable[str]]) -> Splits:
    """The files that are there, by split; several patterns make one split. A split without files is left out."""
    found = {
        split: tuple(path for pattern in several for path in find(home, pattern))
        for split, several in patterns.items()
    }
    return {split: paths for split, paths in found.items() if paths}


def one(home: epath.Path, name: str) -> epath.Path:
    """A file that a set cannot do without, plain or gzipped.

    Raises:
      InputError: it is not there.
    """
    found = find(home, name)
    if not found:
        raise InputError("is missing", path=home / name)
    return found[0]


def within(home: epath.Path, name: str) -> str:
    """A name of a file that stands in another file, which must not lead out of a folder.

    Raises:
      InputError: it does.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise InputError(f"the file name {name!r:.80} leads out of the set's folder", path=home)
    return name


def first_folder(home: epath.Path, names: Iterable[str]) -> epath.Path | None:
    """The first of several folders that is there."""
    return next((home / name for name in names if (home / name).exists()), None)


def label(home: epath.Path, path: epath.Path) -> str:
    """A file's name without its ends, after the folder it stands in unless that is the set's own."""
    folder = "" if path.parent == home else f"{path.parent.name}-"
    return folder + path.name.partition(".")[0]


def guarded(records: Iterable[_Record], path: epath.Path) -> Iterator[_Record]:
    """A reader's records; what it trips over without having looked for it is told with the file all the same.

    Raises:
      InputError: the reader met something that is not of the file's form.
    """
    read = 0
    try:
        for record in records:
            read += 1
            yield record
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        problem = f"is not of its form after {read} examples ({type(error).__name__}: {str(error)[:100]})"
        raise InputError(problem, path=path) from error
