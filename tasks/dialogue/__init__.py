"""Dialogues: the source is empty, the whole conversation is the target, a turn a line (OPT-IML, table 6).

A task is `dialogue.<set>`. The paper's six sets (appendix A.2) are read in ParlAI's formats; Schema-Guided
Dialogue, Taskmaster, bAbI's dialogues and ChatterBot's corpus beside them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import layouts
from tasks.definitions import load
from tasks.dialogue import readers

BENCHMARK = "dialogue"

READERS: Mapping[str, Callable[[epath.Path], Iterator[tuple[str, list[str]]]]] = {
    reader.__name__: reader
    for reader in (
        readers.blended_skill_talk,
        readers.chatterbot,
        readers.multi_session_chat,
        readers.numbered,
        readers.parlai_text,
        readers.sgd,
        readers.taskmaster,
        readers.wizard_of_internet,
        readers.wizard_of_wikipedia,
    )
}


@functools.cache
def definitions() -> Mapping[str, Mapping[str, Any]]:
    """What is known of each set, by its name."""
    return load("dialogue.json")["sets"]


@dataclasses.dataclass(frozen=True)
class DialogueTask:
    """One set of dialogues.

    Attributes:
      reader: a key of `READERS`.
      home: the set's folder.
      files: the files of each split.
    """

    reader: str
    home: epath.Path
    files: layouts.Splits

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """The dialogues of a split as fields of `Example`; those in which nothing is said are left out.

        Raises:
          InputError: a file is missing, damaged or empty.
        """
        paths, seen = self.files[split], set()
        for path in paths:
            before = len(seen)
            for uid, turns in layouts.guarded(READERS[self.reader](path), path):
                text = "\n".join(filter(None, (turn.strip() for turn in turns)))
                if text:
                    uid = uid if len(paths) == 1 else f"{layouts.label(self.home, path)}-{uid}"
                    uid = uid if uid not in seen else f"{uid}-{len(seen)}"
                    seen.add(uid)
                    yield {"uid": uid, "source": "", "target": text}
            if len(seen) == before:
                raise InputError("holds no dialogue", path=path)


def register(data_dir: str) -> None:
    """Registers every set of which some file is there; opens no data file.

    Args:
      data_dir: holds `dialogue/`, or is that folder: one folder a set.

    Raises:
      InputError: there is no set.
    """
    home = epath.Path(data_dir)
    home = layouts.first_folder(home, (BENCHMARK,)) or home
    found = 0
    for name, definition in definitions().items():
        folder = layouts.first_folder(home, definition.get("folders", (name,)))
        if folder is None:
            continue
        if "each" in definition:
            paths = layouts.find(folder, definition["each"])
            tasks = {f"{name}_{path.name.partition('.')[0]}": {"train": (path,)} for path in paths}
        else:
            tasks = {name: layouts.find_splits(folder, definition["files"])}
        for task, splits in tasks.items():
            if splits:
                found += 1
                _add(task, definition, folder, splits)
    if not found:
        remedy = "Name the folder that holds dialogue/sgd, dialogue/wizard_of_wikipedia and so on as data_dir"
        raise InputError("no set of dialogues is here", path=home, remedy=remedy)


def _add(name: str, definition: Mapping[str, Any], home: epath.Path, splits: layouts.Splits) -> None:
    used = dict.fromkeys(path for paths in splits.values() for path in paths)
    read = DialogueTask(definition["reader"], home, splits).read
    source = seqio_bridge.PythonSource(read=read, splits=tuple(splits), files=tuple(used))
    card = TaskCard(
        name=f"{BENCHMARK}.{name}",
        benchmark=BENCHMARK,
        category=canonical_category(BENCHMARK, definition["category"]),
        source=name,
        licence=definition.get("licence", ""),
        url=definition["url"],
    )
    seqio_bridge.add_task(card, source=source)
