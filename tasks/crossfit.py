"""CrossFit: text-to-text files of some 160 data sets, as its scripts write them, one folder a task.

A file is `<task>/<task>_<k>_<seed>_<split>.tsv`, or `<task>_<split>.tsv` for a task that was not sampled: input,
tab, output, and further right outputs after further tabs. Of several samples of a task one is read. A task is
`crossfit.<task>`; its instruction is a sentence before each input (OPT-IML, section 2.2), which
`tasks/definitions/crossfit.json` holds beside the task's cluster.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import files, layouts
from tasks.definitions import load

BENCHMARK = "crossfit"
#: The splits' names in the files.
SPLITS = {"train": "train", "validation": "dev", "test": "test"}
#: What a task that the table does not know is asked with, and counted to.
_UNKNOWN = {"cluster": "other/others", "instruction": ""}
#: Choices that an input itself names: "... (A) leaf (B) sap".
_CHOICES = re.compile(r" \(([A-Z])\) ")


@functools.cache
def definitions() -> Mapping[str, Mapping[str, Any]]:
    """Cluster and instruction of each task that CrossFit has."""
    return load("crossfit.json")["tasks"]


def register(data_dir: str, sample: str = "") -> None:
    """Registers every task folder that is there; opens no data file.

    Args:
      data_dir: holds `crossfit/tsv/`, or is that folder: one folder a task.
      sample: "<k>_<seed>", the few-shot sample to read where a task has several; "" for the one with most files.

    Raises:
      InputError: there is no task.
    """
    home = epath.Path(data_dir)
    home = layouts.first_folder(home, ("crossfit/tsv", "tsv")) or home
    found = 0
    for folder in sorted(home.iterdir()) if home.exists() else ():
        splits = find_samples(folder, sample, "tsv")
        if splits:
            found += 1
            task = TsvTask(folder.name, splits)
            source = seqio_bridge.PythonSource(
                read=task.read, splits=tuple(splits), files=tuple(splits.values())
            )
            name = task_name(folder.name)
            seqio_bridge.add_task(
                functools.partial(card, folder.name, name, task.labels), name=name, source=source
            )
    if not found:
        raise InputError(
            "no task of CrossFit is here",
            path=home,
            remedy="Name the folder that holds crossfit/tsv/<task>/<task>_<k>_<seed>_train.tsv as data_dir",
        )


def task_name(folder: str) -> str:
    """The task's name; SeqIO takes no hyphens: "glue-cola" -> "crossfit.glue_cola"."""
    return f"{BENCHMARK}.{folder.replace('-', '_')}"


def find_samples(folder: epath.Path, sample: str, suffix: str) -> dict[str, epath.Path]:
    """The file of each split of one few-shot sample of a task, or of its whole files."""
    name = re.escape(folder.name)
    pattern = re.compile(rf"{name}(?:_(?P<sample>\d+_\d+))?_(?P<split>train|dev|test)\.{suffix}(?:\.gz)?")
    samples: dict[str, dict[str, epath.Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        matched = pattern.fullmatch(path.name)
        if matched:
            samples.setdefault(matched["sample"] or "", {})[matched["split"]] = path
    # The sample with most files serves if none is asked for: some seeds come without a test file.
    chosen = samples.get(sample) if sample else max(samples.values(), key=len, default=None)
    return {split: chosen[stem] for split, stem in SPLITS.items() if stem in chosen} if chosen else {}


@dataclasses.dataclass(frozen=True)
class TsvTask:
    """One task with its files by split."""

    name: str
    splits: Mapping[str, epath.Path]

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """The examples of a split as fields of `Example`; the uid is the line.

        Raises:
          InputError: the file is damaged or empty, or a line has no output.
        """
        path, labels, line = self.splits[split], self.labels(), 0
        for line, (source, *targets) in files.columns(path, 2):
            targets = [target for target in targets if target.strip()]
            if not targets:
                raise InputError("has no output", path=path, line=line)
            yield {
                "uid": str(line),
                "source": instructed(self.name, source),
                "target": targets[0],
                "references": list(dict.fromkeys(targets)),
                "candidates": labels or _choices(source, targets[0]),
            }
        if not line:
            raise InputError("holds no example", path=path)

    def labels(self) -> list[str]:
        """The outputs to choose between, where the task has the same ones for all its examples.

        Those of a classification task are all that its files have.
        """
        definition = definitions().get(self.name, _UNKNOWN)
        if "labels" in definition:
            return definition["labels"]
        cluster = definition["cluster"]
        if not cluster.startswith("cls/") and cluster not in ("qa/binary", "other/linguistic phenomenon"):
            return []
        lines = (line for path in self.splits.values() for line in files.columns(path, 2))
        return sorted({target for _, (_, target, *_) in lines})


def instructed(task: str, text: str) -> str:
    """The input after the task's instruction."""
    instruction = definitions().get(task, _UNKNOWN)["instruction"]
    return f"{instruction} {text}" if instruction else text


def card(task: str, name: str, ranked: Any) -> TaskCard:
    """The card of a task; `ranked` tells whether its answers are chosen from candidates."""
    definition = definitions().get(task, _UNKNOWN)
    chosen = bool(ranked()) or definition["cluster"] == "qa/multiple-choice qa"
    return TaskCard(
        name=name,
        benchmark=BENCHMARK,
        category=canonical_category(BENCHMARK, definition.get("category", definition["cluster"])),
        instruction_level="keywords",
        source=task,
        metrics=("accuracy",) if chosen else tuple(definition.get("metrics", ("rouge_l", "exact_match"))),
        url="https://github.com/INK-USC/CrossFit",
    )


def _choices(source: str, target: str) -> list[str]:
    """The choices that an input lists after its question, if the output is one of them."""
    _, *parts = _CHOICES.split(source)
    letters, choices = parts[::2], [part.strip() for part in parts[1::2]]
    named = letters == [chr(ord("A") + i) for i in range(len(letters))]
    return list(dict.fromkeys(choices)) if named and len(choices) > 1 and target in choices else []
