"""Subsets of a mixture's tasks and examples, for studies of how results grow with them.

After OPT-IML, section 4.3 (tables 16 and 17): random sets of 16, 64, 256 and 1,024 tasks, each within the next,
and the tasks of the largest 4, 16 and 64 categories; those that the study is evaluated on as supervised are in
every one. Less of each task follows the studies of which arXiv 2308.10792 tells, sections 8.4 and 8.5.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import fnmatch
import hashlib
import heapq
from collections.abc import Mapping, Sequence
from fractions import Fraction

from iml.bench.card import TaskCard
from iml.bench.categories import categories
from iml.errors import InputError


@dataclasses.dataclass(frozen=True)
class TaskSubset:
    """A random set of tasks; a smaller set of the same seed and `always` lies within a larger one.

    A task's place in the order hangs on its name and the seed alone: further tasks in a store push others out
    of the set, but change nothing in their order.

    Attributes:
      size: tasks in the set, those of `always` counted in; all tasks where there are no more.
      always: patterns of the tasks that are in every set; None for the supervised tasks that the split scheme
        validates on.
      seed: another seed draws another set.
    """

    size: int
    always: Sequence[str] | None = None
    seed: int = 0

    def __post_init__(self):
        _check(self)

    def select(self, cards: Mapping[str, TaskCard], validated: Sequence[str] = ()) -> tuple[str, ...]:
        """Names of the set, sorted.

        Args:
          cards: what is chosen from.
          validated: names that are in every set if `always` is None.

        Raises:
          InputError: a pattern matches no task, or more tasks are always in than the set has.
        """
        first = set(validated) & cards.keys() if self.always is None else _matching(self, cards)
        _check_room(self, len(first), "tasks")
        others = sorted(cards.keys() - first, key=self._place)
        return tuple(sorted([*first, *others[: self.size - len(first)]]))

    def _place(self, name: str) -> tuple[bytes, str]:
        text = f"{self.seed} {name}".encode()
        return hashlib.blake2b(text, digest_size=8).digest(), name


@dataclasses.dataclass(frozen=True)
class CategorySubset:
    """The tasks of the categories that have the most tasks; ties go by name.

    Attributes:
      size: categories, those of `always` counted in; all where there are no more.
      always: categories that are always in, if they have tasks; None for those of the supervised tasks that
        the split scheme validates on.
    """

    size: int
    always: Sequence[str] | None = None

    def __post_init__(self):
        _check(self)

    def select(self, cards: Mapping[str, TaskCard], validated: Sequence[str] = ()) -> tuple[str, ...]:
        """Names of the categories' tasks, sorted; arguments as `TaskSubset.select`.

        Raises:
          InputError: a category is neither the taxonomy's nor a task's, or more are always in than there may be.
        """
        tasks = collections.Counter(card.category for card in cards.values())
        if self.always is None:
            first = {cards[name].category for name in validated if name in cards}
        else:
            for category in self.always:
                if category not in tasks and category not in categories():
                    raise _unknown(self, category, {**tasks, **dict.fromkeys(categories())})
            first = tasks.keys() & set(self.always)
        _check_room(self, len(first), "categories")
        others = sorted(tasks.keys() - first, key=lambda category: (-tasks[category], category))
        chosen = first | set(others[: self.size - len(first)])
        return tuple(sorted(name for name, card in cards.items() if card.category in chosen))


@dataclasses.dataclass(frozen=True)
class ExampleSubset:
    """How many examples of each task may be drawn; those of a smaller set lie within a larger one's.

    One of `share` and `total` is given. Which examples a task's are hangs on the seed, the task's name, its
    number of examples and their places in the store.

    Attributes:
      share: fraction of every task's examples, rounded, but at least one.
      total: so many over all tasks, in proportion to the mixture's rates; a task gets no more than it has, and
        may get none.
      seed: another seed draws others.
    """

    share: float | None = None
    total: int | None = None
    seed: int = 0

    def __post_init__(self):
        if (self.share is None) == (self.total is None):
            raise InputError("needs one of the two", field="ExampleSubset.share, ExampleSubset.total")
        if self.share is not None and not 0 < self.share <= 1:
            raise InputError(f"must be above 0 and at most 1, not {self.share}", field="ExampleSubset.share")
        if self.total is not None and self.total < 1:
            raise InputError(f"must be at least 1, not {self.total}", field="ExampleSubset.total")

    def sizes(self, examples: Mapping[str, int], rates: Mapping[str, int]) -> dict[str, int]:
        """Examples of each task that are in the set, for the tasks with a rate.

        Args:
          examples: how many each task has.
          rates: what `total` is shared out by, positive.
        """
        if self.share is not None:
            share = Fraction(str(self.share))
            return {name: max(1, int(share * examples[name] + Fraction(1, 2))) for name in rates}
        # Webster's method, one example after the other: unlike with largest remainders, nobody has fewer of more.
        sizes = dict.fromkeys(rates, 0)
        waiting = [(-rate, name) for name, rate in rates.items() if examples[name]]
        heapq.heapify(waiting)
        for _ in range(self.total):
            if not waiting:
                break
            name = waiting[0][1]
            sizes[name] += 1
            if sizes[name] < examples[name]:
                heapq.heapreplace(waiting, (-rates[name] / (2 * sizes[name] + 1), name))
            else:
                heapq.heappop(waiting)
        return sizes


def _check(subset: TaskSubset | CategorySubset) -> None:
    owner = type(subset).__name__
    if subset.size < 1:
        raise InputError(f"must be at least 1, not {subset.size}", field=f"{owner}.size")
    if isinstance(subset.always, str):
        raise InputError("must be a list, not one string", field=f"{owner}.always")
    if subset.always is not None:
        object.__setattr__(subset, "always", tuple(subset.always))


def _check_room(subset: TaskSubset | CategorySubset, always: int, what: str) -> None:
    if always > subset.size:
        raise InputError(
            f"{always} {what} are always in, which leaves no room for {subset.size}",
            field=f"{type(subset).__name__}.size",
            remedy=f"Choose {always} or more, or name fewer in {type(subset).__name__}.always",
        )


def _matching(subset: TaskSubset, cards: Mapping[str, TaskCard]) -> set[str]:
    matching: set[str] = set()
    for pattern in subset.always or ():
        found = {name for name in cards if fnmatch.fnmatchcase(name, pattern)}
        if not found:
            raise _unknown(subset, pattern, cards)
        matching |= found
    return matching


def _unknown(subset: TaskSubset | CategorySubset, name: str, known: Mapping[str, object]) -> InputError:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return InputError(
        f"{name!r} names nothing that could be trained on",
        field=f"{type(subset).__name__}.always",
        remedy=f"Did you mean {close[0]!r}?" if close else None,
    )
