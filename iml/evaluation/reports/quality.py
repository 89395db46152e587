"""Tables of a report beside the scores: published figures, calibration, robustness, efficiency, changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from iml.bench.levels import LEVELS
from iml.evaluation.reports.published import FEW, Cell, Published, published
from iml.evaluation.reports.tables import shots_title, words
from iml.evaluation.results.changes import Changes, flips
from iml.evaluation.results.result import Result

_NONE = "–"
_CHANGE_HEAD = ("", "shots", "difference", "interval", "p", "interval over tasks", "p over tasks")


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table of texts.

    Attributes:
      title: its heading.
      note: what it means.
      head: headings of its columns; the first column names the rows.
      rows: the texts.
      others: columns, by their number, that tell of other models than the results.
    """

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    others: frozenset[int] = frozenset()


def published_grids(results: Sequence[Result]) -> list[Grid]:
    """The papers' tables that fit the suite, with the results first and other models' figures after them."""
    return [_published_grid(table, results) for table in published([result.scores for result in results])]


def _published_grid(table: Published, results: Sequence[Result]) -> Grid:
    shots = table.shots or tuple(map(str, results[-1].scores["shots"]))
    levels = any(column.level for column in table.columns)
    head = ["", *(["level"] if levels else []), *(result.title for result in results)]
    others = frozenset(range(len(head), len(head) + len(table.models)))
    rows = tuple(
        (
            column.title,
            *([words(column.level)] if levels else []),
            *(_published_cell(cell, shots) for cell in column.ours),
            *(_published_cell(cell, table.shots or ("",)) for cell in column.theirs),
        )
        for column in table.columns
    )
    told = " / ".join("few-shot" if key == FEW else shots_title(key) for key in shots)
    of = "" if table.shots else " of the results"
    note = (
        f"Scores{of}: {told}, {table.metric}. The columns in italics are other models, as published in "
        f"{table.source}; they were not run here, and their prompts and scoring may differ. {table.note}"
    )
    head += [f"{model} (published)" for model in table.models]
    return Grid(f"Beside {table.source}", note.strip(), tuple(head), rows, others)


def _published_cell(cell: Cell, shots: Sequence[str]) -> str:
    texts = [f"{cell[key]:.1f}" if key in cell else _NONE for key in shots]
    return " / ".join(texts) if any(key in cell for key in shots) else _NONE


def calibration_grid(results: Sequence[Result]) -> Grid:
    """The expected calibration error by level and shots."""
    return _by_level(
        "Calibration",
        "A model's confidence in a ranked answer is the softmax of the candidates' scores. The expected "
        "calibration error (ECE, from 0 to 100) is how far confidence and accuracy lie apart on average; "
        "0 is best. The dashed diagonal is perfect calibration; below it a model is too sure of itself.",
        results,
        "calibration",
        lambda cell: f"{cell['ece']:.1f} ({cell['examples']:,} answers)",
    )


def robustness_grid(results: Sequence[Result]) -> Grid:
    """How far templates of one task lie apart, by level and shots."""
    return _by_level(
        "Robustness over templates",
        "Of tasks that several templates word: the mean standard deviation of their scores over the "
        "templates, and the mean distance of the best from the worst. 0 means that wording does not matter.",
        results,
        "robustness",
        lambda cell: f"± {cell['std']:.1f}, range {cell['range']:.1f} ({cell['tasks']:,} tasks)",
    )


def efficiency_grids(results: Sequence[Result]) -> list[Grid]:
    """What answering took, and what the run took in all."""
    kinds, phases = [], []
    for result in results:
        found = result.scores.get("efficiency", {})
        for kind, part in found.get("kinds", {}).items():
            written = "candidates" if kind == "rank" else "tokens"
            kinds.append(
                (
                    result.title,
                    {"rank": "ranked", "generate": "generated"}[kind],
                    f"{part['requests']:,}",
                    f"{part['seconds']:,.1f} s",
                    *(_rate(part, name) for name in ("requests", "characters")),
                    f"{_rate(part, written)} {written}",
                    str(result.scores["header"].get("devices", _NONE)),
                )
            )
        for phase, seconds in found.get("phases", {}).items():
            phases.append((result.title, phase, f"{seconds:,.1f} s"))
        if compiling := found.get("compile"):
            told = f"of these, compiling {compiling['programs']:,} programs"
            phases.append((result.title, told, f"{compiling['seconds']:,.1f} s"))
    head = ("result", "answers", "prompts", "time", "prompts/s", "characters read/s", "written/s", "devices")
    note = "What answering took, compilation included; work that a kill lost is not counted."
    last = "Of the last run; one that was gone on with after a kill did only the rest."
    grids = [
        Grid("Answers", note, head, tuple(kinds)),
        Grid("Phases", last, ("result", "phase", "time"), tuple(phases)),
    ]
    return [grid for grid in grids if grid.rows]


def level_change_grid(changes: Changes) -> Grid:
    """Differences of levels."""
    rows = [
        row
        for level, cells in changes.comparison.get("levels", {}).items()
        for row in _change_rows(words(level), cells)
    ]
    prompts, gained, lost = flips(changes.tasks)
    return Grid(
        f"{changes.second} less {changes.first}",
        f"Of {prompts:,} prompts that both were asked, {gained:,} became right and {lost:,} became wrong. "
        "Differences are paired, with 95 % bootstrap intervals and two-sided p-values over examples; the last "
        "two columns draw the tasks as well. No p-value is corrected for the number of rows.",
        _CHANGE_HEAD,
        tuple(rows),
    )


def category_change_grid(changes: Changes) -> Grid:
    """Differences of categories."""
    rows = [
        row
        for level, categories in changes.comparison.get("categories", {}).items()
        for name, cells in categories.items()
        for row in _change_rows(f"{words(level)}: {name}", cells)
    ]
    return Grid("Categories that changed", "", _CHANGE_HEAD, tuple(rows))


def task_change_grid(changes: Changes) -> Grid:
    """Every task's answers that changed, the largest differences first."""
    rows = tuple(
        (
            change.task,
            f"{change.prompts:,}",
            f"{change.gained:,}",
            f"{change.lost:,}",
            f"{change.better:,}",
            f"{change.worse:,}",
            f"{change.cell['difference']:+.1f}",
            interval_text(change.cell),
            p_text(change.cell["p"]),
        )
        for change in changes.tasks
    )
    head = (
        "task",
        "prompts",
        "wrong → right",
        "right → wrong",
        "better",
        "worse",
        "difference",
        "interval",
        "p",
    )
    return Grid("Tasks that changed", "Differences are means over the numbers of shots.", head, rows)


def _by_level(title, note, results: Sequence[Result], kind: str, tell) -> Grid:
    shots = sorted(
        {int(key) for result in results for cells in result.scores.get(kind, {}).values() for key in cells}
    )
    rows = []
    for level in LEVELS:
        for number in map(str, shots):
            cells = [result.scores.get(kind, {}).get(level, {}).get(number) for result in results]
            if any(cells):
                told = (tell(cell) if cell else _NONE for cell in cells)
                rows.append((words(level), shots_title(number), *told))
    return Grid(title, note, ("level", "shots", *(result.title for result in results)), tuple(rows))


def _change_rows(name: str, cells: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for shots, cell in cells.items():
        wider = cell.get("over_tasks")
        over = (interval_text(wider), p_text(wider["p"])) if wider else (_NONE, _NONE)
        rows.append(
            (
                name,
                shots_title(shots),
                f"{cell['difference']:+.1f}",
                interval_text(cell),
                p_text(cell["p"]),
                *over,
            )
        )
    return rows


def interval_text(cell: Mapping[str, Any], negative: bool = False) -> str:
    """A difference's interval, or that of its negative."""
    if cell["low"] is None:
        return _NONE
    low, high = (-cell["high"], -cell["low"]) if negative else (cell["low"], cell["high"])
    return f"{low + 0.0:+.1f} to {high + 0.0:+.1f}"


def p_text(value: float | None) -> str:
    """A p-value as it is read."""
    return _NONE if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _rate(part: Mapping[str, Any], name: str) -> str:
    rate = part.get(f"{name}_per_second")
    return _NONE if rate is None else f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}"
