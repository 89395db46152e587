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
      place_bounds: int64 [entries + 1]; the places of an entry.
      places: int32 [places], sequences that hold it.
      place_own: bool [places], whether it is the sequence's own: no word of it is the template's.
      sequence_row: int32 [sequences, 3]: task, split (0 validation, 1 test, -1 instruction), row.
      example_bounds: int64 [sequences + 1]; the examples of a sequence.
      examples: int32, numbers of examples within their task.
      without: int32 [tasks], examples without any n-gram of their own.
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
    place_bounds: np.ndarray
    places: np.ndarray
    place_own: np.ndarray
    sequence_row: np.ndarray
    example_bounds: np.ndarray
    examples: np.ndarray
    without: np.ndarray
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

    def __init__(self, n: int = 13, template_share: float = 0.5, template_words: int = 5, bits: int = 64):
        """
        Args:
          n: words of an n-gram.
          template_share: words that more than this share of a template's rows have are the template's.
          template_words: how many of them must stand in a row.
          bits: bits of the hash; fewer than 64 only to make hashes collide.
        """
        for name, words in (("ngram", n), ("template_words", template_words)):
            if words < 1:
                raise InputError("must be at least one word", field=name)
        self._n, self._bits = n, bits
        self._template_share, self._template_words = template_share, template_words
        self._tasks: list[str] = []
        self._uids: list[tuple[str, ...]] = []
        self._rows: list[tuple[int, int, int]] = []
        self._examples: list[list[int]] = []
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._data: list[np.ndarray] = []
        self._bytes = 0

    def add(self, task: str, splits: Sequence[Sequence[Example]]) -> None:
        """Adds a task: the examples of its validation split, then of its test split."""
        number, first = len(self._tasks), len(self._rows)
        example_numbers: dict[str, int] = {}
        groups: dict[tuple[int, str], int] = {}
        group_of: list[int] = []
        instructions: dict[str, list[int]] = {}
        texts: list[str] = []
        for split, examples in enumerate(splits):
            for row, example in enumerate(examples):
                uid = f"{('validation', 'test')[split]}/{example.uid}"
                mine = example_numbers.setdefault(uid, len(example_numbers))
                group_of.append(groups.setdefault((split, example.template), len(groups)))
                self._rows.append((number, split, row))
                self._examples.append([mine])
                texts.append(body(example))
                if example.instruction:
                    instructions.setdefault(example.instruction, []).append(mine)
        for text, members in instructions.items():
            self._rows.append((number, -1, 0))
            self._examples.append(members)
            texts.append(text)
        self._tasks.append(task)
        self._uids.append(tuple(example_numbers))
        common = self._common(texts, np.asarray(group_of, np.int64))
        for start, found in hashed(texts, self._n, self._bits):
            sequences = found.text_ids + np.int32(start)
            batch = texts[start : start + 1 + int(found.text_ids[-1])] if len(sequences) else []
            own = ~_touched(found, grams(batch, self._template_words), common)
            own &= sequences < len(group_of)
            starts = found.starts + self._bytes
            self._parts.append((found.hashes, sequences + np.int32(first), starts, found.lengths, own))
            self._data.append(found.data)
            self._bytes += len(found.data)

    def _common(self, texts: Sequence[str], group_of: np.ndarray) -> np.ndarray:
        """Hashes of the runs of words that stand in an instruction or in most rows of a template, ascending."""
        batches = [
            (found.hashes, found.text_ids + start) for start, found in hashed(texts, self._template_words)
        ]
        hashes, rows = (np.concatenate(column) for column in zip(*batches, strict=True))
        told = rows >= len(group_of)
        runs, numbers = np.unique(hashes[~told], return_inverse=True)
        width = len(group_of)
        places = np.unique(numbers * width + rows[~told])  # Each run once a row.
        groups = int(group_of.max()) + 1
        keys, counts = np.unique(places // width * groups + group_of[places % width], return_counts=True)
        sizes = np.bincount(group_of)[keys % groups]
        most = (counts > self._template_share * sizes) & (sizes >= _FEWEST_ROWS)
        return np.unique(np.concatenate([hashes[told], runs[keys[most] // groups]]))

    def build(self) -> Index:
        """The index over all tasks added."""
        kinds = (np.uint64, np.int32, np.int64, np.int32, np.bool_)
        columns = [[np.zeros(0, kind)] for kind in kinds]
        for part in self._parts:
            for column, array in zip(columns, part, strict=True):
                column.append(array)
        hashes, sequences, starts, lengths, own = map(np.concatenate, columns)
        data = np.concatenate([np.zeros(0, np.uint8), *self._data])
        self._parts, self._data = [], []
        order = np.argsort(hashes, kind="stable")
        if _has_collision(hashes[order], starts[order], lengths[order], data):
            # By hash, then text, then sequence: a stable sort keeps the sequences' order.
            order = order[_text_order(hashes[order], starts[order], lengths[order], data)]
        hashes, sequences, starts, lengths = hashes[order], sequences[order], starts[order], lengths[order]
        rows = np.asarray(self._rows, np.int32).reshape(-1, 3)
        tasks = rows[sequences, 0]
        new = _is_new(hashes, starts, lengths, data)
        distinct = np.flatnonzero(new)
        new[1:] |= tasks[1:] != tasks[:-1]
        entries = np.flatnonzero(new)
        new[1:] |= sequences[1:] != sequences[:-1]
        places = np.flatnonzero(new)
        place_own = np.logical_or.reduceat(own[order], places) if len(places) else own
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
            place_bounds=np.append(np.searchsorted(places, entries), len(places)),
            places=sequences[places],
            place_own=place_own,
            sequence_row=rows,
            example_bounds=np.cumsum([0, *map(len, self._examples)]),
            examples=np.asarray([one for some in self._examples for one in some], np.int32),
            without=self._without(np.unique(sequences[places][place_own])),
            filter=_make_filter(hashes[distinct], self._bits),
        )

    def _without(self, own: np.ndarray) -> np.ndarray:
        """By task, how many examples are in none of the sequences that have n-grams of their own."""
        having: list[set[int]] = [set() for _ in self._tasks]
        for sequence in own.tolist():
            having[self._rows[sequence][0]].update(self._examples[sequence])
        return np.asarray(
            [len(uids) - len(some) for uids, some in zip(self._uids, having, strict=True)], np.int32
        )


def _touched(found: Grams, runs: Grams, common: np.ndarray) -> np.ndarray:
    """Whether each n-gram has a word of a common run; bool. Both are of the same texts, each in order."""
    if not len(common):
        return np.zeros(len(found.hashes), bool)
    at = np.minimum(np.searchsorted(common, runs.hashes), len(common) - 1)
    these = common[at] == runs.hashes
    starts, ends = runs.starts[these], runs.starts[these] + runs.lengths[these]
    begun = np.searchsorted(starts, found.starts + found.lengths, "left")
    return begun > np.searchsorted(ends, found.starts, "right")


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


def _has_collision(hashes, starts, lengths, data) -> bool:
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
