"""The bench's taxonomy: one list of categories, and which of them each family's own clusters belong to.

Super-NaturalInstructions' 76 categories are the base; the other families add some that it lacks, of which
many are a kind of one that it has (`broader`). Held-out levels and averages go by these names, so two families'
tasks of one kind must carry the same one. All of it is data: `iml/bench/definitions/categories.json`.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from collections.abc import Mapping
from types import MappingProxyType

from iml.errors import InputError

_SEPARATORS = re.compile(r"[\s_-]+")


@functools.cache
def _definitions() -> Mapping[str, Mapping]:
    file = importlib.resources.files("iml.bench.definitions") / "categories.json"
    return json.loads(file.read_text(encoding="utf-8"))


@functools.cache
def categories() -> tuple[str, ...]:
    """Every category, in alphabetical order."""
    return tuple(_definitions()["categories"])


@functools.cache
def broader() -> Mapping[str, str]:
    """The category that a category is a kind of ("Table Question Answering": "Question Answering")."""
    return MappingProxyType(_definitions()["broader"])


def with_broader(category: str) -> tuple[str, ...]:
    """A category, then the one that it is a kind of, if any; a user's own category stands alone."""
    above = broader().get(category)
    return (category, above) if above else (category,)


@functools.cache
def merges(benchmark: str) -> Mapping[str, str]:
    """A family's own cluster names, as it writes them, to categories; none for one that brings no clusters."""
    return MappingProxyType(dict(_definitions()["merges"].get(benchmark, {})))


@functools.cache
def _lookup(benchmark: str) -> Mapping[str, str]:
    """Every name that a benchmark may use, normalised, to categories; the taxonomy's stand for themselves."""
    names = {_normalise(name): name for name in categories()}
    for family in ("*", benchmark):
        names |= {_normalise(name): category for name, category in merges(family).items()}
    return names


def canonical_category(benchmark: str, name: str) -> str:
    """The category of what a benchmark calls `name`; case, hyphens and underscores do not matter.

    Raises:
      InputError: the taxonomy has no such category, nor has the benchmark's merge table.
    """
    category = _lookup(benchmark).get(_normalise(name))
    if category is None:
        raise InputError(
            f"{benchmark} has an unknown category {name!r}",
            field="category",
            remedy="Add it to iml/bench/definitions/categories.json, or merge it into one of its categories",
        )
    return category


def _normalise(name: str) -> str:
    return _SEPARATORS.sub(" ", name).strip().casefold()
