"""Which row of which task is the n-th draw of a run: a function, not an iterator."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from iml.data.random import hash64, permute
from iml.errors import InputError


@dataclasses.dataclass(frozen=True, slots=True)
class Draw:
    """One draw.

    Attributes:
      number: its number, from 0, counted through all epochs.
      epoch: the epoch it falls in.
      task: index of the task in `StreamPlan.tasks`.
      row: row of that task's train split.
    """

    number: int
    epoch: int
    task: int
    row: int


@dataclasses.dataclass(frozen=True)
class StreamPlan:
    """All draws of a run, in order, found in constant time and memory.

    An epoch draws every task exactly as often as `counts` says, all tasks in one random order, another one
    each epoch. The rows of a task are walked without replacement, pass by pass: after any number of whole
    epochs all its rows have been drawn equally often, but for one draw.

    Attributes:
      counts: draws of each task in an epoch, all positive.
      rows: rows that each task has, of those that may be drawn.
      seed: seed of the order.
      within: which rows those are, int64 ascending, of the tasks of which not all may be drawn.
    """

    counts: Mapping[str, int]
    rows: Mapping[str, int]
    seed: int
    within: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not self.counts:
            raise InputError("a plan needs tasks")
        for name, count in self.counts.items():
            if count < 1 or self.rows.get(name, 0) < 1:
                raise InputError(f"task {name} has {count} draws of {self.rows.get(name, 0)} rows")
        for name, rows in self.within.items():
            if len(rows) != self.rows.get(name):
                raise InputError(f"task {name} has {len(rows)} rows to draw, not {self.rows.get(name)}")

    @functools.cached_property
    def tasks(self) -> tuple[str, ...]:
        """Task names, sorted; a task's number is its place here."""
        return tuple(sorted(self.counts))

    @functools.cached_property
    def epoch_size(self) -> int:
        """Draws in an epoch."""
        return sum(self.counts.values())

    @functools.cached_property
    def _count(self) -> np.ndarray:
        return np.array([self.counts[name] for name in self.tasks], np.int64)

    @functools.cached_property
    def _rows(self) -> np.ndarray:
        return np.array([self.rows[name] for name in self.tasks], np.int64)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self._count)

    def draw(self, number: int) -> Draw:
        """The draw with this number."""
        return self.draws([number])[0]

    def draws(self, numbers: Sequence[int] | np.ndarray) -> list[Draw]:
        """Many draws at once, in the order asked for; far quicker than one by one."""
        number = np.asarray(numbers, np.int64)
        epoch, place = np.divmod(number, self.epoch_size)
        keys = {e: hash64(self.seed, "epoch", e) for e in np.unique(epoch).tolist()}
        slot = permute(place, self.epoch_size, np.array([keys[e] for e in epoch.tolist()], np.uint64))
        task = np.searchsorted(self._ends, slot, side="right")
        # The slots of a task are its occurrences within the epoch.
        occurrence = epoch * self._count[task] + slot - (self._ends[task] - self._count[task])
        walk, step = np.divmod(occurrence, self._rows[task])
        walk_keys = [
            hash64(self.seed, self.tasks[t], w) for t, w in zip(task.tolist(), walk.tolist(), strict=True)
        ]
        row = permute(step, self._rows[task], np.array(walk_keys, np.uint64))
        for number_of_task in set(task.tolist()) if self.within else ():
            rows = self.within.get(self.tasks[number_of_task])
            if rows is not None:
                drawn = task == number_of_task
                row[drawn] = rows[row[drawn]]
        columns = (number.tolist(), epoch.tolist(), task.tolist(), row.tolist())
        return [Draw(*values) for values in zip(*columns, strict=True)]
