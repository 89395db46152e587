"""Small example stores from plain Python data, for tests."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from iml.bench.card import Example, TaskCard
from iml.data import store as store_lib


def make_store(path: pathlib.Path, tasks: Mapping[str, Mapping[str, Any]]) -> store_lib.ExampleStore:
    """Writes a store at `path / "store"` and opens it.

    Args:
      path: a temporary folder.
      tasks: by task name, `{"card": {...fields of TaskCard...}, "train": [...], "test": [...]}`. The card may
        be left out, as may any of its fields: the benchmark is what stands before the first dot, the category
        "Other". Each example is an `Example`, a mapping of its fields (uid optional: the row), or a pair
        (source, target).
    """
    entries = {}
    for name, definition in tasks.items():
        fields = {"name": name, "benchmark": name.partition(".")[0], "category": "Other"}
        card = TaskCard(**{**fields, **definition.get("card", {})})
        splits = {split: to_examples(rows) for split, rows in definition.items() if split != "card"}
        rows = [repr(example) for examples in splits.values() for example in examples]
        fingerprint = store_lib.hash_strings(repr(card), *splits, *rows)
        entries[name] = store_lib.write_task(path / "store", card, splits, fingerprint)
    store_lib.write_index(path / "store", entries, {})
    return store_lib.ExampleStore(path / "store")


def to_examples(rows: Iterable[Any]) -> list[Example]:
    """Examples from `Example`s, mappings of fields, or (source, target) pairs."""
    examples = []
    for number, row in enumerate(rows):
        if isinstance(row, tuple):
            row = {"source": row[0], "target": row[1]}
        if not isinstance(row, Example):
            row = Example.from_json({"uid": str(number), **row})
        examples.append(row)
    return examples
