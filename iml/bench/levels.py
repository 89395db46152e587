"""Generalisation levels: what a model may have seen of a task when it is evaluated on it.

After OPT-IML, section 2.3: of a *fully held-out* category nothing is trained on; a *partially held-out* task is
not trained on, though others of its category may be; a *supervised* task is trained on (its train split).
A split scheme gives every task its level. Schemes are data: the package's, FLAN's leave-one-cluster-out
ones, which are derived from its clusters, and any JSON file of the user's.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import importlib.resources
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from iml.bench.card import TaskCard
from iml.bench.categories import with_broader
from iml.errors import InputError

LEVELS = ("fully_held_out", "partially_held_out", "supervised")
#: What a task may be used for: training, choosing between models, and reporting.
SETS = ("train", "validation", "test")
#: Benchmarks that exist to evaluate: no scheme makes their tasks supervised.
EVALUATION_ONLY = ("mmlu", "bbh", "raft", "opt_tasks", "zero_shot_cot")

_DEFINITIONS = "iml.bench.definitions"
_LEAVE_ONE_OUT = "flan_leave_one_out"
_LISTS = ("fully_held_out_categories", "validation_tasks", "test_tasks")


@dataclasses.dataclass(frozen=True)
class SplitScheme:
    """Assigns every task one level.

    Decided in this order, the first that speaks: the task's own name in `levels_by_task`; its category, if it
    or the broader one that it is a kind of is fully held out; the first pattern of `levels_by_task` that
    matches its name; `levels_by_category`; supervised. A pattern thus never brings a task of a fully held-out
    category back into training. What would make a task of `EVALUATION_ONLY` supervised leaves it partially
    held out.

    Attributes:
      name: the scheme's name.
      fully_held_out_categories: categories of which nothing is trained on.
      levels_by_task: level by task name or by pattern of names (`fnmatch`).
      levels_by_category: level by category.
      validation_tasks: names or patterns of the tasks that validate; they may be supervised ones.
      test_tasks: those that the scheme's results are reported on. Without either list, all tasks that are not
        supervised do both.
    """

    name: str
    fully_held_out_categories: tuple[str, ...] = ()
    levels_by_task: Mapping[str, str] = dataclasses.field(default_factory=dict)
    levels_by_category: Mapping[str, str] = dataclasses.field(default_factory=dict)
    validation_tasks: tuple[str, ...] = ()
    test_tasks: tuple[str, ...] = ()

    def level(self, card: TaskCard) -> str:
        """The card's level, one of `LEVELS`."""
        level = self._level(card)
        if level == "supervised" and card.benchmark in EVALUATION_ONLY:
            return "partially_held_out"
        return level

    def sets(self, card: TaskCard) -> tuple[str, ...]:
        """Which of `SETS` the task belongs to; a task that is merely left out of training belongs to none."""
        supervised = self.level(card) == "supervised"
        listed = self.validation_tasks or self.test_tasks
        return tuple(
            name
            for name, inside in (
                ("train", supervised),
                ("validation", _matches(card.name, self.validation_tasks) if listed else not supervised),
                ("test", _matches(card.name, self.test_tasks) if listed else not supervised),
            )
            if inside
        )

    def _level(self, card: TaskCard) -> str:
        if card.name in self.levels_by_task:
            return self.levels_by_task[card.name]
        kinds = with_broader(card.category)
        if any(category in self.fully_held_out_categories for category in kinds):
            return "fully_held_out"
        for matches, level in self._patterns:
            if matches(card.name):
                return level
        for category in kinds:
            if category in self.levels_by_category:
                return self.levels_by_category[category]
        return "supervised"

    @functools.cached_property
    def _patterns(self) -> tuple[tuple[Any, str], ...]:
        items = self.levels_by_task.items()
        return tuple(
            (re.compile(fnmatch.translate(pattern)).match, level)
            for pattern, level in items
            if set(pattern) & set("*?[")
        )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Raises InputError for unknown fields, wrong types, unknown levels and supervised evaluation sets."""
        fields = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(record) - fields - {"comment"})
        if unknown:
            remedy = f"Known fields: comment, {', '.join(sorted(fields))}"
            raise InputError("unknown field of a split scheme", field=unknown[0], remedy=remedy)
        if not isinstance(record.get("name"), str):
            raise InputError("a split scheme needs a name", field="name")
        for name in _LISTS:
            items = record.get(name, [])
            if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
                raise InputError("must be a list of strings", field=name)
        for name in ("levels_by_task", "levels_by_category"):
            levels = record.get(name, {})
            if not isinstance(levels, dict):
                raise InputError("must map names to levels", field=name)
            for key, level in levels.items():
                if level not in LEVELS:
                    remedy = f"Levels: {', '.join(LEVELS)}"
                    raise InputError(f"no such level: {level!r}", field=f"{name}.{key}", remedy=remedy)
        for task, level in record.get("levels_by_task", {}).items():
            if level == "supervised" and task.partition(".")[0] in EVALUATION_ONLY:
                raise InputError(
                    f"{task.partition('.')[0]} is for evaluation alone",
                    field=f"levels_by_task.{task}",
                    remedy="Leave it fully or partially held out",
                )
        return cls(
            name=record["name"],
            levels_by_task=dict(record.get("levels_by_task", {})),
            levels_by_category=dict(record.get("levels_by_category", {})),
            **{name: tuple(record.get(name, ())) for name in _LISTS},
        )


def split_schemes() -> tuple[str, ...]:
    """Names of the schemes that come with the package as files; `leave_one_out_schemes` has the others."""
    names = (path.name for path in importlib.resources.files(_DEFINITIONS).iterdir())
    return tuple(
        sorted(
            name[len("splits_") : -len(".json")] for name in names if fnmatch.fnmatch(name, "splits_*.json")
        )
    )


def leave_one_out_schemes() -> tuple[str, ...]:
    """Names of the schemes that leave out one of FLAN's clusters: "flan_leave_one_out:sentiment"."""
    return tuple(f"{_LEAVE_ONE_OUT}:{cluster}" for cluster in flan_clusters()["clusters"])


@functools.cache
def flan_clusters() -> Mapping[str, Any]:
    """FLAN's clusters: the tasks of each, what of other families is like them, and pairs that are too close."""
    file = importlib.resources.files(_DEFINITIONS) / "flan_clusters.json"
    return json.loads(file.read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=32)
def load_split_scheme(name_or_path: str | os.PathLike[str]) -> SplitScheme:
    """A scheme of the package by its name, or any other by the path of its JSON file.

    Raises:
      InputError: no such scheme, or a damaged file.
    """
    name = str(name_or_path)
    if name in leave_one_out_schemes():
        return _leave_one_out(name.partition(":")[2])
    path = pathlib.Path(name_or_path)
    if path.suffix != ".json":
        if name not in split_schemes():
            known = leave_one_out_schemes() if name.startswith(_LEAVE_ONE_OUT) else split_schemes()
            raise InputError(
                f"no split scheme {name!r}",
                remedy=f"Schemes: {', '.join(known)}, {_LEAVE_ONE_OUT}:<cluster>, or the path of a .json file",
            )
        path = importlib.resources.files(_DEFINITIONS) / f"splits_{name}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise InputError("must be a JSON object")
        return SplitScheme.from_json(record)
    except OSError as error:
        raise InputError(f"cannot read the split scheme ({error.strerror})", path=str(path)) from error
    except InputError as error:
        raise InputError(error.problem, path=str(path), field=error.field, remedy=error.remedy) from error
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg}", path=str(path), line=error.lineno) from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", path=str(path)) from error


def _leave_one_out(left_out: str) -> SplitScheme:
    """FLAN's rule: train on all clusters but one and those related to it, and evaluate on that one.

    FLAN's own tasks go by their cluster. Tasks of the other families go by category and name: those of the
    cluster's categories are held out with it, whatever the training tasks of FLAN that share the category.
    """
    clusters = flan_clusters()["clusters"]
    related = {name for pair in flan_clusters()["related"] if left_out in pair for name in pair} - {left_out}
    levels, others = {}, {}
    for name, cluster in clusters.items():
        level = "partially_held_out" if name in related else "supervised"
        level = "fully_held_out" if name == left_out else level
        levels |= {f"flan.{task}": level for task in cluster["tasks"]}
        if level != "supervised":
            others |= dict.fromkeys(cluster["others"], level)
    return SplitScheme(
        name=f"{_LEAVE_ONE_OUT}:{left_out}",
        fully_held_out_categories=tuple(clusters[left_out]["categories"]),
        levels_by_task=levels | others,
        levels_by_category={
            category: "partially_held_out"
            for name in sorted(related)
            for category in clusters[name]["categories"]
        },
        test_tasks=tuple(f"flan.{task}" for task in clusters[left_out]["tasks"]),
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
