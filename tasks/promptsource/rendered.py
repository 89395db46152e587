"""P3: PromptSource's prompts as T0's authors rendered them: JSON lines of prompt and completion, a file a template.

A file is `p3_rendered/<data set>_<template>.jsonl[.gz]`; the files of one data set make the task
`promptsource.<data set>_p3`, with a template each. Nothing says which rows of two templates render the same
example, so every row counts as one. The `<|endoftext|>` that ends a completion is dropped, and with it a row whose
completion is nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.errors import InputError
from tasks import files, layouts
from tasks.definitions import load
from tasks.promptsource import category, task_name

_END = "<|endoftext|>"
_URL = "https://huggingface.co/datasets/bigscience/P3"


def register(data_dir: str) -> None:
    """Registers a task for every data set of which a template was rendered; opens no data file.

    Args:
      data_dir: holds `p3_rendered/`, or is that folder.

    Raises:
      InputError: there are no files, or a file's name begins with no data set that has a category.
    """
    home = epath.Path(data_dir)
    home = layouts.first_folder(home, ("p3_rendered",)) or home
    tasks: dict[str, dict[str, epath.Path]] = {}
    for path in [*sorted(home.glob("*.jsonl")), *sorted(home.glob("*.jsonl.gz"))]:
        folder, template = _parted(path)
        tasks.setdefault(folder, {}).setdefault(template, path)
    if not tasks:
        remedy = "Name the folder that holds p3_rendered/<data set>_<template>.jsonl.gz as data_dir"
        raise InputError("no rendered prompts are here", path=home, remedy=remedy)
    for folder, templates in sorted(tasks.items()):
        task = RenderedTask(folder, templates)
        source = seqio_bridge.PythonSource(task.read, ("train",), tuple(templates.values()))
        seqio_bridge.add_task(task.card(), source=source)


@dataclasses.dataclass(frozen=True)
class RenderedTask:
    """One data set with the files of its templates."""

    folder: str
    templates: Mapping[str, epath.Path]

    def card(self) -> TaskCard:
        return TaskCard(
            name=f"{task_name(self.folder)}_p3",
            benchmark="promptsource",
            category=category(self.folder),
            source=self.folder,
            metrics=("rouge_l", "exact_match"),
            url=_URL,
        )

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """The rows of all templates as fields of `Example`; the uid is template and line.

        Raises:
          InputError: a file is damaged or empty, or a row lacks a field.
        """
        for template, path in self.templates.items():
            line = 0
            for line, record in files.json_lines(path):
                source, target = (
                    files.field(record, name, str, path, line) for name in ("prompt", "completion")
                )
                target = target.removesuffix(_END).strip()
                if target:
                    yield {
                        "uid": f"{template}-{line}",
                        "source": source.removesuffix("\n"),
                        "target": target,
                        "template": template,
                    }
            if not line:
                raise InputError("holds no example", path=path)


def _parted(path: epath.Path) -> tuple[str, str]:
    """(data set, template) of a file, by the longest name of a data set that its name begins with."""
    stem = path.name.partition(".jsonl")[0]
    known = load("promptsource_categories.json")["categories"]
    fitting = [folder for folder in known if f"{stem}_".startswith(f"{_flat(folder)}_")]
    if not fitting:
        raise InputError(
            "the file's name begins with no known data set",
            path=path,
            remedy="Add the data set to tasks/definitions/promptsource_categories.json",
        )
    folder = max(fitting, key=len)
    return folder, stem[len(_flat(folder)) + 1 :] or "prompt"


def _flat(folder: str) -> str:
    return folder.replace("/", "_")
