"""What requests have in common: contexts that many rows share, and the shapes of the batches."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Collection, Sequence

import numpy as np

#: Tokens that a shared context costs beside its own: a batch of its own, seldom full.
_GROUP_PRICE = 256


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that begin with the same `shared` tokens."""

    shared: int
    members: tuple[int, ...]


def group_by_prefix(rows: Sequence[Sequence[int]], price: int = _GROUP_PRICE) -> list[Group]:
    """Groups of rows such that reading what each shares once, in place of once a row, saves the most tokens.

    The candidates are the nodes of the rows' prefix tree; the best ones, none above another, are found from
    the leaves up.

    Args:
      rows: tokens that may be shared.
      price: tokens that a group costs beside those it shares.

    Returns:
      The groups, each row in one of them; what shares nothing is in the last, of 0 shared tokens, if anything is.
    """
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    common = [_common(rows[a], rows[b]) for a, b in itertools.pairwise(order)]
    # Open nodes of the tree: depth, first row, tokens saved at best below it, and by which groups.
    stack: list[tuple[int, int, int, list[tuple[int, int, int]]]] = [(0, 0, 0, [])]
    for end, depth in enumerate([*common, 0]):
        first, saved, found = end, 0, []
        while stack and stack[-1][0] > depth:
            deep, first, below, groups = stack.pop()
            below, groups = below + saved, [*groups, *found]
            here = deep * (end - first) - price
            saved, found = (here, [(deep, first, end + 1)]) if here > below else (below, groups)
        if stack and stack[-1][0] == depth:
            top, start, below, groups = stack.pop()
            stack.append((top, start, below + saved, [*groups, *found]))
        else:
            stack.append((depth, first, saved, found))
    groups = [
        Group(shared, tuple(order[first:end]))
        for shared, first, end in (stack[0][3] if rows else [])
        if shared
    ]
    taken = {member for group in groups for member in group.members}
    rest = tuple(i for i in range(len(rows)) if i not in taken)
    return [*groups, *([Group(0, rest)] if rest else [])]


def choose_widths(
    sizes: Sequence[int], known: Collection[int], largest: int, price: int, step: int = 32
) -> list[int]:
    """Widths that rows of these sizes are padded to, ascending: few, and little padding.

    Args:
      known: widths that are compiled for, which cost nothing.
      largest: no width is above it; no size may be.
      price: padding, in tokens, that one width more must save.
      step: widths are multiples of it.
    """
    if not sizes:
        return []
    rounded = [min(largest, -(-size // step) * step) for size in sizes]
    edges = np.array(sorted({*rounded, *(width for width in known if width <= largest)}))
    counts = np.searchsorted(np.sort(rounded), edges, side="right")
    # best[j]: the least cost of all rows up to the edge j, which is a width; before[j]: the width before it.
    best, before = np.zeros(len(edges)), [-1] * len(edges)
    for j, edge in enumerate(edges):
        costs = np.array([0.0, *best[:j]]) + (counts[j] - np.array([0, *counts[:j]])) * edge
        before[j] = int(np.argmin(costs)) - 1
        best[j] = costs.min() + (0 if edge in known else price)
    last = int(np.searchsorted(edges, max(rounded)))
    last = min(range(last, len(edges)), key=lambda j: best[j])
    widths = []
    while last >= 0:
        widths.append(int(edges[last]))
        last = before[last]
    return widths[::-1]


def width_of(widths: Sequence[int], size: int) -> int:
    """The smallest of ascending widths that holds a size."""
    return widths[bisect.bisect_left(widths, size)]


def choose_rows(waiting: int, most: int, least: int, width: int, price: int) -> int:
    """Rows of the next batch: few sizes, and padded by no more tokens than compiling for another size is worth.

    Args:
      waiting: rows that are to be computed; those beyond the batch wait for the next one.
      most: rows of a full batch, a power of two times `least`.
      width: tokens of a row.
      price: padding, in tokens, that one size more must save.
    """
    count = most
    while count // 4 >= max(waiting, least):
        count //= 4
    while count > least and (count - waiting) * width > price:
        count //= 2
    return count


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    count = min(len(one), len(other))
    differ = np.flatnonzero(np.asarray(one[:count]) != np.asarray(other[:count]))
    return int(differ[0]) if len(differ) else count
