"""Filling rows: whole documents, chosen from a small pool so that little of a row stays empty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Documents that wait in a lane's pool, at least.
POOL = 32


def pool_is_full(sizes: Sequence[int], capacity: int, segments: int) -> bool:
    """Whether a pool of documents gives enough choice: `POOL` of them and twice what a row holds.

    Where documents are short the second condition decides, up to two rows' worth of segments.
    """
    if len(sizes) < POOL:
        return False
    return sum(sizes) >= 2 * capacity or len(sizes) >= max(POOL, 2 * segments)


def choose(sizes: Sequence[int], capacity: int, segments: int) -> list[int]:
    """Which waiting documents the next row takes: the oldest, and those that fill it best.

    The first is always taken, so no document waits for more rows than there are documents before it. Of the
    others the subset with the largest sum that fits is found exactly (0/1 knapsack over sums, keeping the
    fewest documents by which each sum is reached); among equals older documents are preferred.

    Args:
      sizes: positions that each waiting document takes, oldest first; each at most `capacity`.
      capacity: positions of the row.
      segments: documents that a row may hold.

    Returns:
      Indices into `sizes`, ascending, the first being 0.
    """
    room, places = capacity - sizes[0], min(segments, len(sizes)) - 1
    if room <= 0 or places <= 0:
        return [0]
    never = np.int16(len(sizes) + 1)
    # fewest[i, s]: the fewest of the documents 1..i whose sizes sum to s.
    fewest = np.full((len(sizes), room + 1), never, np.int16)
    fewest[0, 0] = 0
    for i, size in enumerate(sizes[1:], start=1):
        fewest[i] = fewest[i - 1]
        if size <= room:
            np.minimum(fewest[i, size:], fewest[i - 1, : room + 1 - size] + 1, out=fewest[i, size:])
    total = int(np.flatnonzero(fewest[-1] <= places)[-1])
    chosen = []
    for i in range(len(sizes) - 1, 0, -1):
        if fewest[i, total] < fewest[i - 1, total]:
            chosen.append(i)
            total -= sizes[i]
    return [0, *reversed(chosen)]
