"""Natural Instructions in its first schema, and the contributors' drafts of 2021, from which v2 came.

A task is `super_natural_instructions.v1_<file>` or `super_natural_instructions.drafts_2021_<file>`: the names
keep clear of v2's, which has tasks of the same numbers. Most of these tasks are in v2 as well; train on either.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import files, layouts
from tasks.definitions import load
from tasks.super_natural_instructions import BENCHMARK, read_split, task_name

#: The parts of an instruction that the first schema has, in the order in which they are written.
PARTS = ("Title", "Definition", "Emphasis & Caution", "Things to Avoid", "Prompt")

_NUMBER = re.compile(r"(?:sub)?task(\d+)_")
_REMEDY = "Name the folder that holds natural_instructions_v1/tasks or super_natural_instructions/drafts_2021"


def register(data_dir: str, parts: Sequence[str] = ("Definition",)) -> None:
    """Registers every task file; lists the folders and opens no file.

    Args:
      data_dir: holds `natural_instructions_v1/tasks/*.json`, `super_natural_instructions/drafts_2021/*.json`
        or both; or is the folder of either.
      parts: the parts of the first schema's instruction that a task is instructed with, some of `PARTS`;
        parts that a file has not, or that are "-", are left out.

    Raises:
      InputError: there are no task files, or there is no such part.
    """
    for part in parts:
        if part not in PARTS:
            remedy = f"Parts: {', '.join(PARTS)}"
            raise InputError(f"unknown part {part!r} of an instruction", field="parts", remedy=remedy)
    home = epath.Path(data_dir)
    v1 = layouts.first_folder(home, ("natural_instructions_v1/tasks", "tasks"))
    drafts = layouts.first_folder(home, (f"{BENCHMARK}/drafts_2021", "drafts_2021"))
    drafts = home if drafts is None and home.name == "drafts_2021" else drafts
    found = 0
    for prefix, folder, pattern in (("v1", v1, "subtask*.json"), ("drafts_2021", drafts, "task*.json")):
        for path in sorted(folder.glob(pattern)) if folder else ():
            found += 1
            name = f"{BENCHMARK}.{prefix}_{task_name(path.stem)}"
            seqio_bridge.add_task(
                functools.partial(_card, path, name),
                name=name,
                source=seqio_bridge.PythonSource(
                    read=functools.partial(read, path, tuple(parts)),
                    splits=("train", "validation"),
                    files=(path,),
                ),
            )
    if not found:
        raise InputError("no task files are here", path=home, remedy=_REMEDY)


def read(path: epath.Path, parts: Sequence[str], split: str) -> Iterator[dict[str, Any]]:
    """The instances of a split as fields of `Example`; a tenth is `validation`, as of v2's tasks.

    Raises:
      InputError: the file is damaged, or a field is missing or of the wrong type.
    """
    record = _record(path)
    texts = [files.field(record, part, str, path).strip() for part in parts if part in record]
    instruction = "\n".join(text for text in texts if text not in ("", "-"))
    if not instruction:
        raise InputError("has no instruction", path=path, field=parts[0])
    for fields in read_split(path, split, is_test=False):
        yield {**fields, "instruction": instruction}


def _card(path: epath.Path, name: str) -> TaskCard:
    record = _record(path)
    return TaskCard(
        name=name,
        benchmark=BENCHMARK,
        category=canonical_category(BENCHMARK, _category(path, record)),
        instruction_level="task",
        source=", ".join(record.get("Source") or [path.stem.split("_")[1]]),
        metrics=("rouge_l", "exact_match"),
        licence="Apache-2.0",
        url="https://github.com/allenai/natural-instructions-v1",
    )


def _category(path: epath.Path, record: Mapping[str, Any]) -> str:
    """By the task's number; of a task that v2 has not, the first that its file gives."""
    number = _NUMBER.match(path.name)
    if number and number[1] in _categories():
        return _categories()[number[1]]
    return next(iter(record.get("Categories") or ()), "Misc.")


@functools.cache
def _categories() -> Mapping[str, str]:
    return load("natural_instructions_v1.json")["categories"]


def _record(path: epath.Path) -> dict[str, Any]:
    record = files.json_value(path)
    if not isinstance(record, dict):
        raise InputError("must be a JSON object", path=path)
    return record
