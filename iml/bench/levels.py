"""Generalisation levels: what a model may have seen of a task when it is evaluated on it.

After OPT-IML, section 2.3: of a *fully held-out* category nothing is trained on; a *partially held-out* task is
not trained on, though others of its category may be; a *supervised* task is trained on (its train split).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import importlib.resources
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Self

from iml.bench.card import EVALUATION_ONLY, TaskCard
from iml.errors import InputError

LEVELS = ("fully_held_out", "partially_held_out", "supervised")

_DEFINITIONS = "iml.bench.definitions"


@dataclasses.dataclass(frozen=True)
class SplitScheme:
    """Assigns every task one level.

    Decided in this order, the first that speaks: the task's own name in `levels_by_task`; its category, if it
    is fully held out; the first pattern of `levels_by_task` that matches its name; `levels_by_category`;
    supervised. A pattern thus never brings a task of a fully held-out category back into training.

    Attributes:
      name: the scheme's name.
      fully_held_out_categories: categories of which nothing is trained on.
      levels_by_task: level by task name or by pattern of names (`fnmatch`).
      levels_by_category: level by category.
    """

    name: str
    fully_held_out_categories: tuple[str, ...] = ()
    levels_by_task: Mapping[str, str] = dataclasses.field(default_factory=dict)
    levels_by_category: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def level(self, card: TaskCard) -> str:
        """The card's level, one of `LEVELS`; a benchmark that only evaluates has no supervised tasks."""
        level = self._assigned(card)
        return "partially_held_out" if level == "supervised" and card.benchmark in EVALUATION_ONLY else level

    def _assigned(self, card: TaskCard) -> str:
        if card.name in self.levels_by_task:
            return self.levels_by_task[card.name]
        if card.category in self.fully_held_out_categories:
            return "fully_held_out"
        for pattern, level in self._patterns:
            if fnmatch.fnmatchcase(card.name, pattern):
                return level
        return self.levels_by_category.get(card.category, "supervised")

    @functools.cached_property
    def _patterns(self) -> tuple[tuple[str, str], ...]:
        items = self.levels_by_task.items()
        return tuple((pattern, level) for pattern, level in items if set(pattern) & set("*?["))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Raises InputError for unknown fields, wrong types and unknown levels."""
        fields = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(record) - fields - {"comment"})
        if unknown:
            remedy = f"Known fields: comment, {', '.join(sorted(fields))}"
            raise InputError("unknown field of a split scheme", field=unknown[0], remedy=remedy)
        if not isinstance(record.get("name"), str):
            raise InputError("a split scheme needs a name", field="name")
        categories = record.get("fully_held_out_categories", [])
        if not isinstance(categories, list) or not all(isinstance(item, str) for item in categories):
            raise InputError("must be a list of strings", field="fully_held_out_categories")
        for name in ("levels_by_task", "levels_by_category"):
            levels = record.get(name, {})
            if not isinstance(levels, dict):
                raise InputError("must map names to levels", field=name)
            for key, level in levels.items():
                if level not in LEVELS:
                    remedy = f"Levels: {', '.join(LEVELS)}"
                    raise InputError(f"no such level: {level!r}", field=f"{name}.{key}", remedy=remedy)
        return cls(
            record["name"],
            tuple(categories),
            dict(record.get("levels_by_task", {})),
            dict(record.get("levels_by_category", {})),
        )


def split_schemes() -> tuple[str, ...]:
    """Names of the schemes that come with the package."""
    names = (path.name for path in importlib.resources.files(_DEFINITIONS).iterdir())
    return tuple(
        sorted(
            name[len("splits_") : -len(".json")] for name in names if fnmatch.fnmatch(name, "splits_*.json")
        )
    )


@functools.lru_cache(maxsize=8)
def load_split_scheme(name_or_path: str | os.PathLike[str]) -> SplitScheme:
    """A scheme of the package by its name, or any other by the path of its JSON file.

    Raises:
      InputError: no such scheme, or a damaged file.
    """
    path = pathlib.Path(name_or_path)
    if path.suffix != ".json":
        if str(name_or_path) not in split_schemes():
            raise InputError(
                f"no split scheme {str(name_or_path)!r}",
                remedy=f"Schemes: {', '.join(split_schemes())}, or the path of a .json file",
            )
        path = importlib.resources.files(_DEFINITIONS) / f"splits_{name_or_path}.json"
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
