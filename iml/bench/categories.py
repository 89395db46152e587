"""The bench's taxonomy: one list of categories, and which of them each family's own clusters belong to.

Super-NaturalInstructions' 76 categories are the base; the other families add a few that it lacks. Held-out
levels and averages go by these names, so two families' tasks of one kind must carry the same one.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping

from iml.errors import InputError


@functools.cache
def _definitions() -> Mapping[str, Mapping]:
    file = importlib.resources.files("iml.bench.definitions") / "categories.json"
    return json.loads(file.read_text(encoding="utf-8"))


@functools.cache
def categories() -> tuple[str, ...]:
    """Every category, in alphabetical order."""
    return tuple(_definitions()["categories"])


@functools.cache
def _merges(benchmark: str) -> Mapping[str, str]:
    """A benchmark's own names, case-folded, to categories; the taxonomy's names stand for themselves."""
    merges = {name.casefold(): name for name in categories()}
    for family in ("*", benchmark):
        for name, category in _definitions()["merges"].get(family, {}).items():
            merges[name.casefold()] = category
    return merges


def canonical_category(benchmark: str, name: str) -> str:
    """The category of what a benchmark calls `name`; case and the underscores of file names do not matter.

    Raises:
      InputError: the taxonomy has no such category, nor has the benchmark's merge table.
    """
    key = name.strip().replace("_", " ").casefold()
    category = _merges(benchmark).get(key)
    if category is None:
        raise InputError(
            f"{benchmark} has an unknown category {name!r}",
            field="category",
            remedy="Add it to iml/bench/definitions/categories.json, or merge it into one of its categories",
        )
    return category
