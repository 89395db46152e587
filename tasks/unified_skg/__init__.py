"""UnifiedSKG: questions, statements and dialogues about structured knowledge, each set in its own files.

A task is `unified_skg.<set>`; `tasks/definitions/unified_skg.json` says which files a set is read from and how a
structure and a text make an input. The input ends with a named cue ("SQL query:"), so no delimiter follows it
(OPT-IML, appendix C). All 21 sets of the paper are read, and E2E and WebNLG beside them.
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
from tasks.unified_skg import descriptions, queries, tables
from tasks.unified_skg.serialisation import Record

BENCHMARK = "unified_skg"
#: Characters of a table that an example shows by default; UnifiedSKG cuts tables to 1,024 tokens with the text.
MAX_TABLE_CHARS = 4000

Reader = Callable[[epath.Path, epath.Path, Mapping[str, Any]], Iterator[Record]]
READERS: Mapping[str, Reader] = {
    reader.__name__: reader
    for reader in (
        queries.compwebq,
        queries.conversation,
        queries.grailqa,
        queries.mtop,
        queries.spider,
        queries.sql2text,
        queries.webqsp,
        tables.fetaqa,
        tables.feverous,
        tables.hybridqa,
        tables.mmqa,
        tables.sqa,
        tables.tab_fact,
        tables.wikisql,
        tables.wikitq,
        descriptions.dart,
        descriptions.e2e,
        descriptions.kvret,
        descriptions.logic2text,
        descriptions.multiwoz,
        descriptions.totto,
        descriptions.webnlg,
    )
}


@functools.cache
def definitions() -> Mapping[str, Mapping[str, Any]]:
    """What is known of each set, by its name."""
    return load("unified_skg.json")["sets"]


@dataclasses.dataclass(frozen=True)
class StructuredTask:
    """One set: its files by split, relative to its folder, and how it is read.

    Attributes:
      name: a key of `definitions()`.
      home: the set's folder.
      files: the files of each split.
      max_table_chars: characters that an example's table may take; 0 for no limit.
    """

    name: str
    home: epath.Path
    files: layouts.Splits
    max_table_chars: int = MAX_TABLE_CHARS

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """The examples of a split as fields of `Example`, in the order of its files.

        Raises:
          InputError: a file is missing, damaged or empty.
        """
        definition = definitions()[self.name]
        options = {"max_table_chars": self.max_table_chars, "split": split}
        reader, paths, seen = READERS[definition["reader"]], self.files[split], set()
        for path in paths:
            before = len(seen)
            for record in layouts.guarded(reader(self.home, path, options), path):
                uid = record.uid if len(paths) == 1 else f"{layouts.label(self.home, path)}-{record.uid}"
                uid = uid if uid not in seen else f"{uid}-{len(seen)}"
                seen.add(uid)
                yield {"uid": uid, **fields(definition, record)}
            if len(seen) == before:
                raise InputError("holds no example", path=path)


def fields(definition: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """A record as fields of `Example`, its uid left out."""
    structure, text, references = record.structure, record.text, record.references
    if definition.get("lower"):
        structure, text = structure.lower(), text.lower()
        references = tuple(reference.lower() for reference in references)
    template = definition["template"] if structure else definition.get("without", definition["template"])
    return {
        "source": template.format(structure=structure, text=text),
        "target": references[0],
        "references": list(dict.fromkeys(references)),
        "candidates": definition.get("candidates", []),
        "metric_data": record.metric_data,
    }


def register(data_dir: str, max_table_chars: int = MAX_TABLE_CHARS) -> None:
    """Registers every set whose folder is there and holds the file of some split; opens no data file.

    Args:
      data_dir: holds `unified_skg/` or `unifiedskg/`, or is that folder: one folder a set.
      max_table_chars: characters that an example's table may take; rows that have least in common with the
        question are left out of longer ones. 0 for no limit.

    Raises:
      InputError: there is no set.
    """
    home = epath.Path(data_dir)
    home = layouts.first_folder(home, (BENCHMARK, "unifiedskg")) or home
    found = 0
    for name, definition in definitions().items():
        folder = layouts.first_folder(home, definition.get("folders", (name,)))
        splits = {} if folder is None else layouts.find_splits(folder, definition["files"])
        if not splits:
            continue
        found += 1
        also = [path for pattern in definition.get("also", ()) for path in layouts.find(folder, pattern)]
        used = dict.fromkeys(path for paths in (*splits.values(), also) for path in paths)
        task = StructuredTask(name, folder, splits, max_table_chars)
        source = seqio_bridge.PythonSource(read=task.read, splits=tuple(splits), files=tuple(used))
        seqio_bridge.add_task(card(name), source=source)
    if not found:
        remedy = f"Name the folder that holds {BENCHMARK}/spider, {BENCHMARK}/wikitq and so on as data_dir"
        raise InputError("no set of UnifiedSKG is here", path=home, remedy=remedy)


def card(name: str) -> TaskCard:
    """The card of a set."""
    definition = definitions()[name]
    return TaskCard(
        name=f"{BENCHMARK}.{name}",
        benchmark=BENCHMARK,
        category=canonical_category(BENCHMARK, definition["category"]),
        instruction_level="keywords",
        source=name,
        metrics=tuple(
            definition.get(
                "metrics", ("accuracy",) if "candidates" in definition else ("rouge_l", "exact_match")
            )
        ),
        licence=definition.get("licence", ""),
        url=definition["url"],
    )
