"""MetaICL's edition of CrossFit's and UnifiedQA's data sets: JSON lines with the options of each example.

A file is `data/<task>/<task>_<k>_<seed>_<split>.jsonl` with rows of task, input, output and options. A task is
`crossfit.metaicl_<task>`: it belongs to CrossFit's family, beside whose files it can be prepared.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.errors import InputError
from tasks import crossfit, files, layouts


def register(data_dir: str, sample: str = "") -> None:
    """Registers every task folder that is there; opens no data file.

    Args:
      data_dir: holds `metaicl/data/`, or is that folder: one folder a task.
      sample: "<k>_<seed>", the few-shot sample to read where a task has several; "" for the one with most files.

    Raises:
      InputError: there is no task.
    """
    home = epath.Path(data_dir)
    home = layouts.first_folder(home, ("metaicl/data", "data")) or home
    found = 0
    for folder in sorted(home.iterdir()) if home.exists() else ():
        splits = crossfit.find_samples(folder, sample, "jsonl")
        if splits:
            found += 1
            task = JsonTask(folder.name, splits)
            name = crossfit.task_name(f"metaicl_{folder.name}")
            source = seqio_bridge.PythonSource(
                read=task.read, splits=tuple(splits), files=tuple(splits.values())
            )
            make_card = functools.partial(crossfit.card, folder.name, name, task.has_options)
            seqio_bridge.add_task(make_card, name=name, source=source)
    if not found:
        raise InputError(
            "no task of MetaICL is here",
            path=home,
            remedy="Name the folder that holds metaicl/data/<task>/<task>_<k>_<seed>_train.jsonl as data_dir",
        )


@dataclasses.dataclass(frozen=True)
class JsonTask:
    """One task with its files by split."""

    name: str
    splits: Mapping[str, epath.Path]

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """The examples of a split as fields of `Example`; the uid is the line.

        Raises:
          InputError: the file is damaged or empty, or a row's output is not among its options.
        """
        path, line = self.splits[split], 0
        for line, record in files.json_lines(path):
            source, target = (files.field(record, name, str, path, line) for name in ("input", "output"))
            options = files.field(record, "options", list, path, line)
            if options:
                options = list(dict.fromkeys(files.strings(record, "options", path, line)))
                if target not in options:
                    raise InputError(f"{target!r:.60} is not an option", path=path, line=line, field="output")
            yield {
                "uid": str(line),
                "source": crossfit.instructed(self.name, source),
                "target": target,
                "candidates": options if len(options) > 1 else [],
            }
        if not line:
            raise InputError("holds no example", path=path)

    def has_options(self) -> bool:
        """Whether the first row has options to choose from."""
        _, record = next(iter(files.json_lines(next(iter(self.splits.values())))), (0, {}))
        return len(record.get("options") or ()) > 1
