"""MMLU: one task a subject, from the CSV files of github.com/hendrycks/test. For evaluation only.

A file has no header and the columns question, A, B, C, D, letter; a variant seen in the wild has a header and
counts the answers from 0. The five `dev` rows of a subject are its exemplars, shown in their order.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any, Literal

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import files

BENCHMARK = "mmlu"
LETTERS = "ABCD"
#: By the split of the bench, the folder and the ending of its files.
SPLITS = {"exemplars": "dev", "validation": "val", "test": "test"}

_COLUMNS = ("question", *LETTERS, "answer")

Target = Literal["letter", "text"]


def register(data_dir: str, target: Target = "letter") -> None:
    """Registers every subject that has a test or val file; lists the folders and opens no file.

    Args:
      data_dir: holds `mmlu/data/`, `mmlu/` or `data/`, or is that folder: {dev,val,test}/<subject>_*.csv.
      target: whether the letters or the texts of the choices are what is to be said.

    Raises:
      InputError: there is no such folder.
    """
    for subject, paths in sorted(_subjects(_home(data_dir)).items()):
        seqio_bridge.add_task(
            TaskCard(
                name=f"{BENCHMARK}.{subject}",
                benchmark=BENCHMARK,
                category=canonical_category(BENCHMARK, "MMLU"),
                instruction_level="task",
                source=f"mmlu/{subject}",
                parent=BENCHMARK,
                metrics=("accuracy",),
                licence="MIT",
                url="https://github.com/hendrycks/test",
            ),
            source=seqio_bridge.PythonSource(
                read=functools.partial(read, paths, subject, target),
                splits=tuple(paths),
                files=tuple(paths.values()),
            ),
        )


def read(paths: dict[str, str], subject: str, target: Target, split: str) -> Iterator[dict[str, Any]]:
    """The rows of one split, in the format of the benchmark's own evaluation, as fields of `Example`."""
    path = paths[split]
    instruction = (
        f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}."
    )
    for number, (line, row) in enumerate(files.table(path, names=_COLUMNS)):
        answer = row["answer"].strip()
        if number == 0 and answer == "answer":
            continue
        if len(answer) != 1 or answer not in f"{LETTERS}0123":
            raise InputError(
                f"must be a letter from A to D or a number from 0 to 3, not {answer!r:.40}",
                path=path,
                line=line,
                field="answer",
            )
        gold = LETTERS.index(answer) if answer in LETTERS else int(answer)
        choices = [row[letter] for letter in LETTERS]
        shown = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True)]
        candidates = list(LETTERS) if target == "letter" else choices
        yield {
            "uid": f"{SPLITS[split]}-{number}",
            # The blank line after the sentence is the benchmark's.
            "instruction": f"{instruction}\n",
            "source": "\n".join([row["question"].strip(), *shown, "Answer:"]),
            "target": candidates[gold],
            "candidates": candidates,
        }


def _home(data_dir: str) -> epath.Path:
    given = epath.Path(data_dir)
    for folder in (given / "mmlu" / "data", given / "mmlu", given / "data", given):
        if any((folder / name).is_dir() for name in ("test", "val")):
            return folder
    raise InputError(
        "MMLU's folders test/ and val/ are not here",
        path=given / "mmlu" / "data",
        remedy="Unpack the archive that github.com/hendrycks/test names into mmlu/",
    )


def _subjects(home: epath.Path) -> dict[str, dict[str, str]]:
    """By subject, the file of each split; a subject with exemplars alone is none."""
    found: dict[str, dict[str, str]] = {}
    for split, folder in SPLITS.items():
        ending = f"_{folder}.csv"
        for path in sorted((home / folder).iterdir()) if (home / folder).is_dir() else ():
            if path.name.endswith(ending):
                found.setdefault(path.name.removesuffix(ending), {})[split] = os.fspath(path)
    return {subject: paths for subject, paths in found.items() if set(paths) != {"exemplars"}}
