"""The example store: every task's examples as text, read by random access.

    store/index.json                                    what there is; the one file that is replaced
    store/<task>/<fingerprint>/card.json                the task's card, splits and fingerprint
    store/<task>/<fingerprint>/<split>.array_record     one `Example.encode()` a record, group size 1

A task's folder is written beside its place and renamed once complete, under the fingerprint of what it was
made from. So the folders that an index names never change, the store before stays readable until the new
index replaces the old in one step, and a preparation that was killed finds its finished tasks again.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import resource
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from iml.bench.card import Example, TaskCard
from iml.bench.statistics import WORDS, Lengths, count_words
from iml.errors import InputError

FORMAT = 1
INDEX = "index.json"
CARD = "card.json"
REMEDY = "Prepare it with python -m iml.prepare"

#: Task names are folder names.
TASK_NAME = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]*")

_WRITER_OPTIONS = "group_size:1,zstd"
# Random access only: no read-ahead, and no thread pool behind every file.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


@dataclasses.dataclass(frozen=True, slots=True)
class SplitInfo:
    """Size of one split.

    Attributes:
      rows: records in the file; each rendering of an example is a row.
      examples: underlying examples (distinct uids); mixing weights count these.
      templates: ids of the templates that occur, sorted; () for a task without templates.
      lengths: by unit, the lengths of the rows' prompts: in words, and in the tokens of any vocabulary that
        they were measured with.
    """

    rows: int
    examples: int
    templates: tuple[str, ...] = ()
    lengths: Mapping[str, Lengths] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        lengths = {unit: dataclasses.astuple(sums) for unit, sums in self.lengths.items()}
        templates = list(self.templates)
        return {"rows": self.rows, "examples": self.examples, "templates": templates, "lengths": lengths}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        lengths = {unit: Lengths(*sums) for unit, sums in record.get("lengths", {}).items()}
        return cls(record["rows"], record["examples"], tuple(record["templates"]), lengths)


@dataclasses.dataclass(frozen=True, slots=True)
class TaskEntry:
    """A task of the store: its card, its splits, and the fingerprint of what it was made from."""

    card: TaskCard
    splits: Mapping[str, SplitInfo]
    fingerprint: str

    def to_json(self) -> dict[str, Any]:
        splits = {split: info.to_json() for split, info in self.splits.items()}
        return {"card": self.card.to_json(), "splits": splits, "fingerprint": self.fingerprint}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        splits = {split: SplitInfo.from_json(info) for split, info in record["splits"].items()}
        return cls(TaskCard.from_json(record["card"]), splits, record["fingerprint"])


class ExampleStore:
    """A store opened for reading. Opening reads the index alone; files are opened when first read.

    Safe to share between threads; pickles by its path.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_open: int | None = None):
        """Opens the store at `path`.

        Args:
          max_open: files open at a time, some 50 kB of memory each; None for half of what the process may
            open, and 4096 at most.

        Raises:
          InputError: there is no store, or its index is damaged.
        """
        self.path = pathlib.Path(path)
        self._max_open = max_open or min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._readers: collections.OrderedDict[tuple[str, str], ArrayRecordReader] = collections.OrderedDict()
        self._lock = threading.Lock()
        self.tasks, self.failures = read_index(self.path)

    @property
    def fingerprint(self) -> str:
        """Hash over the names and fingerprints of all tasks."""
        return hash_strings(*(f"{name} {entry.fingerprint}" for name, entry in sorted(self.tasks.items())))

    def read(self, task: str, split: str, row: int) -> Example:
        """The example in a row, counted from 0.

        Raises:
          InputError: the file is missing or damaged.
          KeyError: no such task or split.
          IndexError: no such row.
        """
        return self.read_many(task, split, [row])[0]

    def read_many(self, task: str, split: str, rows: Sequence[int]) -> list[Example]:
        """The examples in `rows`, in that order; errors as `read`."""
        rows = [int(row) for row in rows]
        if not rows:
            return []
        size = self.tasks[task].splits[split].rows
        for row in rows:
            if not 0 <= row < size:
                raise IndexError(f"row {row} of {task}/{split}, which has {size}")
        reader = self._reader(task, split)
        try:
            return [Example.decode(record) for record in reader.read(rows)]
        except (RuntimeError, ValueError, KeyError) as error:
            raise self._damaged(task, split, str(error)) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "max_open": self._max_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], max_open=state["max_open"])

    def _file(self, task: str, split: str) -> pathlib.Path:
        return task_folder(self.path, task, self.tasks[task].fingerprint) / f"{split}.array_record"

    def _damaged(self, task: str, split: str, reason: str) -> InputError:
        remedy = "Remove its folder and make it again with python -m iml.prepare"
        return InputError(
            f"the store's file is damaged: {reason}", path=self._file(task, split), remedy=remedy
        )

    def _reader(self, task: str, split: str) -> ArrayRecordReader:
        key = (task, split)
        with self._lock:
            if key in self._readers:
                self._readers.move_to_end(key)
                return self._readers[key]
            try:
                reader = _open(self._file(task, split), self.tasks[task].splits[split].rows)
            except (RuntimeError, ValueError, OSError) as error:
                raise self._damaged(task, split, str(error)) from error
            self._readers[key] = reader
            # An evicted reader that another thread still uses lives until that thread lets go of it.
            while len(self._readers) > self._max_open:
                self._readers.popitem(last=False)
            return reader


def read_index(path: str | os.PathLike[str]) -> tuple[Mapping[str, TaskEntry], Mapping[str, str]]:
    """Tasks and failures that a store's index names.

    Raises:
      InputError: the index is missing or damaged.
    """
    index = pathlib.Path(path) / INDEX
    try:
        record = json.loads(index.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise InputError(
                f"format {record['format']} of an example store, where {FORMAT} is read",
                path=index,
                field="format",
                remedy=REMEDY,
            )
        tasks = {name: TaskEntry.from_json(entry) for name, entry in record["tasks"].items()}
        return MappingProxyType(tasks), MappingProxyType(dict(record["failures"]))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError("there is no example store here", path=path, remedy=REMEDY) from error
    except InputError as error:
        raise InputError(error.problem, path=index, field=error.field, remedy=REMEDY) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"the store's index is damaged ({type(error).__name__}: {error})"
        raise InputError(problem, path=index, remedy=REMEDY) from error


def task_folder(path: str | os.PathLike[str], task: str, fingerprint: str) -> pathlib.Path:
    """Where a task made from what has this fingerprint lies."""
    return pathlib.Path(path) / task / fingerprint[:16]


def find_task(path: str | os.PathLike[str], task: str, fingerprint: str) -> TaskEntry | None:
    """The entry of a task that is already written with this fingerprint, whether or not an index names it.

    None also where one of its files is missing or cut short, so that it is written again.
    """
    folder = task_folder(path, task, fingerprint)
    try:
        entry = TaskEntry.from_json(json.loads((folder / CARD).read_text(encoding="utf-8")))
        for split, info in entry.splits.items():
            _open(folder / f"{split}.array_record", info.rows).close()
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return entry if entry.fingerprint == fingerprint else None


def write_task(
    path: str | os.PathLike[str],
    card: TaskCard,
    splits: Mapping[str, Iterable[Example]],
    fingerprint: str,
    underlying: Mapping[str, int] = MappingProxyType({}),
) -> TaskEntry:
    """Writes a task's splits; the folder appears complete or not at all. Empty splits are left out.

    A reader of the store sees the task only once `write_index` has named it.

    Args:
      underlying: by split, how many underlying examples its rows stand for, where not every one has a row.

    Raises:
      InputError: the task has no examples, a bad name, or one uid and template twice in a split; or
        whatever iterating over the examples raises.
      OSError: the disk is full or not writable; nothing is left behind.
    """
    for name in (card.name, *splits):
        if not TASK_NAME.fullmatch(name):
            raise InputError(
                f"{name!r} cannot be a task's or a split's name", remedy="Use letters, digits, _.:-"
            )
    target = task_folder(path, card.name, fingerprint)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.mkdir(parents=True)
        infos = {
            split: _write_split(temporary / f"{split}.array_record", examples)
            for split, examples in splits.items()
        }
        infos = {
            split: dataclasses.replace(info, examples=underlying.get(split, info.examples))
            for split, info in infos.items()
            if info.rows
        }
        if not infos:
            raise InputError(f"task {card.name} has no examples")
        entry = TaskEntry(card, infos, fingerprint)
        (temporary / CARD).write_text(json.dumps(entry.to_json(), indent=1), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_if_empty(target.parent)
        raise
    return entry


def write_index(
    path: str | os.PathLike[str], tasks: Mapping[str, TaskEntry], failures: Mapping[str, str]
) -> None:
    """Replaces the store's index in one step, then removes the folders that it no longer names.

    Raises:
      OSError: the disk is full or not writable; the old index stays.
    """
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    record = {
        "format": FORMAT,
        "tasks": {name: entry.to_json() for name, entry in sorted(tasks.items())},
        "failures": dict(sorted(failures.items())),
    }
    temporary = path / f".{INDEX}.{os.getpid()}"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(record, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path / INDEX)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _remove_unnamed(path, tasks)


def hash_strings(*parts: str) -> str:
    """Hash of a sequence of strings, 32 hexadecimal digits; no two sequences run together."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _open(file: pathlib.Path, rows: int) -> ArrayRecordReader:
    """A reader of a split's file.

    Raises:
      OSError, RuntimeError, ValueError: it is missing or damaged, or does not hold so many records.
    """
    reader = ArrayRecordReader(os.fspath(file), options=_READER_OPTIONS)
    records = reader.num_records()
    if records != rows:
        raise ValueError(f"{records} records where the index has {rows}")
    return reader


def _write_split(file: pathlib.Path, examples: Iterable[Example]) -> SplitInfo:
    """Writes one file; none if there are no examples."""
    uids, templates, seen = set(), set(), set()
    total = squares = 0
    writer = None
    try:
        for example in examples:
            key = (example.uid, example.template)
            if key in seen:
                raise InputError(f"two examples of a split have the uid {example.uid!r}", field="uid")
            seen.add(key)
            uids.add(example.uid)
            templates.add(example.template)
            length = count_words(example)
            total, squares = total + length, squares + length * length
            if writer is None:
                writer = ArrayRecordWriter(os.fspath(file), _WRITER_OPTIONS)
            _checked_write(writer.write, file, example.encode())
    finally:
        if writer is not None:
            # Closing flushes: it is where a full disk shows.
            _checked_write(writer.close, file)
    lengths = {WORDS: Lengths(len(seen), total, squares)}
    return SplitInfo(len(seen), len(uids), tuple(sorted(templates - {""})), lengths)


def _checked_write(function, file: pathlib.Path, *arguments) -> None:
    """Calls a method of an ArrayRecord writer, whose errors become an OSError that names the file."""
    try:
        function(*arguments)
    except (RuntimeError, ValueError) as error:
        raise OSError(f"cannot write {file}: {error}") from error


def _remove_if_empty(folder: pathlib.Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _remove_unnamed(path: pathlib.Path, tasks: Mapping[str, TaskEntry]) -> None:
    """Removes the tasks' folders that the index does not name; only folders that this module wrote."""
    for folder in _task_folders(path):
        named = folder.parent.name in tasks and folder == task_folder(
            path, folder.parent.name, tasks[folder.parent.name].fingerprint
        )
        if not named:
            shutil.rmtree(folder, ignore_errors=True)
            _remove_if_empty(folder.parent)


def _task_folders(path: pathlib.Path) -> Iterator[pathlib.Path]:
    for task in list(path.iterdir()):
        if task.is_dir():
            for folder in list(task.iterdir()):
                if folder.is_dir() and ((folder / CARD).exists() or folder.name.startswith(".")):
                    yield folder
