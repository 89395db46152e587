"""Which rows of a task's train split remain where only some of its examples may be drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from iml.data.demonstrations import instance
from iml.data.random import hash64, permute
from iml.data.store import ExampleStore

#: Rows read together.
_CHUNK = 1024


def rows_within(store: ExampleStore, task: str, size: int, seed: int) -> np.ndarray:
    """The rows of `size` of a task's examples; those of a smaller size lie within a larger one's.

    A task with a row for each example is not read. Of others all renderings of an example stay or go together,
    for which their uids are read, once through the split; where the store counts renderings as examples, or
    keeps a pool of fewer, so many examples stay as make the same share.

    Args:
      size: examples that stay, from 1 to as many as the store counts.
      seed: another one chooses others.

    Returns:
      int64, ascending.

    Raises:
      InputError: the task's file is damaged.
    """
    info, key = store.tasks[task].splits["train"], hash64(seed, "examples", task)
    if info.rows == info.examples and len(info.templates) <= 1:
        return np.sort(permute(np.arange(size), info.rows, key))
    places: dict[str, int] = {}
    of_row = np.empty(info.rows, np.int64)
    for start in range(0, info.rows, _CHUNK):
        rows = range(start, min(start + _CHUNK, info.rows))
        for row, example in zip(rows, store.read_many(task, "train", rows), strict=True):
            of_row[row] = places.setdefault(instance(example), len(places))
    kept = max(1, (2 * size * len(places) + info.examples) // (2 * info.examples))
    return np.flatnonzero(np.isin(of_row, permute(np.arange(kept), len(places), key)))


def fingerprint(within: Mapping[str, np.ndarray]) -> str:
    """Hash over the rows that remain, by task."""
    digest = hashlib.blake2b(digest_size=16)
    for task, rows in sorted(within.items()):
        digest.update(f"{task} {len(rows)} ".encode() + np.asarray(rows, "<i8").tobytes())
    return digest.hexdigest()
