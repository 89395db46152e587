"""An index of the evaluation side's n-grams: what the contamination pass keeps in memory, and all it keeps.

Arrays in files, so that any number of processes share one copy. `distinct` n-grams are told apart by their
text, not by their hash alone, and every match with a training text is compared byte by byte.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from iml.bench.card import Example
from iml.bench.contamination_text import Grams, grams, ragged_arange, same_text
from iml.errors import InputError

#: Rows of a template that must be there before what most of them share counts as the template's own words.
_FEWEST_ROWS = 5
#: Bits of the filter for each distinct n-gram; about one in 32 strangers passes it.
_FILTER_BITS = 32
#: Characters that are hashed at once.
_BATCH = 1 << 18


@dataclasses.dataclass(frozen=True)
class Index:
    """The evaluation tasks' n-grams and where they stand.

    A *sequence* is one row's own text (source and target), or one instruction of a task; an *entry* is a
    distinct n-gram in one task.

    Attributes:
      n: words of an n-gram.
      bits: bits of the hashes.
      tasks: names of the evaluation tasks.
      uids: by task, its examples' "split/uid".
      hashes: uint64 [distinct], ascending.
      starts, lengths: int64, int32 [distinct], its place in `data`.
      data: uint8, the evaluation side's words.
      entry_bounds: int64 [distinct + 1]; the entries of a distinct n-gram.
      entry_task: int32 [entries].
      entry_shared: bool [entries], whether the n-gram belongs to the task's instruction or template.
      place_bounds: int64 [entries + 1]; the places of an entry.
      places: int32 [places], sequences that hold it.
      sequence_row: int32 [sequences, 3]: task, split (0 validation, 1 test, -1 instruction), row.
      example_bounds: int64 [sequences + 1]; the examples of a sequence.
      examples: int32, numbers of examples within their task.
      short: int32 [tasks], examples too short for any n-gram of their own.
      filter: uint8, one bit for each hash that some n-gram may have.
    """

    n: int
    bits: int
    tasks: tuple[str, ...]
    uids: tuple[tuple[str, ...], ...]
    hashes: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    data: np.ndarray
    entry_bounds: np.ndarray
    entry_task: np.ndarray
    entry_shared: np.ndarray
    place_bounds: np.ndarray
    places: np.ndarray
    sequence_row: np.ndarray
    example_bounds: np.ndarray
    examples: np.ndarray
    short: np.ndarray
    filter: np.ndarray

    def find(self, found: Grams) -> tuple[np.ndarray, np.ndarray]:
        """Which n-grams the index has: (int64 number in `found`, int64 number of the distinct n-gram)."""
        slots = _slots(found.hashes, len(self.filter), self.bits)
        passed = np.flatnonzero(
            (self.filter[slots >> np.uint64(3)] >> (slots & np.uint64(7)).astype(np.uint8)) & 1
        )
        hashes = found.hashes[passed]
        low = np.searchsorted(self.hashes, hashes, "left")
        hit = np.flatnonzero(self.hashes[np.minimum(low, len(self.hashes) - 1)] == hashes)
        low, passed = low[hit], passed[hit]
        # Distinct n-grams of one hash stand side by side.
        counts = np.searchsorted(self.hashes, hashes[hit], "right") - low
        ours, theirs = ragged_arange(low, counts), np.repeat(passed, counts)
        fits = self.lengths[ours] == found.lengths[theirs]
        ours, theirs = ours[fits], theirs[fits]
        same = same_text(self.data, self.starts[ours], found.data, found.starts[theirs], self.lengths[ours])
        return theirs[same], ours[same]

    @property
    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(getattr(self, name).nbytes for name in _ARRAYS)

    def save(self, folder: pathlib.Path) -> None:
        """Writes one file an array.

        Raises:
          OSError: the disk is full or not writable.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        told = {"n": self.n, "bits": self.bits, "tasks": self.tasks, "uids": self.uids}
        (folder / "index.json").write_text(json.dumps(told), encoding="utf-8")

    @classmethod
    def open(cls, folder: pathlib.Path) -> Self:
        """Opens what `save` wrote; the arrays stay in their files and are shared with other processes."""
        told = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        arrays: dict[str, Any] = {
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in _ARRAYS
        }
        return cls(told["n"], told["bits"], tuple(told["tasks"]), tuple(map(tuple, told["uids"])), **arrays)


_ARRAYS = tuple(
    field.name for field in dataclasses.fields(Index) if field.name not in ("n", "bits", "tasks", "uids")
)


class IndexBuilder:
    """Collects evaluation tasks one after the other, then makes the index."""

    def __init__(self, n: int = 13, template_share: float = 0.5, bits: int = 64):
        """
        Args:
          n: words of an n-gram.
          template_share: an n-gram in more than this share of a template's rows is the template's own.
          bits: bits of the hash; fewer than 64 only to make hashes collide.
        """
        if n < 1:
            raise InputError("an n-gram has at least one word", field="ngram")
        self._n, self._bits, self._template_share = n, bits, template_share
        self._tasks: list[str] = []
        self._uids: list[tuple[str, ...]] = []
        self._short: list[int] = []
        self._rows: list[tuple[int, int, int]] = []
        self._groups: list[int] = []
        self._group_sizes: list[int] = []
        self._examples: list[list[int]] = []
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._data: list[np.ndarray] = []
        self._bytes = 0

    def add(self, task: str, splits: Sequence[Sequence[Example]]) -> None:
        """Adds a task: the examples of its validation split, then of its test split."""
        number, first = len(self._tasks), len(self._rows)
        example_numbers: dict[str, int] = {}
        groups: dict[tuple[int, str], int] = {}
        instructions: dict[str, list[int]] = {}
        texts: list[str] = []
        for split, examples in enumerate(splits):
            for row, example in enumerate(examples):
                uid = f"{('validation', 'test')[split]}/{example.uid}"
                mine = example_numbers.setdefault(uid, len(example_numbers))
                group = groups.setdefault((split, example.template), len(self._group_sizes))
                if group == len(self._group_sizes):
                    self._group_sizes.append(0)
                self._group_sizes[group] += 1
                self._groups.append(group)
                self._rows.append((number, split, row))
                self._examples.append([mine])
                texts.append(body(example))
                if example.instruction:
                    instructions.setdefault(example.instruction, []).append(mine)
        for text, members in instructions.items():
            self._groups.append(-1)
            self._rows.append((number, -1, 0))
            self._examples.append(members)
            texts.append(text)
        self._tasks.append(task)
        self._uids.append(tuple(example_numbers))
        long = set()
        for start, found in hashed(texts, self._n, self._bits):
            sequences = found.text_ids + np.int32(first + start)
            for sequence in np.unique(sequences).tolist():
                if self._groups[sequence] >= 0:
                    long.add(self._examples[sequence][0])
            self._parts.append((found.hashes, sequences, found.starts + self._bytes, found.lengths))
            self._data.append(found.data)
            self._bytes += len(found.data)
        self._short.append(len(example_numbers) - len(long))

    def build(self) -> Index:
        """The index over all tasks added."""
        columns = zip(*self._parts, strict=True) if self._parts else ([], [], [], [])
        kinds = (np.uint64, np.int32, np.int64, np.int32)
        hashes, sequences, starts, lengths = (
            np.concatenate([np.zeros(0, kind), *column]) for column, kind in zip(columns, kinds, strict=True)
        )
        data = np.concatenate([np.zeros(0, np.uint8), *self._data])
        self._parts, self._data = [], []
        order = np.argsort(hashes, kind="stable")
        hashes, sequences, starts, lengths = hashes[order], sequences[order], starts[order], lengths[order]
        del order
        if _part_collisions(hashes, starts, lengths, data):
            # By hash, then text, then sequence: a stable sort keeps the sequences' order.
            order = _text_order(hashes, starts, lengths, data)
            hashes, sequences, starts, lengths = (
                hashes[order],
                sequences[order],
                starts[order],
                lengths[order],
            )
        rows = np.asarray(self._rows, np.int32).reshape(-1, 3)
        new = _is_new(hashes, starts, lengths, data)
        distinct = np.flatnonzero(new)
        tasks = rows[sequences, 0] if len(rows) else np.zeros(0, np.int32)
        new_entry = new.copy()
        new_entry[1:] |= tasks[1:] != tasks[:-1]
        entries = np.flatnonzero(new_entry)
        new_place = new_entry.copy()
        new_place[1:] |= sequences[1:] != sequences[:-1]
        places = np.flatnonzero(new_place)
        entry_of_place = np.searchsorted(entries, places, "right") - 1
        shared = self._shared(entry_of_place, sequences[places], len(entries))
        return Index(
            n=self._n,
            bits=self._bits,
            tasks=tuple(self._tasks),
            uids=tuple(self._uids),
            hashes=hashes[distinct],
            starts=starts[distinct],
            lengths=lengths[distinct],
            data=data,
            entry_bounds=np.append(np.searchsorted(entries, distinct), len(entries)),
            entry_task=tasks[entries],
            entry_shared=shared,
            place_bounds=np.append(np.searchsorted(places, entries), len(places)),
            places=sequences[places],
            sequence_row=rows,
            example_bounds=np.cumsum([0, *map(len, self._examples)]),
            examples=np.asarray([one for some in self._examples for one in some], np.int32),
            short=np.asarray(self._short, np.int32),
            filter=_make_filter(hashes[distinct], self._bits),
        )

    def _shared(self, entry: np.ndarray, sequences: np.ndarray, entries: int) -> np.ndarray:
        """Which entries stand in an instruction, or in most rows of some template."""
        groups = np.asarray(self._groups, np.int64)[sequences] if len(sequences) else np.zeros(0, np.int64)
        shared = np.zeros(entries, bool)
        shared[entry[groups < 0]] = True
        width = len(self._group_sizes)
        keys, counts = np.unique(entry[groups >= 0] * width + groups[groups >= 0], return_counts=True)
        sizes = np.asarray(self._group_sizes, np.int64)[keys % width] if width else counts
        most = (counts > self._template_share * sizes) & (sizes >= _FEWEST_ROWS)
        shared[keys[most] // max(1, width)] = True
        return shared


def body(example: Example) -> str:
    """An example's own text as prompts show it: source, a space, target."""
    return f"{example.source} {example.target}"


def hashed(texts: Sequence[str], n: int, bits: int = 64) -> Iterable[tuple[int, Grams]]:
    """The n-grams of many texts in batches that stay in the processor's cache: (first text, n-grams)."""
    start = size = 0
    for number, text in enumerate(texts):
        size += len(text)
        if size >= _BATCH or number == len(texts) - 1:
            yield start, grams(texts[start : number + 1], n, bits)
            start, size = number + 1, 0


def _is_new(hashes, starts, lengths, data) -> np.ndarray:
    """Whether each n-gram of a sorted array differs from the one before; bool."""
    new = np.ones(len(hashes), bool)
    alike = np.flatnonzero((hashes[1:] == hashes[:-1]) & (lengths[1:] == lengths[:-1]))
    same = same_text(data, starts[alike], data, starts[alike + 1], lengths[alike])
    new[alike[same] + 1] = False
    return new


def _part_collisions(hashes, starts, lengths, data) -> bool:
    """Whether different n-grams have the same hash."""
    return bool(np.any(_is_new(hashes, starts, lengths, data)[1:] & (hashes[1:] == hashes[:-1])))


def _text_order(hashes, starts, lengths, data) -> np.ndarray:
    """Order by hash, then text."""
    order = np.arange(len(hashes))
    edges = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])).tolist()
    for low, high in zip(edges, [*edges[1:], len(hashes)], strict=True):
        if high - low > 1:
            texts = [bytes(data[starts[i] : starts[i] + lengths[i]]) for i in range(low, high)]
            order[low:high] = low + np.asarray(sorted(range(high - low), key=texts.__getitem__))
    return order


def _make_filter(hashes: np.ndarray, bits: int) -> np.ndarray:
    size = 1 << max(10, (len(hashes) * _FILTER_BITS).bit_length() - 3)
    table = np.zeros(size, np.uint8)
    slots = _slots(hashes, size, bits)
    np.bitwise_or.at(table, slots >> np.uint64(3), np.uint8(1) << (slots & np.uint64(7)).astype(np.uint8))
    return table


def _slots(hashes: np.ndarray, size: int, bits: int) -> np.ndarray:
    """The bit of a filter of `size` bytes that stands for each hash: its topmost bits."""
    width = (size * 8).bit_length() - 1
    return hashes >> np.uint64(max(0, bits - width))
