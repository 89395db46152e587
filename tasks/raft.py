"""RAFT: eleven real-world classification tasks, from github.com/oughtinc/raft-baselines. For evaluation only.

Fifty rows of a task have labels that are public. Ten of them are its exemplars and forty its test split, as in
HELM; the rows without labels are the split `unlabelled`, which is for predictions to hand in.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import files

BENCHMARK = "raft"
SETTINGS, TASK, TRAIN, UNLABELLED = (
    "prompt_construction_settings.jsonl",
    "task.json",
    "train.csv",
    "test_unlabeled.csv",
)

_DEFINITIONS = pathlib.Path(__file__).parent / "definitions" / "raft.json"


def register(data_dir: str) -> None:
    """Registers every task folder; lists the folder and opens no file.

    Args:
      data_dir: holds `raft/` or is that folder: `data/<task>/{train.csv,test_unlabeled.csv,task.json}` and
        `prompt_construction_settings.jsonl`.

    Raises:
      InputError: there is no task folder.
    """
    given = epath.Path(data_dir)
    home = next(
        (folder for folder in (given / "raft", given) if (folder / SETTINGS).exists()), given / "raft"
    )
    listed = sorted((home / "data").iterdir()) if (home / "data").is_dir() else []
    folders = [folder for folder in listed if (folder / TRAIN).exists()]
    if not folders:
        raise InputError(
            f"no folder <task>/{TRAIN} is here",
            path=home / "data",
            remedy=f"Copy data/ and {SETTINGS} of oughtinc/raft-baselines into raft/",
        )
    for folder in folders:
        task = folder.name
        has_unlabelled = (folder / UNLABELLED).exists()
        names = (TASK, TRAIN, UNLABELLED) if has_unlabelled else (TASK, TRAIN)
        seqio_bridge.add_task(
            TaskCard(
                name=f"{BENCHMARK}.{task}",
                benchmark=BENCHMARK,
                category=canonical_category(BENCHMARK, "RAFT"),
                instruction_level="task",
                source=f"raft/{task}",
                metrics=("macro_f1", "accuracy"),
                url="https://raft.elicit.org",
            ),
            source=seqio_bridge.PythonSource(
                read=functools.partial(read, os.fspath(folder), os.fspath(home / SETTINGS)),
                splits=("exemplars", "test", "unlabelled") if has_unlabelled else ("exemplars", "test"),
                files=tuple(
                    map(os.fspath, (*(folder / name for name in names), home / SETTINGS, _DEFINITIONS))
                ),
            ),
        )


def read(folder: str, settings: str, split: str) -> Iterator[dict[str, Any]]:
    """The rows of one split, in the format of the benchmark's example prompts, as fields of `Example`.

    Raises:
      InputError: a file is damaged, a column is missing, or a label is not among the task's.
    """
    home = epath.Path(folder)
    names, instruction = _settings(settings, home.name)
    labels = _labels(os.fspath(home / TASK))
    shown = [f"{number}. {label}" for number, label in enumerate(labels, start=1)]
    # The blank line after the labels is the benchmark's.
    instruction = "\n".join([instruction, "Possible labels:", *shown, ""])
    path = os.fspath(home / (UNLABELLED if split == "unlabelled" else TRAIN))
    rows = list(files.table(path))
    chosen = list(range(len(rows)))
    if split != "unlabelled":
        exemplars = [number for number in _exemplars() if number < len(rows)]
        chosen = exemplars if split == "exemplars" else [n for n in chosen if n not in set(exemplars)]
    for line, row in (rows[number] for number in chosen):
        for name in (*names, "ID", *(() if split == "unlabelled" else ("Label",))):
            if name not in row:
                raise InputError("the file has no such column", path=path, line=1, field=name)
        target = "" if split == "unlabelled" else row["Label"]
        if split != "unlabelled" and target not in labels:
            problem = f"{target!r:.60} is none of the task's labels"
            raise InputError(problem, path=path, line=line, field="Label", remedy=f"{TASK} names them")
        values = [f"{name}: {row[name].strip()}" for name in names]
        yield {
            "uid": row["ID"],
            "instruction": instruction,
            "source": "\n".join([*values, "Label:"]),
            "target": target,
            "candidates": labels,
        }


def _settings(path: str, task: str) -> tuple[list[str], str]:
    """A task's fields in the order in which a prompt shows them, and its instruction."""
    records = list(files.json_lines(path))
    if len(records) != 2:
        raise InputError("needs two lines: the fields of every task, and their instructions", path=path)
    (first, order), (second, instructions) = records
    names = files.strings(order, task, path, first)
    return names, files.field(instructions, task, str, path, second).strip()


def _labels(path: str) -> list[str]:
    columns = files.field(files.json_value(path), "label_columns", dict, path)
    return files.strings(columns, "Label", path)


@functools.cache
def _exemplars() -> tuple[int, ...]:
    return tuple(json.loads(_DEFINITIONS.read_text(encoding="utf-8"))["exemplars"])
