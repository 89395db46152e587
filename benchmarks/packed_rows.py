"""Packed rows of random tokens for the benchmarks, with document lengths like those of OPT-IML Bench."""

from __future__ import annotations

import itertools

import numpy as np

#: Logarithms of the lengths, in tokens, are normal with this mean and deviation: the mean length is about 270.
MEAN, DEVIATION = 5.2, 0.9


def make_segments(rows: int, length: int, seed: int = 0) -> np.ndarray:
    """Segment ids [rows, length], int32: full rows, the last document of each cut off at its end."""
    random = np.random.default_rng(seed)
    ids = np.zeros((rows, length), np.int32)
    for row in ids:
        start, number = 0, 1
        while start < length:
            end = start + int(np.clip(random.lognormal(MEAN, DEVIATION), 16, length))
            row[start:end] = number
            start, number = end, number + 1
    return ids


def make_batch(
    rows: int, length: int, vocabulary: int, targets: float, segments: int = 64, seed: int = 0
) -> dict[str, np.ndarray]:
    """A batch as iml's engine makes it.

    Args:
      targets: share of each document's tokens that are learnt, at its end. Below 1 the batch has
        `target_positions`.
      segments: documents that a row may hold.
    """
    random = np.random.default_rng(seed)
    ids = make_segments(rows, length, seed)
    shape = (rows, length)
    batch = {"segment_ids": ids, "tokens": random.integers(4, vocabulary, shape).astype(np.int32)}
    batch["positions"] = np.zeros(shape, np.int32)
    batch["targets"] = np.zeros(shape, np.int32)
    batch["loss_weights"] = np.zeros(shape, np.float32)
    batch["task_ids"] = np.zeros((rows, segments), np.int32)
    for row in range(rows):
        edges = [*np.flatnonzero(np.diff(ids[row], prepend=0)), length]
        for start, end in itertools.pairwise(edges):
            batch["positions"][row, start:end] = np.arange(end - start)
            batch["targets"][row, start : end - 1] = batch["tokens"][row, start + 1 : end]
            learnt = round((end - start - 1) * targets)
            batch["loss_weights"][row, end - 1 - learnt : end - 1] = 1.0
    if targets < 1:
        add_target_positions(batch)
    return batch


def add_target_positions(batch: dict[str, np.ndarray]) -> None:
    """Gives a batch the positions of its targets [rows, most of a row], -1 where there is none."""
    places = [np.flatnonzero(weights) for weights in batch["loss_weights"]]
    budget = max(map(len, places))
    padded = [np.pad(place, (0, budget - len(place)), constant_values=-1) for place in places]
    batch["target_positions"] = np.stack(padded).astype(np.int32)


def visible_pairs(segment_ids: np.ndarray) -> int:
    """Pairs (query, key) that see each other, over all rows."""
    total = 0
    for row in segment_ids:
        sizes = np.diff([*np.flatnonzero(np.diff(row, prepend=-1)), row.size])
        total += int((sizes * (sizes + 1) // 2).sum())
    return total
