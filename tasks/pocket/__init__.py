"""The embedded benchmark: small tasks of the project's own in every family's genuine format."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iml.bench.card import TaskCard
from iml.errors import InputError

#: The committed files.
DATA = Path(__file__).parent / "data"


def catalogue(data_dir: Path = DATA) -> list[dict[str, Any]]:
    """The tasks of a data directory: card, format, files by split and the reader's options.

    Raises:
      InputError: there is no catalogue, or it is damaged.
    """
    path = data_dir / "catalogue.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        remedy = (
            "Leave the data directory empty for the embedded files, or run python -m tasks.pocket.generate"
        )
        raise InputError("there is no catalogue here", path=path, remedy=remedy) from error
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", path=path) from error


def register(data_dir: str | None = None) -> None:
    """Registers every task of the embedded benchmark; opens no data file but the catalogue.

    Args:
      data_dir: holds files as `tasks.pocket.generate` writes them; the committed ones if it is empty.
    """
    # Imported here because the generator and the readers do without SeqIO and TensorFlow.
    from iml import seqio_bridge

    home = Path(data_dir) if data_dir else DATA
    for entry in catalogue(home):
        splits = tuple(entry["files"])
        names = [*entry["files"].values(), *entry.get("more_files", ())]
        files = tuple(str(home / name) for name in dict.fromkeys(names))
        source = seqio_bridge.PythonSource(
            read=functools.partial(_read, home, entry), splits=splits, files=files
        )
        seqio_bridge.add_task(TaskCard.from_json(entry["card"]), source=source)


def _read(home: Path, entry: dict[str, Any], split: str) -> Iterator[dict[str, Any]]:
    from tasks.pocket import family_readers

    return (dataclasses.asdict(example) for example in family_readers.examples(home, entry, split))
