"""Reads any file of the embedded benchmark, through the families' own readers where they have them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from iml.bench.card import Example
from iml.errors import InputError
from tasks.pocket import readers
from tasks.promptsource_rows import read_lines


def examples(data_dir: Path, entry: Mapping[str, Any], split: str) -> Iterator[Example]:
    """The examples of one catalogue entry and split.

    Raises:
      InputError: the entry's format is unknown, or its file is bad or empty.
    """
    if entry["format"] == "promptsource":
        yield from _promptsource(data_dir, entry, split)
    elif entry["format"] == "super_ni":
        yield from _super_ni(data_dir, entry, split)
    else:
        yield from readers.examples(data_dir, entry, split)


def _promptsource(data_dir: Path, entry: Mapping[str, Any], split: str) -> Iterator[Example]:
    # Imported here because it loads SeqIO, which the other formats do without.
    from tasks import promptsource

    templates = data_dir / entry["options"]["templates"]
    rows = [(f"{split}-{index}", row) for index, row in read_lines(data_dir / entry["files"][split])]
    rendered = promptsource._rendered(
        templates, promptsource._chosen(templates, True), rows, tolerant=split == "train", truncate=True
    )
    for fields in rendered:
        yield Example.from_json(fields)


def _super_ni(data_dir: Path, entry: Mapping[str, Any], split: str) -> Iterator[Example]:
    """Validation instances stand first in the file; their number is in the catalogue."""
    path = data_dir / entry["files"][split]
    try:
        task = json.loads(path.read_text("utf-8"))
        instances, definition = task["Instances"], "\n".join(task["Definition"])
        border = entry["options"]["validation"]
        for instance in instances[:border] if split == "validation" else instances[border:]:
            outputs = tuple(instance["output"])
            yield Example(instance["id"], instance["input"], outputs[0], outputs, instruction=definition)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"is not a Super-NaturalInstructions task: {error!r:.100}", path=path) from error
