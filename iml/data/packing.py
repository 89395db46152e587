"""Filling rows: whole documents, chosen from a small pool so that little of a row stays empty."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from iml.errors import InputError

#: Documents that wait in a lane's pool, at least.
POOL = 32


@dataclasses.dataclass(frozen=True, slots=True)
class RowLimits:
    """What a row holds at most.

    Attributes:
      positions: places for tokens.
      segments: documents.
      targets: tokens to be learnt; None for as many as there are positions.
    """

    positions: int
    segments: int
    targets: int | None = None

    def __post_init__(self):
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"must be at least 1, not {value}", field=name)


def pool_is_full(sizes: Sequence[int], limits: RowLimits) -> bool:
    """Whether a pool of documents gives enough choice: `POOL` of them and twice what a row holds.

    Where documents are short the second condition decides, up to two rows' worth of segments.
    """
    if len(sizes) < POOL:
        return False
    return sum(sizes) >= 2 * limits.positions or len(sizes) >= max(POOL, 2 * limits.segments)


def choose(sizes: Sequence[int], targets: Sequence[int], limits: RowLimits) -> list[int]:
    """Which waiting documents the next row takes: the oldest, and those that fill it best.

    The first is always taken, so no document waits for more rows than there are documents before it. Of the
    others the subset with the largest sum of sizes that fits is found; among equals older documents are
    preferred. With one limit of positions and one of segments that is the best there is. A limit of targets,
    where it binds, is met by the subsets that use least of the other two limits, which may not be the best.

    Args:
      sizes: positions that each waiting document takes, oldest first; each at most `limits.positions`.
      targets: tokens to be learnt in each, from 1 to `limits.targets`.
      limits: what the row holds.

    Returns:
      Indices into `sizes`, ascending, the first being 0.
    """
    room = limits.positions - sizes[0]
    places = min(limits.segments, len(sizes)) - 1
    learnable = (limits.positions if limits.targets is None else limits.targets) - targets[0]
    if room <= 0 or places <= 0 or learnable <= 0:
        return [0]
    chosen = _fill(sizes, room)
    if len(chosen) > places:
        chosen = _fill_within(sizes, targets, room, places, sum(targets), bound=False)
    if limits.targets is not None and sum(targets[i] for i in chosen) > learnable:
        chosen = _fill_within(sizes, targets, room, places, learnable, bound=True)
    return [0, *chosen]


def _fill(sizes: Sequence[int], room: int) -> list[int]:
    """The subset of the documents after the first whose sum of sizes comes closest to `room`."""
    # Bit s of reached[i]: some of the documents 1..i have sizes that sum to s.
    within, reached = (1 << (room + 1)) - 1, [1]
    for size in sizes[1:]:
        reached.append((reached[-1] | (reached[-1] << size)) & within)
    total = reached[-1].bit_length() - 1
    chosen = []
    for i in range(len(sizes) - 1, 0, -1):
        if not reached[i - 1] >> total & 1:
            chosen.append(i)
            total -= sizes[i]
    return chosen[::-1]


def _fill_within(
    sizes: Sequence[int], targets: Sequence[int], room: int, places: int, learnable: int, bound: bool
) -> list[int]:
    """As `_fill`, of at most `places` documents that hold at most `learnable` targets.

    A 0/1 knapsack over sums of sizes, which reaches each sum at the least cost: the share that a document
    takes of the places, and if `bound` of the targets.
    """
    never = np.iinfo(np.int32).max // 2
    cost, count, learnt = np.full(room + 1, never, np.int32), *np.zeros((2, room + 1), np.int32)
    cost[0] = 0
    taken = np.zeros((len(sizes), room + 1), bool)
    for i in range(1, len(sizes)):
        size = sizes[i]
        if size > room or targets[i] > learnable:
            continue
        # Sums before this document, copied since the arrays change in place.
        dearer = cost[: room + 1 - size] + np.int32(learnable + targets[i] * places if bound else 1)
        better = np.less(dearer, cost[size:], out=taken[i, size:])
        np.copyto(cost[size:], dearer, where=better)
        np.copyto(count[size:], count[: room + 1 - size] + 1, where=better)
        np.copyto(learnt[size:], learnt[: room + 1 - size] + targets[i], where=better)
    fits = (cost < never) & (count <= places) & (learnt <= learnable)
    total = int(np.flatnonzero(fits)[-1])
    chosen = []
    for i in range(len(sizes) - 1, 0, -1):
        if taken[i, total]:
            chosen.append(i)
            total -= sizes[i]
    return chosen[::-1]
