"""Reads any file of the embedded benchmark, through the families' own readers where they have them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from iml.bench.card import Example
from tasks.pocket import readers

# The two large families' own readers are imported where they are used: they load SeqIO, the others do not.


def examples(data_dir: Path, entry: Mapping[str, Any], split: str) -> Iterator[Example]:
    """The examples of one catalogue entry and split.

    Raises:
      InputError: the entry's format is unknown, or its file is bad or empty.
    """
    if entry["format"] == "promptsource":
        yield from map(Example.from_json, _promptsource(data_dir, entry, split))
    elif entry["format"] == "super_ni":
        yield from map(Example.from_json, _super_ni(data_dir, entry, split))
    else:
        yield from readers.examples(data_dir, entry, split)


def _promptsource(data_dir: Path, entry: Mapping[str, Any], split: str) -> Iterator[dict[str, Any]]:
    from tasks import promptsource
    from tasks.promptsource.rows import find_rows

    path = data_dir / entry["options"]["templates"]
    folder = path.parent.name
    task = promptsource.TemplateTask(folder, entry["card"]["category"], path, find_rows(data_dir, folder))
    return task.read(split)


def _super_ni(data_dir: Path, entry: Mapping[str, Any], split: str) -> Iterator[dict[str, Any]]:
    """Validation instances stand first in the file; their number is in the catalogue."""
    from tasks import super_natural_instructions

    instances = super_natural_instructions.read_instances(data_dir / entry["files"][split])
    border = entry["options"]["validation"]
    return (
        itertools.islice(instances, border)
        if split == "validation"
        else itertools.islice(instances, border, None)
    )
