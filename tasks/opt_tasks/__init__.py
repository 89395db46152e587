"""The 14 tasks of OPT's evaluation (paper, table 9) and others asked in the same way. For evaluation only.

The prompts are GPT-3's (arXiv 2005.14165, appendix G), in the wording of lm-evaluation-harness where that has
put them into files. `tasks/definitions/opt_tasks.json` says which files are read.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks.opt_tasks.forms import FORMS, GENERATED

BENCHMARK = "opt_tasks"

_DEFINITIONS = importlib.resources.files("tasks.definitions") / "opt_tasks.json"


def register(data_dir: str) -> None:
    """Registers every task that has a file of evaluated rows; lists folders and opens no file.

    Args:
      data_dir: holds the folders that `tasks/definitions/opt_tasks.json` names.

    Raises:
      InputError: none of the files is there.
    """
    home = epath.Path(data_dir)
    found = {name: _files(home, task["files"]) for name, task in definitions().items()}
    if not any(found.values()):
        raise InputError(
            "none of the files of OPT's tasks is here",
            path=home / BENCHMARK,
            remedy="tasks/definitions/opt_tasks.json says where they are looked for",
        )
    for name, paths in found.items():
        if paths:
            _add(name, definitions()[name], paths)


def read(name: str, paths: Mapping[str, str], split: str) -> Iterator[dict[str, Any]]:
    """The rows of one split of a task, as fields of `Example`.

    Raises:
      InputError: the file is damaged.
    """
    task = definitions()[name]
    lead, cue = task.get("lead", ""), task.get("cue", "")
    for fields in FORMS[task["form"]](paths[split]):
        source = f"{lead}{fields['source'].strip()}{cue}"
        yield {**fields, "uid": f"{split}-{fields['uid']}", "source": source}


@functools.cache
def definitions() -> dict[str, dict[str, Any]]:
    """By name of the task, what the definitions say of it."""
    return json.loads(_DEFINITIONS.read_text(encoding="utf-8"))["tasks"]


def _files(home: epath.Path, patterns: Mapping[str, list[str]]) -> dict[str, str]:
    """By split, the first file that is there; none if there is nothing to evaluate on."""
    found: dict[str, str] = {}
    for split, options in patterns.items():
        for option in options:
            paths = sorted(home.glob(option)) if "*" in option else [home / option]
            path = next((os.fspath(path) for path in paths if path.exists()), None)
            if path and path not in found.values():
                found[split] = path
            if path:
                break
    return found if set(found) - {"exemplars"} else {}


def _add(name: str, task: Mapping[str, Any], paths: Mapping[str, str]) -> None:
    seqio_bridge.add_task(
        TaskCard(
            name=f"{BENCHMARK}.{name}",
            benchmark=BENCHMARK,
            category=canonical_category(BENCHMARK, task["category"]),
            source=task["source"],
            metrics=("exact_match",) if task["form"] in GENERATED else ("accuracy",),
            drawn_together=task.get("drawn_together", ""),
        ),
        source=seqio_bridge.PythonSource(
            read=functools.partial(read, name, paths),
            splits=tuple(paths),
            files=(*paths.values(), os.fspath(_DEFINITIONS)),
        ),
    )
