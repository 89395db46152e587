"""Writes what an evaluation found: scores.json, report.md, report.html, and a summary for the terminal."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from iml.console import print_table
from iml.errors import InputError
from iml.evaluation.reports import quality, report_page, tables
from iml.evaluation.reports.tables import Scores, Table
from iml.evaluation.results.changes import Changes, find_changes
from iml.evaluation.results.result import Result
from iml.markup import markdown

if TYPE_CHECKING:
    from rich.console import Console

SCORES, MARKDOWN, PAGE = "scores.json", "report.md", "report.html"


def write_scores(output_dir: str | os.PathLike[str], scores: Scores) -> pathlib.Path:
    """Writes what `aggregation.aggregate` returned to `scores.json`."""
    return write(pathlib.Path(output_dir) / SCORES, json.dumps(scores, indent=1) + "\n")


def read_scores(output_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """The scores of an earlier evaluation.

    Raises:
      InputError: there are none, or the file is damaged.
    """
    path = epath.Path(output_dir) / SCORES
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = "Give the output folder of a finished evaluation"
        raise InputError(f"no scores here ({error.strerror})", path=path, remedy=remedy) from error
    except ValueError as error:
        raise InputError(f"not JSON ({error})", path=path) from error
    keys = ("shots", "levels", "categories", "benchmarks", "groups", "tasks", "scorers")
    missing = [key for key in keys if not isinstance(scores, dict) or key not in scores]
    if missing:
        raise InputError("not the scores of an evaluation", path=path, field=missing[0])
    return scores


def name_results(folders: Sequence[str]) -> list[str]:
    """What a report calls results: the ends of their folders' paths, as long as it takes to tell them apart."""
    parts = [pathlib.PurePath(folder).parts for folder in folders]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {folder}" for number, folder in enumerate(folders, start=1)]


def read_result(folder: str | os.PathLike[str], title: str) -> Result:
    """What lies in the folder of a finished evaluation.

    Raises:
      InputError: it is missing or damaged.
    """
    from iml.evaluation.results.results_folder import read_predictions

    return Result(title, read_scores(folder), read_predictions(folder), os.fspath(folder))


def write_report(
    output_dir: str | os.PathLike[str], results: Sequence[Result]
) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes `report.md` and `report.html`; the page needs no other file and loads nothing.

    Args:
      output_dir: the folder.
      results: the evaluation at hand last; differences are from the first.

    Returns:
      The paths of the two files.
    """
    folder = pathlib.Path(output_dir)
    paired = results[1:] if results[0].predictions else []
    found = [find_changes(results[0], result) for result in paired if result.predictions]
    return (
        write(folder / MARKDOWN, _markdown(results, found)),
        write(folder / PAGE, report_page.render(results, found)),
    )


def print_summary(results: Sequence[Result], console: Console) -> None:
    """Prints the levels by shots, the tasks that failed and why results may not be compared."""
    from rich.table import Table as Printed
    from rich.text import Text

    scores, titles = [result.scores for result in results], [result.title for result in results]
    content = tables.level_table(scores)
    names = [
        f"{column}\n{title}" if len(titles) > 1 else column for column in content.columns for title in titles
    ]
    printed = Printed(title="scores")
    for name in (*content.labels, *names):
        printed.add_column(Text(name))
    for row in content.rows:
        cells = [score.short for group in row.scores for score in group]
        printed.add_row(*map(Text, (row.name, *row.details, *cells)))
    print_table(console, printed)
    for result in results:
        if failures := result.scores.get("failures"):
            console.print(Text(f"{result.title}: tasks left out: {len(failures)}"))
    for warning in tables.warnings(scores, titles):
        console.print(Text(warning, style="yellow"))


def _markdown(results: Sequence[Result], changes: Sequence[Changes]) -> str:
    titles, scores = [result.title for result in results], [result.scores for result in results]
    parts = [f"# Evaluation: {markdown(titles[-1])}"]
    if len(titles) > 1:
        parts.append(f"Differences are from {markdown(titles[0])}.")
    parts += [f"**{markdown(warning)}**" for warning in tables.warnings(scores, titles)]
    parts.append(_markdown_table(tables.level_table(scores), titles))
    parts += map(markdown_grid, quality.published_grids(results))
    parts += [markdown_grid(quality.level_change_grid(change)) for change in changes if not change.problem]
    for kind in ("categories", "benchmarks"):
        parts += [_markdown_table(table, titles) for _, table in tables.nested_tables(scores, kind)]
    for table in (tables.instance_table(scores), tables.group_table(scores), tables.scorer_table(scores)):
        if table.rows:
            parts.append(_markdown_table(table, titles))
    for grid in (
        quality.calibration_grid(results),
        quality.robustness_grid(results),
        *quality.efficiency_grids(results),
    ):
        if grid.rows:
            parts.append(markdown_grid(grid))
    parts.append(_markdown_table(tables.task_table(scores), titles))
    for result in results:
        if failures := result.scores.get("failures"):
            name = "Left out" if len(results) == 1 else f"Left out of {result.title}"
            rows = "\n".join(f"- {markdown(task)}: {markdown(told)}" for task, told in failures.items())
            parts.append(f"## {markdown(name)}\n\n{rows}")
    facts = [[name, *texts] for name, texts in tables.facts(scores).items()]
    parts.append("## How it was made\n\n" + _grid(["", *titles], facts))
    return "\n\n".join(parts) + "\n"


def markdown_grid(grid: quality.Grid) -> str:
    """A section of Markdown."""
    return f"## {markdown(grid.title)}\n\n{markdown(grid.note)}\n\n{_grid(grid.head, grid.rows)}"


def _markdown_table(table: Table, titles: Sequence[str]) -> str:
    columns = [
        f"{column}, {title}" if len(titles) > 1 else column for column in table.columns for title in titles
    ]
    rows = [[row.name, *row.details, *(str(s) for group in row.scores for s in group)] for row in table.rows]
    note = f"{table.note}\n\n" if table.note else ""
    return f"## {markdown(table.title)}\n\n{note}{_grid([*table.labels, *columns], rows)}"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell if cell == "---" else markdown(cell) for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    """Replaces the file in one step. Lone surrogates, which data may hold, are not UTF-8: they become "?"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(text.encode("utf-8", "replace"))
    temporary.replace(path)
    return path
