"""Figures that papers published, set beside this project's on the same suite: always as other models'.

`definitions/published.json` names each table's paper and number, and for each of its columns the place in
`scores.json` that holds the same quantity: a category or benchmark of a level, tasks by pattern (averaged after
their subtypes), all categories, or the mean of the table's other columns.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from iml.evaluation.scores.units import group

Scores = Mapping[str, Any]
#: By number of shots, a score.
Cell = Mapping[str, float]

_FILE = pathlib.Path(__file__).parent / "definitions" / "published.json"
#: The larger number of demonstrations, where a paper's varies.
FEW = "few"


@dataclasses.dataclass(frozen=True)
class Column:
    """A quantity of a table.

    Attributes:
      title: what it is.
      level: the level it belongs to, or "".
      ours: of each result, the cell; {} where it has none.
      theirs: of each published model, likewise.
    """

    title: str
    level: str
    ours: tuple[Cell, ...]
    theirs: tuple[Cell, ...]


@dataclasses.dataclass(frozen=True)
class Published:
    """A paper's table with the same quantities of results.

    Attributes:
      source: paper and number of the table.
      note: what it was measured with.
      metric: of the published scores.
      shots: the numbers of shots that its cells give; () where the paper does not state them.
      models: the published ones.
      columns: its quantities.
    """

    source: str
    note: str
    metric: str
    shots: tuple[str, ...]
    models: tuple[str, ...]
    columns: tuple[Column, ...]


def published(results: Sequence[Scores]) -> list[Published]:
    """The tables that fit the suite that the last result was asked."""
    suite = results[-1]["header"].get("suite", {}).get("name")
    return [_fill(table, results) for table in _tables() if suite in table["suites"]]


def _fill(table: Mapping[str, Any], results: Sequence[Scores]) -> Published:
    cells = [_row(table["columns"], result) for result in results]
    columns = tuple(
        Column(
            column["title"],
            column.get("level", ""),
            tuple(row[i] for row in cells),
            tuple(_known(row["scores"][i]) for row in table["rows"]),
        )
        for i, column in enumerate(table["columns"])
    )
    models = tuple(row["model"] for row in table["rows"])
    source = f"{table['table']}, {table['paper']}"
    return Published(source, table["note"], table["metric"], tuple(table["shots"]), models, columns)


def _row(columns: Sequence[Mapping[str, Any]], result: Scores) -> list[Cell]:
    found = [{} if "columns" in column["at"] else _cell(column["at"], result) for column in columns]
    means = {}
    single = [cell for cell, column in zip(found, columns, strict=True) if "columns" not in column["at"]]
    for shots in map(str, result["shots"]):
        # The mean of some of the columns would not be comparable.
        if single and all(shots in cell for cell in single):
            means[shots] = float(np.mean([cell[shots] for cell in single]))
    found = [
        means if "columns" in column["at"] else cell for cell, column in zip(found, columns, strict=True)
    ]
    return [_with_few(cell) for cell in found]


def _cell(at: Mapping[str, Any], result: Scores) -> Cell:
    shots = [str(number) for number in result["shots"]]
    if "tasks" in at:
        names = [name for name in result["tasks"] if any(fnmatchcase(name, text) for text in at["tasks"])]
        parents = group(
            names, lambda name: (result["tasks"][name]["benchmark"], result["tasks"][name]["parent"] or name)
        )
        units = [[result["tasks"][name]["cells"] for name in part] for part in parents.values()]
        return _means([[_mean(part, key) for part in units] for key in shots], shots)
    if "all" in at:
        cells = [cell for level in result[at["all"]].values() for cell in level.values()]
        return _means([[_mean([cell], key) for cell in cells] for key in shots], shots)
    [(kind, (level, name))] = at.items()
    cell = result[kind].get(level, {}).get(name, {})
    return {key: cell[key]["mean"] for key in shots if key in cell}


def _mean(cells: Sequence[Mapping[str, Any]], shots: str) -> float | None:
    values = [cell[shots]["mean"] for cell in cells if shots in cell]
    return float(np.mean(values)) if values else None


def _means(columns: Sequence[Sequence[float | None]], shots: Sequence[str]) -> Cell:
    known = ([value for value in values if value is not None] for values in columns)
    return {key: float(np.mean(values)) for key, values in zip(shots, known, strict=True) if values}


def _with_few(cell: Cell) -> Cell:
    """The cell with its score at the most demonstrations, where there are any, under `FEW` as well."""
    numbers = [int(key) for key in cell if int(key)]
    return {**cell, FEW: cell[str(max(numbers))]} if numbers else cell


def _known(cell: Mapping[str, float | None] | None) -> Cell:
    return {key: value for key, value in (cell or {}).items() if value is not None}


@functools.cache
def _tables() -> list[dict[str, Any]]:
    return json.loads(_FILE.read_text(encoding="utf-8"))["tables"]
