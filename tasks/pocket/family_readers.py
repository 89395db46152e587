"""Reads any file of the embedded benchmark, through the families' own readers where they have them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from iml.bench.card import Example
from tasks.pocket import readers

# The families' own readers are imported where they are used: they load SeqIO, the others do not.


def examples(data_dir: Path, entry: Mapping[str, Any], split: str) -> Iterator[Example]:
    """The examples of one catalogue entry and split.

    Raises:
      InputError: the entry's format is unknown, or its file is bad or empty.
    """
    family = FAMILIES.get(entry["format"])
    if family is not None:
        yield from map(Example.from_json, family(data_dir, entry, split))
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


def _plain_text(data_dir: Path, entry: Mapping[str, Any], split: str) -> Iterator[dict[str, Any]]:
    from tasks.pretraining import TextTask

    return TextTask(entry["options"]["reader"], *_located(data_dir, entry)).read(split)


def _dialogue(data_dir: Path, entry: Mapping[str, Any], split: str) -> Iterator[dict[str, Any]]:
    from tasks.dialogue import DialogueTask

    return DialogueTask(entry["options"]["reader"], *_located(data_dir, entry)).read(split)


def _located(
    data_dir: Path, entry: Mapping[str, Any]
) -> tuple[epath.Path, dict[str, tuple[epath.Path, ...]]]:
    """The folder of a set and its files by split."""
    home = epath.Path(data_dir)
    return home, {split: (home / name,) for split, name in entry["files"].items()}


#: The formats that are read by a family's own reader.
FAMILIES: Mapping[str, Callable[[Path, Mapping[str, Any], str], Iterator[dict[str, Any]]]] = {
    "promptsource": _promptsource,
    "super_ni": _super_ni,
    "plain_text": _plain_text,
    "dialogue": _dialogue,
}
