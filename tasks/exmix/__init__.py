"""ExMix: the ten sources that OPT-IML keeps of it, each in the files that its authors release.

ExMix itself is not released. A task is `exmix.<set>`; `tasks/definitions/exmix.json` holds its folder, its
files and the sentence before each input (OPT-IML, section 2.2 and appendix C).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import layouts
from tasks.definitions import load
from tasks.exmix import readers

BENCHMARK = "exmix"


@functools.cache
def definitions() -> Mapping[str, Mapping[str, Any]]:
    """What is known of each set, by its name."""
    return load("exmix.json")["sets"]


@dataclasses.dataclass(frozen=True)
class TextTask:
    """One set.

    Attributes:
      name: a key of `definitions()`.
      home: the set's folder.
      files: the files of each split; one that holds several splits stands under each.
    """

    name: str
    home: epath.Path
    files: layouts.Splits

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """The examples of a split as fields of `Example`, in the order of its files; the uid is the place there.

        Raises:
          InputError: a file is missing or damaged, or the split has no example.
        """
        definition, paths = definitions()[self.name], self.files[split]
        reader, instruction = readers.READERS[definition["reader"]], definition["instruction"]
        empty = True
        for path in paths:
            label = "" if len(paths) == 1 else f"{_label(path)}-"
            for record in layouts.guarded(reader(path, split), path):
                empty = False
                yield {
                    "uid": f"{label}{record.uid}",
                    "source": f"{instruction}\n\n{record.text}" if instruction else record.text,
                    "target": record.references[0],
                    "references": list(record.references),
                    "candidates": list(record.candidates) or definition.get("candidates", []),
                }
        if empty:
            raise InputError(f"holds no example of the split {split!r}", path=paths[0])


def _label(path: epath.Path) -> str:
    """A file's name: GPT-2's files differ in what stands before the first dot and after it."""
    return path.name.removesuffix(".gz").rpartition(".")[0]


def register(data_dir: str) -> None:
    """Registers every set whose folder is there and holds the file of some split; opens no data file.

    Args:
      data_dir: holds `exmix/cogs/`, `exmix/shakespeare/` and so on, or is the folder `exmix/`.

    Raises:
      InputError: there is no set.
    """
    home = epath.Path(data_dir)
    home = home / BENCHMARK if (home / BENCHMARK).exists() else home
    found = 0
    for name, definition in definitions().items():
        for folder in (home / folder for folder in definition["folders"]):
            splits = layouts.find_splits(folder, definition["files"]) if folder.exists() else {}
            if not splits:
                continue
            found += 1
            also = [path for pattern in definition.get("also", ()) for path in layouts.find(folder, pattern)]
            used = dict.fromkeys(path for paths in (*splits.values(), also) for path in paths)
            task = TextTask(name, folder, splits)
            source = seqio_bridge.PythonSource(read=task.read, splits=tuple(splits), files=tuple(used))
            seqio_bridge.add_task(card(name), source=source)
            break
    if not found:
        remedy = f"Name the folder that holds {BENCHMARK}/cogs, {BENCHMARK}/shakespeare and so on as data_dir"
        raise InputError("no set of ExMix is here", path=home, remedy=remedy)


def card(name: str) -> TaskCard:
    """The card of a set."""
    definition = definitions()[name]
    ranked = "candidates" in definition or definition["reader"] == "intents"
    exact = canonical_category(BENCHMARK, definition["cluster"]) != "Style Transfer"
    return TaskCard(
        name=f"{BENCHMARK}.{name}",
        benchmark=BENCHMARK,
        category=canonical_category(BENCHMARK, definition["cluster"]),
        instruction_level="keywords",
        source=definition.get("parent", name),
        metrics=("accuracy",) if ranked else ("exact_match", "rouge_l") if exact else ("rouge_l",),
        url=definition["url"],
    )
