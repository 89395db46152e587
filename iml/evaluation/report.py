"""Writes what an evaluation found: scores.json, report.md, report.html, and a summary for the terminal."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iml.errors import InputError
from iml.evaluation import page, samples, tables
from iml.evaluation.tables import Row, Scores, Table
from iml.markup import markdown

if TYPE_CHECKING:
    from rich.console import Console

SCORES, MARKDOWN, PAGE = "scores.json", "report.md", "report.html"
#: With more tasks than this, one sample prompt of each instead of `samples.PER_TASK`.
_MANY_TASKS = 150


def write_scores(output_dir: str | os.PathLike[str], scores: Scores) -> pathlib.Path:
    """Writes what `aggregation.aggregate` returned to `scores.json`."""
    return _write(pathlib.Path(output_dir) / SCORES, json.dumps(scores, indent=1) + "\n")


def read_scores(output_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """The scores of an earlier evaluation.

    Raises:
      InputError: there are none, or the file is damaged.
    """
    path = pathlib.Path(output_dir) / SCORES
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


def write_report(
    output_dir: str | os.PathLike[str],
    results: Sequence[Scores],
    titles: Sequence[str],
    predictions: Sequence[Sequence[samples.Prediction]] = (),
) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes `report.md` and `report.html`; the page needs no other file and loads nothing.

    Args:
      output_dir: the folder.
      results: what `aggregation.aggregate` returned, the evaluation at hand last; differences are from the
        first.
      titles: of the results.
      predictions: of each result, from which samples are shown; () for none.

    Returns:
      The paths of the two files.
    """
    folder = pathlib.Path(output_dir)
    few = samples.PER_TASK if len(results[-1]["tasks"]) <= _MANY_TASKS else 1
    shown = samples.choose(predictions, titles, few) if predictions else {}
    return (
        _write(folder / MARKDOWN, _markdown(results, titles)),
        _write(folder / PAGE, _page(results, titles, shown)),
    )


def print_summary(results: Sequence[Scores], titles: Sequence[str], console: Console) -> None:
    """Prints the levels by shots, the tasks that failed and why results may not be compared."""
    from rich.table import Table as Printed
    from rich.text import Text

    content = tables.level_table(results)
    names = [
        f"{column}\n{title}" if len(titles) > 1 else column for column in content.columns for title in titles
    ]
    printed = Printed(title="scores")
    for name in (*content.labels, *names):
        printed.add_column(Text(name))
    for row in content.rows:
        cells = [score.short for scores in row.scores for score in scores]
        printed.add_row(*map(Text, (row.name, *row.details, *cells)))
    console.print(printed)
    for title, result in zip(titles, results, strict=True):
        if result.get("failures"):
            console.print(Text(f"{title}: tasks left out: {len(result['failures'])}"))
    for warning in tables.warnings(results, titles):
        console.print(Text(warning, style="yellow"))


def _markdown(results: Sequence[Scores], titles: Sequence[str]) -> str:
    parts = [f"# Evaluation: {markdown(titles[-1])}"]
    if len(titles) > 1:
        parts.append(f"Differences are from {markdown(titles[0])}.")
    parts += [f"**{markdown(warning)}**" for warning in tables.warnings(results, titles)]
    parts.append(_markdown_table(tables.level_table(results), titles))
    for kind in ("categories", "benchmarks"):
        parts += [_markdown_table(table, titles) for _, table in tables.nested_tables(results, kind)]
    for table in (tables.group_table(results), tables.scorer_table(results), tables.task_table(results)):
        if table.rows:
            parts.append(_markdown_table(table, titles))
    for name, rows in _failures(results, titles).items():
        parts.append(
            f"## {markdown(name)}\n\n" + "\n".join(f"- {markdown(t)}: {markdown(r)}" for t, r in rows.items())
        )
    facts = [[name, *texts] for name, texts in tables.facts(results).items()]
    parts.append("## How it was made\n\n" + _grid(["", *titles], facts))
    return "\n\n".join(parts) + "\n"


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


def _page(
    results: Sequence[Scores], titles: Sequence[str], shown: Mapping[str, Sequence[samples.Sample]]
) -> str:
    tag = page.tag
    title = f"Evaluation: {titles[-1]}"
    parts = [tag("h1", title)]
    if len(titles) > 1:
        parts += [page.legend(titles), tag("p", f"Differences are from {titles[0]}.", class_="soft")]
    parts += [tag("p", warning, class_="warning") for warning in tables.warnings(results, titles)]
    levels = tables.level_table(results)
    parts += [tag("h2", levels.title), tag("p", levels.note, class_="soft"), page.table(levels, titles)]
    parts.append(page.bars(levels.rows, levels.columns, titles))
    for kind in ("categories", "benchmarks"):
        parts.append(tag("h2", kind.capitalize()))
        for level, table in tables.nested_tables(results, kind):
            parts.append(tag("h3", tables.words(level)))
            if kind == "categories":
                # The mean over shots; the table has the rest.
                rows = [Row(row.name, (), row.scores[-1:]) for row in table.rows]
                parts.append(page.bars(rows, table.columns[-1:], titles))
            parts.append(page.table(table, titles))
    for table in (tables.group_table(results), tables.scorer_table(results), tables.task_table(results)):
        if table.rows:
            parts += [tag("h2", table.title), tag("p", table.note, class_="soft"), page.table(table, titles)]
    for name, rows in _failures(results, titles).items():
        parts += [tag("h2", name), page.plain_table({task: [reason] for task, reason in rows.items()})]
    if shown:
        parts += [tag("h2", "Sample predictions"), tag("p", "The first rows of each task.", class_="soft")]
        for task, found in shown.items():
            parts.append(tag("details", tag("summary", task), *map(page.sample, found)))
    parts += [tag("h2", "How it was made"), page.plain_table(tables.facts(results), titles)]
    return page.document(title, *parts)


def _failures(results: Sequence[Scores], titles: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """By heading, the tasks that were left out and why."""
    heading = "Left out" if len(titles) == 1 else "Left out of {}"
    return {
        heading.format(title): result["failures"]
        for title, result in zip(titles, results, strict=True)
        if result.get("failures")
    }


def _write(path: pathlib.Path, text: str) -> pathlib.Path:
    """Replaces the file in one step. Lone surrogates, which data may hold, are not UTF-8: they become "?"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(text.encode("utf-8", "replace"))
    temporary.replace(path)
    return path
