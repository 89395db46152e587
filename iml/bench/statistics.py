"""The bench's own Table 1: clusters, tasks, examples, prompts a task and prompt lengths, beside the paper's.

Made from what a store's index says of its tasks alone; lengths are sums that were taken while preparing.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self

from iml.bench.card import BENCHMARKS, Example, TaskCard
from iml.bench.levels import EVALUATION_ONLY, SETS, SplitScheme
from iml.bench.mixing import EXTRA_SOURCES

#: The unit of length that needs no vocabulary.
WORDS = "words"
#: Splits in which a task of the validation or the test set is evaluated, the first that it has.
_EVALUATED_ON = {"validation": ("validation", "test"), "test": ("test", "validation")}


@dataclasses.dataclass(frozen=True, slots=True)
class Lengths:
    """Sums over the prompts of a split, from which a mean and a deviation follow.

    Attributes:
      prompts: how many were measured.
      total: sum of their lengths.
      squares: sum of the squares.
    """

    prompts: int = 0
    total: int = 0
    squares: int = 0

    def __add__(self, other: Self) -> Lengths:
        return Lengths(self.prompts + other.prompts, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float | None:
        return self.total / self.prompts if self.prompts else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the prompts themselves, not an estimate from a sample."""
        if not self.prompts:
            return None
        return math.sqrt(self.prompts * self.squares - self.total**2) / self.prompts


def count_words(example: Example) -> int:
    """Words of an example's prompt: of its instruction and its source, parted by white space."""
    return len(example.instruction.split()) + len(example.source.split())


class SplitLike(Protocol):
    """What is read of a split, e.g. `iml.data.store.SplitInfo`."""

    rows: int
    examples: int
    templates: tuple[str, ...]
    lengths: Mapping[str, Lengths]


class EntryLike(Protocol):
    """What is read of a task, e.g. `iml.data.store.TaskEntry`."""

    card: TaskCard
    splits: Mapping[str, SplitLike]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
      clusters: categories that occur.
      tasks: tasks; subtypes such as MMLU's subjects count each.
      examples: underlying examples, whatever the number of their prompts.
      prompts: mean number of templates of a task.
      mean: mean length of a prompt, or None if none was measured in the unit.
      deviation: standard deviation of that length.
      rows: prompts in the store; the paper has no such column.
    """

    clusters: int
    tasks: int
    examples: int
    prompts: float
    mean: float | None
    deviation: float | None
    rows: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Statistics:
    """The table of a store.

    Attributes:
      families: a row for each family, in the order of the paper's table, then the others.
      sets: a row for each of `iml.bench.levels.SETS` that has tasks.
      scheme: the split scheme that makes the sets.
      unit: what lengths are counted in.
    """

    families: Mapping[str, Row]
    sets: Mapping[str, Row]
    scheme: str
    unit: str

    def to_json(self) -> dict[str, Any]:
        """The table, and the paper's for the rows that it has."""

        def told(rows: Mapping[str, Row]) -> dict[str, Any]:
            return {name: dataclasses.asdict(row) for name, row in rows.items()}

        families, sets = paper()
        return {
            "unit": self.unit,
            "split_scheme": self.scheme,
            "families": told(self.families),
            "sets": told(self.sets),
            "paper": {"families": told(families), "sets": told(sets)},
        }


@functools.cache
def paper() -> tuple[Mapping[str, Row], Mapping[str, Row]]:
    """The paper's rows: of the families, and of the sets."""
    file = importlib.resources.files("iml.bench.definitions") / "table1.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    families, sets = (
        {name: Row(**row) for name, row in record[kind].items()} for kind in ("families", "sets")
    )
    return families, sets


def statistics(tasks: Iterable[EntryLike], scheme: SplitScheme, unit: str = WORDS) -> Statistics:
    """The table of some tasks.

    A family's row is over all splits of its tasks, as the paper's are over the original downloads. A set's row is
    over the tasks that the scheme puts there: over train splits, and for evaluation over the split that
    such a task is evaluated on. Pre-training text and dialogue, which have no prompts, are in no set.

    Args:
      unit: a unit of length in which the splits were measured.
    """
    tasks = sorted(tasks, key=lambda entry: entry.card.name)
    found = {entry.card.benchmark for entry in tasks}
    known = [name for name in (*BENCHMARKS, *EVALUATION_ONLY) if name in found]
    families = {
        name: _row([(entry, tuple(entry.splits)) for entry in tasks if entry.card.benchmark == name], unit)
        for name in [*known, *sorted(found.difference(known))]
    }
    members: dict[str, list[tuple[EntryLike, tuple[str, ...]]]] = {name: [] for name in SETS}
    for entry in tasks:
        for name in scheme.sets(entry.card) if entry.card.benchmark not in EXTRA_SOURCES else ():
            wanted = _EVALUATED_ON.get(name, (name,))
            split = next((split for split in wanted if split in entry.splits), None)
            if split is not None:
                members[name].append((entry, (split,)))
    sets = {name: _row(entries, unit) for name, entries in members.items() if entries}
    return Statistics(families, sets, scheme.name, unit)


def _row(members: Iterable[tuple[EntryLike, tuple[str, ...]]], unit: str) -> Row:
    """A row over tasks, each with the splits of it that count."""
    members = list(members)
    infos = [entry.splits[split] for entry, splits in members for split in splits]
    templates = [
        max(1, len({name for split in splits for name in entry.splits[split].templates}))
        for entry, splits in members
    ]
    lengths = sum((info.lengths.get(unit, Lengths()) for info in infos), Lengths())
    return Row(
        clusters=len({entry.card.category for entry, _ in members}),
        tasks=len(members),
        examples=sum(info.examples for info in infos),
        prompts=sum(templates) / len(templates),
        mean=lengths.mean,
        deviation=lengths.deviation,
        rows=sum(info.rows for info in infos),
    )
