"""Writes what a study found: results.json, table.csv, study.md, tables.tex, study.html and its figures.

All of them hold the same tables in the papers' layout: a row for each setting, columns by level and category,
scores with 0 and with more demonstrations in one cell, as in tables 4 and 5 of arXiv 2212.12017.
"""

from __future__ import annotations

import csv
import io
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from iml.evaluation.reports import page
from iml.evaluation.reports.quality import Grid
from iml.evaluation.reports.report import markdown_grid, write
from iml.evaluation.reports.tables import shots_title, words
from iml.evaluation.scores.aggregation import AVERAGE
from iml.markup import Markup, markdown, tag
from iml.studies import figures
from iml.studies.figures import Figure
from iml.studies.published import find_tables
from iml.studies.results import ALL, Cells, Scored, SuiteResults, collect, place_name
from iml.studies.runs import Plan

RESULTS, TABLE, MARKDOWN, LATEX, PAGE = "results.json", "table.csv", "study.md", "tables.tex", "study.html"
_NONE = "–"


def write_report(plan: Plan) -> tuple[list[SuiteResults], pathlib.Path]:
    """Collects what is there and writes all files.

    Returns:
      The results by suite, and the page.

    Raises:
      InputError: as `results.collect`.
    """
    every = [collect(plan, suite) for suite in plan.design.suites]
    folder = plan.folder
    record = {"study": plan.design.name, "suites": [results.to_json() for results in every]}
    write(folder / RESULTS, json.dumps(record, indent=1) + "\n")
    write(folder / TABLE, _csv(plan, every))
    drawn = {results.suite: figures.draw(plan.design, results) for results in every}
    for results in every:
        for name, figure in drawn[results.suite].items():
            write(folder / f"{_file(results.suite)}-{name}.svg", figure.svg())
    sections = [(results, suite_grids(plan, results)) for results in every]
    write(folder / MARKDOWN, _markdown(plan, sections, drawn))
    write(folder / LATEX, "\n".join(_latex(grid) for _, grids in sections for grid in grids))
    return every, write(folder / PAGE, _html(plan, sections, drawn))


def suite_grids(plan: Plan, results: SuiteResults) -> list[Grid]:
    """The tables of a suite."""
    grids = [_levels(results), _differences(results), *_categories(results)]
    suffix = f", {results.suite}" if len(plan.design.suites) > 1 else ""
    return [Grid(grid.title + suffix, grid.note, grid.head, grid.rows) for grid in grids]


def summary(results: SuiteResults) -> Grid:
    """What fits a terminal: each setting's mean over all categories, and its difference from the baseline."""
    keys = _keys(results)
    rows = []
    for row in results.rows:
        whole, less = row.scores.get(ALL, {}), row.differences.get(ALL, {}).get(keys[-1], {})
        means = (f"{whole[key]['mean']:.1f}" if key in whole else _NONE for key in keys)
        rows.append((_name(results, row), *means, _interval(less, "difference"), _p(less.get("p"))))
    head = ("setting", *map(shots_title, keys), f"from {results.baseline}", "p")
    return Grid(f"{results.suite}: means over all categories", "", head, tuple(rows))


def selection(results: SuiteResults) -> str:
    """Which setting section 4.1's rule picks, and which others are no worse as far as can be told."""
    if results.selected is None:
        return "No setting has results yet."
    close = [
        row.name
        for row in results.rows
        if row.behind and row.name != results.selected and row.behind["p"] is not None
        and row.behind["p"] >= 0.05
    ]  # fmt: skip
    told = f"Selected by the average over categories and numbers of shots (section 4.1): {results.selected}."
    if close:
        told += f" Not told apart from it (p >= 0.05): {'; '.join(close)}."
    return told


def published_grids(names: Sequence[str]) -> list[Grid]:
    """The papers' tables of these names, which are other models' on other tasks."""
    return [
        Grid(
            f"Published: {table['source']}",
            table["note"],
            tuple(table["head"]),
            tuple(tuple(map(str, row)) for row in table["rows"]),
        )
        for table in find_tables(names)
    ]


def _levels(results: SuiteResults) -> Grid:
    levels = [place for place in results.places if not place[1]]
    head = ["setting", "seeds"]
    head += [f"{words(place_name(place))} {_shots(results)}" for place in levels]
    head += [f"{shots_title(key)} of all" for key in _keys(results)]
    rows = [
        (
            _name(results, row),
            "/".join(map(str, row.seeds)),
            *(_cell(row.scores.get(place), results) for place in levels),
            *(_interval(row.scores.get(ALL, {}).get(key), "mean") for key in _keys(results)),
        )
        for row in results.rows
    ]
    note = (
        "Means over the categories of each level and of all levels; 95 % intervals over examples and seeds."
    )
    note += " The selected setting is starred." + _missing(results)
    return Grid("Levels", note, tuple(head), tuple(rows))


def _differences(results: SuiteResults) -> Grid:
    baseline = results.baseline
    levels = [place for place in results.places if not place[1]]
    head = ["setting", "average", "p", "p over tasks"]
    head += [
        f"{words(place_name(place))} {shots_title(key)}" for place in levels for key in _numbers(results)
    ]
    rows = []
    for row in results.rows:
        if not row.differences:
            continue
        whole = row.differences[ALL].get(AVERAGE, {})
        rows.append(
            (
                row.name,
                _interval(whole, "difference"),
                _p(whole.get("p")),
                _p(whole.get("over_tasks", {}).get("p")),
                *(
                    _interval(row.differences.get(place, {}).get(key), "difference")
                    for place in levels
                    for key in _numbers(results)
                ),
            )
        )
    note = (
        f"Each setting less {baseline}, on the same prompts and seeds: 95 % intervals and two-sided p of the"
    )
    note += " paired bootstrap over examples; the second p draws the tasks of each category as well."
    return Grid(f"Differences from {baseline}", note, tuple(head), tuple(rows))


def _categories(results: SuiteResults) -> list[Grid]:
    """By level, in the papers' layout."""
    grids = []
    for level in dict.fromkeys(place[0] for place in results.places if place[0]):
        places = [place for place in results.places if place[0] == level and place[1]]
        rows = tuple(
            (_name(results, row), *(_cell(row.scores.get(place), results) for place in places))
            for row in results.rows
        )
        head = ("setting", *(category for _, category in places))
        grids.append(Grid(f"Categories, {words(level)}", f"{_shots(results)}.", head, rows))
    return grids


def _csv(plan: Plan, every: Sequence[SuiteResults]) -> str:
    """A line for each score: what a program reads."""
    factors = [factor.name for factor in plan.design.factors]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["suite", "setting", *factors, "seeds", "level", "category", "shots", "mean", "low", "high", "tasks",
         "examples", "difference", "difference_low", "difference_high", "p", "p_over_tasks"]
    )  # fmt: skip
    for results in every:
        for row in results.rows:
            for (level, category), cells in row.scores.items():
                for shots, cell in cells.items():
                    less = row.differences.get((level, category), {}).get(shots, {})
                    writer.writerow(
                        [results.suite, row.name, *(row.values.get(name, "") for name in factors),
                         row.seeds[0], level, category, shots,
                         *(cell[key] for key in ("mean", "low", "high", "tasks", "examples")),
                         *(less.get(key, "") for key in ("difference", "low", "high", "p")),
                         less.get("over_tasks", {}).get("p", "")]
                    )  # fmt: skip
    return file.getvalue()


def _markdown(plan: Plan, sections, drawn: Mapping[str, Mapping[str, Figure]]) -> str:
    design = plan.design
    parts = [f"# {markdown(design.title)}", *([markdown(design.note)] if design.note else [])]
    parts.append("\n".join(f"- {markdown(name)}: {markdown(text)}" for name, text in _facts(plan).items()))
    for results, grids in sections:
        parts.append(markdown(selection(results)))
        parts += [
            f"![{markdown(design.title)}, {name}]({_file(results.suite)}-{name}.svg)\n\n{markdown(figure.caption)}."
            for name, figure in drawn[results.suite].items()
        ]
        parts += [markdown_grid(grid) for grid in grids]
    parts += [markdown_grid(grid) for grid in published_grids(design.published)]
    return "\n\n".join(parts) + "\n"


def _html(plan: Plan, sections, drawn: Mapping[str, Mapping[str, Figure]]) -> str:
    design = plan.design
    several = len(sections) > 1
    parts = [tag("h1", design.title), *([page.note(design.note)] if design.note else [])]
    parts.append(page.plain_table({name: (text,) for name, text in _facts(plan).items()}))
    for results, grids in sections:
        parts.append(page.heading(f"Results, {results.suite}" if several else "Results"))
        parts.append(tag("p", selection(results)))
        parts += [figure.html() for figure in drawn[results.suite].values()]
        for grid in grids:
            parts += _section(grid)
    published = published_grids(design.published)
    if published:
        parts.append(page.heading("What the papers found"))
        parts.append(page.note("Other models on other tasks: to be compared in direction, not in height."))
    for grid in published:
        parts += _section(grid)
    return page.document(design.title, *parts)


def _section(grid: Grid) -> list[Markup]:
    return [tag("h3", grid.title), page.note(grid.note), page.grid(grid.head, grid.rows)]


def _latex(grid: Grid) -> str:
    """A `tabular` of the booktabs package."""
    lines = [
        f"% {grid.title}. {grid.note}",
        rf"\begin{{tabular}}{{l{'r' * (len(grid.head) - 1)}}}",
        r"\toprule",
    ]
    lines.append(" & ".join(map(_tex, grid.head)) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(map(_tex, row)) + r" \\" for row in grid.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", _NONE: "--"}
_TEX |= {sign: rf"\{sign}" for sign in "&%$#_{}"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)


def _facts(plan: Plan) -> dict[str, str]:
    design = plan.design
    settings = [row for row in plan.rows if row.values]
    runs = {name for row in settings for name in row.runs}
    tokens = sorted({run.tokens for run in plan.runs if run.name in runs})
    told = f"{tokens[0]:,}" if len(tokens) == 1 else f"{tokens[0]:,} to {tokens[-1]:,}"
    return {
        "base run": design.base.name,
        "settings": f"{len(settings)}, which come to {len(runs)} runs",
        "seeds": ", ".join(map(str, design.seeds)),
        "tokens of a run": told,
        "varied": ", ".join(factor.name for factor in design.factors),
    }


def _missing(results: SuiteResults) -> str:
    problems = [f"{row.name}: {row.problem}" for row in results.rows if row.problem]
    told = f" Incomplete: {'; '.join(problems)}." if problems else ""
    if results.left_out:
        told += f" Tasks that some run lacks do not count: {', '.join(results.left_out)}."
    return told


def _name(results: SuiteResults, row: Scored) -> str:
    return f"{row.name} *" if row.name == results.selected else row.name


def _numbers(results: SuiteResults) -> list[str]:
    return [str(number) for number in results.shots]


def _keys(results: SuiteResults) -> list[str]:
    return [*_numbers(results), *([AVERAGE] if len(results.shots) > 1 else [])]


def _shots(results: SuiteResults) -> str:
    return f"{'/'.join(map(str, results.shots))}-shot"


def _cell(cells: Cells | None, results: SuiteResults) -> str:
    """Scores at each number of shots, as `41.2/43.0`."""
    found = [(cells or {}).get(key) for key in _numbers(results)]
    if not any(found):
        return _NONE
    return "/".join(_NONE if cell is None else f"{cell['mean']:.1f}" for cell in found)


def _interval(cell: Mapping[str, Any] | None, key: str) -> str:
    if not cell:
        return _NONE
    sign = "+" if key == "difference" else ""
    low, high = cell["low"], cell["high"]
    return f"{cell[key]:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _p(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _file(suite: str) -> str:
    return re.sub(r"[^\w.-]+", "-", suite).strip("-") or "suite"
