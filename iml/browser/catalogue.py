"""What a store holds, as the browser lists it: tasks with their families, categories, levels and counts."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

from iml.bench.card import BENCHMARKS, TaskCard
from iml.bench.levels import LEVELS, SplitScheme, load_split_scheme, split_schemes
from iml.data.store import TASK_NAME, ExampleStore, SplitInfo
from iml.errors import InputError
from iml.markup import Markup, visible

#: Characters of a task's definition that can be searched.
DEFINITION = 600
#: Splits in the order in which the first that a task has is shown.
SPLITS = ("test", "validation", "train")


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A task as lists show it.

    Attributes:
      card: its card.
      splits: its splits, by name.
      definition: the beginning of its instruction, of its first input where that is part of it, or of its
        first target where it has neither.
      levels: level by the name of a split scheme.
    """

    card: TaskCard
    splits: Mapping[str, SplitInfo]
    definition: str
    levels: Mapping[str, str]

    @property
    def examples(self) -> int:
        return sum(info.examples for info in self.splits.values())

    @property
    def rows(self) -> int:
        return sum(info.rows for info in self.splits.values())

    @property
    def default_split(self) -> str:
        """The split that is shown first: one that is evaluated, if there is one."""
        return next((split for split in SPLITS if split in self.splits), next(iter(self.splits)))


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """All tasks of a store.

    Attributes:
      store: the store.
      scheme: name or path of the split scheme that is shown first.
    """

    store: ExampleStore
    scheme: str

    @functools.cached_property
    def schemes(self) -> Mapping[str, SplitScheme]:
        """Split schemes by name: the chosen one, then the package's others."""
        chosen = load_split_scheme(self.scheme)
        if not TASK_NAME.fullmatch(chosen.name):
            raise InputError(
                f"{chosen.name!r} cannot be the name of a page",
                path=self.scheme,
                field="name",
                remedy="Use letters, digits, _.:-",
            )
        return {chosen.name: chosen} | {
            name: load_split_scheme(name) for name in split_schemes() if name != chosen.name
        }

    @property
    def first_scheme(self) -> str:
        return next(iter(self.schemes))

    @functools.cached_property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by name, in order; reads one example of each."""
        return {name: self._task(name) for name in sorted(self.store.tasks)}

    @functools.cached_property
    def families(self) -> Mapping[str, Sequence[Task]]:
        """The tasks of each benchmark, in the order of the paper's table 1, then of the alphabet."""
        order = {name: place for place, name in enumerate(BENCHMARKS)}
        return _grouped(self.tasks, lambda task: task.card.benchmark, lambda key: (order.get(key, 99), key))

    @functools.cached_property
    def categories(self) -> Mapping[str, Sequence[Task]]:
        """The tasks of each category, in alphabetical order."""
        return _grouped(self.tasks, lambda task: task.card.category, lambda key: key)

    def levels(self, scheme: str, tasks: Sequence[Task]) -> dict[str, int]:
        """How many of the tasks have each level."""
        counts = dict.fromkeys(LEVELS, 0)
        for task in tasks:
            counts[task.levels[scheme]] = counts.get(task.levels[scheme], 0) + 1
        return counts

    def search_index(self) -> Markup:
        """What the search goes through, as JSON that may stand within a `script` element."""
        record = {
            "schemes": list(self.schemes),
            "tasks": [
                [visible(task.definition), visible(task.card.source), list(task.levels.values())]
                for task in self.tasks.values()
            ],
        }
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        # Within strings alone can these stand, and there an escape says the same.
        for character in "<>&\u2028\u2029":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return Markup(text)

    def _task(self, name: str) -> Task:
        entry = self.store.tasks[name]
        levels = {label: scheme.level(entry.card) for label, scheme in self.schemes.items()}
        task = Task(entry.card, entry.splits, "", levels)
        try:
            example = self.store.read(name, task.default_split, 0)
        except InputError:
            # The task's own page says what is wrong with its files.
            return task
        text = example.instruction or example.source or example.target
        return dataclasses.replace(task, definition=text[:DEFINITION])


def _grouped(tasks: Mapping[str, Task], key, order) -> dict[str, list[Task]]:
    groups: dict[str, list[Task]] = {}
    for task in tasks.values():
        groups.setdefault(key(task), []).append(task)
    return {name: groups[name] for name in sorted(groups, key=order)}
