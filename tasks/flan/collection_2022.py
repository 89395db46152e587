"""Flan 2022: rows of the Flan Collection as JSON lines, one folder a task.

A line holds `inputs`, `targets` and `task_name`, and may hold `task_source`, `template_type` and `template_idx`,
each with or without a leading underscore. The collection's exports mix all tasks in large files, so they are
parted once:

    python -m tasks.flan.collection_2022 export.jsonl.gz another.jsonl --to data/flan2022 --source Flan2021

which writes `flan2022/<task>/train.jsonl`. A task is `flan.<set>`: `anli/r1:0.1.0`, as the collection calls it, is
`flan.anli_r1`, the name that FLAN 2021's own module gives it, so that what is held out under that name stays so.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import files, layouts
from tasks.flan import BENCHMARK, definitions

SPLITS = ("train", "validation", "test")
#: Zero-shot rows, with and without options; the bench makes few-shot prompts itself.
ZERO_SHOT = ("zs_opt", "zs_noopt")
_CHOICES = re.compile(r"(?:^|\n)\s*(?:OPTIONS|Options|OPT):?\s*\n((?:- [^\n]+(?:\n|$))+)")
#: How names of inverted tasks end.
_INVERSION = re.compile(r"_(ii|input_inversion)$")
#: Lines that are read before those of their tasks are written together.
_LINES_AT_ONCE = 20_000


def register(data_dir: str, *, template_types: Sequence[str] = ZERO_SHOT) -> None:
    """Registers every task folder that is there; opens no data file.

    Args:
      data_dir: holds `flan2022/<task>/<split>.jsonl[.gz]`, and `flan2022/flan_collection_info.csv`, which tells
        the tasks' categories, if it is at hand.
      template_types: the kinds of rows to take; rows that do not tell theirs are taken always.

    Raises:
      InputError: there is no task, or two folders are one task.
    """
    home = epath.Path(data_dir)
    home = layouts.first_folder(home, ("flan2022", "flan_2022")) or home
    found = False
    patterns = {split: (f"{split}.jsonl",) for split in SPLITS}
    for folder in sorted(home.iterdir()) if home.exists() else ():
        splits = layouts.find_splits(folder, patterns) if folder.is_dir() else {}
        if splits:
            found = True
            task = ExportedTask(folder.name, home, splits, tuple(template_types))
            used = [path for paths in splits.values() for path in paths]
            source = seqio_bridge.PythonSource(read=task.read, splits=tuple(splits), files=used)
            seqio_bridge.add_task(task.card, name=f"{BENCHMARK}.{task_name(folder.name)}", source=source)
    if not found:
        remedy = "Part an export by task: python -m tasks.flan.collection_2022 EXPORT --to DATA_DIR/flan2022"
        raise InputError("no task of Flan 2022 is here", path=home, remedy=remedy)


def task_name(name: str) -> str:
    """The task's name without `flan.`: "anli/r1:0.1.0" -> "anli_r1", "glue/mnli:2.0.0" -> "mnli_matched"."""
    plain = re.sub(r":\d+\.\d+\.\d+", "", name)
    return _tfds_names().get(_sanitised(plain), _sanitised(plain))


@functools.cache
def _tfds_names() -> Mapping[str, str]:
    """FLAN 2021's names by TFDS's; of several sets made of one, the first."""
    names: dict[str, str] = {}
    for name, definition in definitions().items():
        if definition.get("tfds"):
            names.setdefault(_sanitised(definition["tfds"].partition(":")[0]), name)
    return names


def _sanitised(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)


@dataclasses.dataclass(frozen=True)
class ExportedTask:
    """One task's folder: its files by split, and the kinds of rows that are taken."""

    name: str
    home: epath.Path
    splits: layouts.Splits
    template_types: tuple[str, ...] = ZERO_SHOT

    def card(self) -> TaskCard:
        """The task's card: ranked if all its rows list options that hold their targets."""
        name = task_name(self.name)
        kinds = "" if self.template_types == ZERO_SHOT else f" ({', '.join(self.template_types)})"
        return TaskCard(
            name=f"{BENCHMARK}.{name}",
            benchmark=BENCHMARK,
            category=category(name, self.home),
            source=self.name + kinds,
            metrics=("accuracy",) if self._ranked() else ("rouge_l", "exact_match"),
            licence=definitions().get(name, {}).get("licence", ""),
            url="https://github.com/google-research/FLAN",
        )

    def _ranked(self) -> bool:
        return all(fields["candidates"] for split in self.splits for fields in self._rows(split))

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """The examples of a split as fields of `Example`; the uid is the line.

        Raises:
          InputError: a file is damaged, or holds no example of the kinds that are taken.
        """
        ranked = self._ranked()
        for fields in self._rows(split):
            yield fields if ranked else {**fields, "candidates": []}

    def _rows(self, split: str) -> Iterator[dict[str, Any]]:
        for path in self.splits[split]:
            found = False
            for line, record in files.json_lines(path):
                if _told(record, "template_type") not in (*self.template_types, ""):
                    continue
                found = True
                yield {"uid": str(line), **_fields(record, path, line)}
            if not found:
                kinds = ", ".join(self.template_types)
                raise InputError("holds no example", path=path, remedy=f"Kinds that are taken: {kinds}")


def options(source: str, target: str) -> list[str]:
    """The options of a text's last block of them, if the target is one."""
    blocks = _CHOICES.findall(source)
    found = re.findall(r"^- (.+)$", blocks[-1], re.MULTILINE) if blocks else []
    found = list(dict.fromkeys(option.strip() for option in found))
    return found if len(found) > 1 and target in found else []


def category(name: str, home: epath.Path) -> str:
    """A task's category: by FLAN 2021's table, or by the list of the collection where it has one.

    An inverted task is counted to what it inverts, to be held out with it; one that neither knows is "Misc.".
    """
    name = _INVERSION.sub("", name)
    definition = definitions().get(name)
    cluster = definition.get("category", definition["cluster"]) if definition else ""
    info = home / "flan_collection_info.csv"
    if not cluster and info.exists():
        cluster = _clusters(info).get(name, "")
    try:
        return canonical_category(BENCHMARK, cluster.removeprefix("Inverted "))
    except InputError:
        return canonical_category(BENCHMARK, "misc.")


@functools.cache
def _clusters(info: epath.Path) -> Mapping[str, str]:
    """Clusters by task; a data set's first stands for it, a task's own for itself."""
    clusters: dict[str, str] = {}
    for line, row in files.table(info):
        cluster = files.field(row, "Generic Task Category", str, info, line)
        for column in ("Dataset", "Specific Task Category"):
            clusters.setdefault(_sanitised(files.field(row, column, str, info, line)), cluster)
    return clusters


def _told(record: Mapping[str, Any], name: str) -> Any:
    return record.get(name, record.get(f"_{name}", ""))


def _fields(record: Mapping[str, Any], path: epath.Path, line: int) -> dict[str, Any]:
    source = files.field(record, "inputs", str, path, line)
    target = files.field(record, "targets", str, path, line).strip()
    if not target:
        raise InputError("is empty", path=path, line=line, field="targets")
    return {
        "source": source,
        "target": target,
        "references": [target],
        "candidates": options(source, target),
        "template": str(_told(record, "template_idx")),
    }


def part(paths: Iterable[epath.Path], home: epath.Path, sources: Sequence[str] = ()) -> dict[str, int]:
    """Writes the lines of exports to `<home>/<task>/train.jsonl`, in their order, and counts them by task.

    Args:
      paths: JSON lines, `.gz` or plain.
      home: where to; a task's file must not be there yet.
      sources: the `task_source`s to take; none for all.

    Raises:
      InputError: a file is damaged, a line names no task, or a task's file is there already.
    """
    counts: dict[str, int] = {}
    waiting: dict[str, list[str]] = {}
    for path in paths:
        for line, record in files.json_lines(path):
            if sources and _told(record, "task_source") not in sources:
                continue
            name = _told(record, "task_name")
            # The name becomes a folder's: it must not lead elsewhere.
            folder = task_name(name) if isinstance(name, str) else ""
            if not folder.strip("."):
                raise InputError("names no task", path=path, line=line, field="task_name")
            if folder not in counts and (home / folder / "train.jsonl").exists():
                problem = "is there already"
                raise InputError(problem, path=home / folder / "train.jsonl", remedy="Part into a new folder")
            _fields(record, path, line)
            counts[folder] = counts.get(folder, 0) + 1
            waiting.setdefault(folder, []).append(json.dumps(record, ensure_ascii=False))
            if line % _LINES_AT_ONCE == 0:
                _append(home, waiting)
    _append(home, waiting)
    return counts


def _append(home: epath.Path, waiting: dict[str, list[str]]) -> None:
    for folder, held in waiting.items():
        (home / folder).mkdir(parents=True, exist_ok=True)
        with (home / folder / "train.jsonl").open("a") as file:
            file.write("".join(f"{line}\n" for line in held))
    waiting.clear()


def main(arguments: Sequence[str] | None = None) -> None:
    """Parts exports by task, see the module."""
    parser = argparse.ArgumentParser(description="Part exports of the Flan Collection by task.")
    parser.add_argument("paths", nargs="+", type=pathlib.Path, help="JSON lines, plain or gzipped")
    parser.add_argument("--to", required=True, type=pathlib.Path, help="the folder flan2022 to be")
    parser.add_argument(
        "--source", action="append", default=[], help="a task source to take, such as Flan2021"
    )
    given = parser.parse_args(arguments)
    try:
        counts = part(map(epath.Path, given.paths), epath.Path(given.to), given.source)
    except InputError as error:
        parser.exit(1, f"{error}\n")
    print(f"{sum(counts.values())} lines of {len(counts)} tasks")


if __name__ == "__main__":
    main()
