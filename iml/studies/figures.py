"""The figures of a study: scores over its settings, in the manner of the papers' figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from iml.evaluation.reports import charts, page
from iml.evaluation.reports.tables import Score, shots_title, words
from iml.evaluation.scores.aggregation import AVERAGE
from iml.markup import Markup, tag
from iml.studies.design import Design
from iml.studies.results import ALL, Cells, Scored, SuiteResults, place_name

#: The height that a chart's legend takes below it in a file of its own.
_LINE = 20
#: Letters of settings' names that find room below a chart; longer ones are numbered.
_LETTERS = 60


def draw(design: Design, results: SuiteResults) -> dict[str, Markup]:
    """Figures by name: `shots`, the mean over all by number of shots, and `levels`; of a grid, `grid`; and where
    checkpoints are compared, `convergence`."""
    rows = [row for row in results.rows if row.values and row.scores]
    if len(rows) < 2:
        return {}
    if all(row.curve for row in rows):
        return {"convergence": _convergence(rows)}
    if len(design.factors) == 2:
        return {"grid": _grid(design, rows, results)}
    names, axis = [row.name for row in rows], design.factors[0].name
    shots = {
        shots_title(str(number)): [_score(row.scores[ALL], str(number)) for row in rows]
        for number in results.shots
    }
    average = AVERAGE if len(results.shots) > 1 else str(results.shots[0])
    levels = {
        words(place_name(place)): [_score(row.scores.get(place, {}), average) for row in rows]
        for place in results.places
        if place[0] and not place[1]
    }
    return {
        "shots": _figure(names, shots, axis, "Mean over all categories"),
        "levels": _figure(names, levels, axis, "Mean over each level's categories"),
    }


def standalone(figure: Markup) -> str:
    """A figure as an SVG file of its own, its legend below the chart."""
    names = re.findall(r"<i class=\"r\d+\"></i>([^<]*)</span>", figure)
    svg = figure[figure.index("<svg") : figure.rindex("</svg>")]
    opening = svg[: svg.index(">") + 1]
    width, height = (float(part) for part in re.search(r'viewBox="0 0 (\S+) (\S+)"', opening).groups())
    marks = []
    for i, name in enumerate(names):
        y = height + _LINE * (i // 3) + 12
        x = 42 + 200 * (i % 3)
        marks.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" class="r{i % page.COLOURS}"/>')
        marks.append(f'<text x="{x + 16}" y="{y}" class="tick">{name}</text>')
    height += _LINE * -(-len(names) // 3) + 4
    opening = re.sub(r'viewBox="[^"]*"', f'viewBox="0 0 {width:g} {height:g}"', opening)
    opening = opening.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}"', 1)
    style = tag(
        "style", Markup(page.style()), Markup(" svg { background: var(--page); font: 12px sans-serif; }")
    )
    return f"{opening}{style}{svg[svg.index('>') + 1 :]}{''.join(marks)}</svg>\n"


def _grid(design: Design, rows: Sequence[Scored], results: SuiteResults) -> Markup:
    """The last factor along the axis, a line for each value of the first."""
    lines_of, along = design.factors
    names = list(along.values)
    average = AVERAGE if len(results.shots) > 1 else str(results.shots[0])
    found = {tuple(row.values.values()): row for row in rows}
    lines = {
        value: [
            _score(row.scores[ALL], average) if (row := found.get((value, name))) else Score(None)
            for name in names
        ]
        for value in lines_of.values
        if any((value, name) in found for name in names)
    }
    return _figure(names, lines, along.name, f"Mean over all categories, by {lines_of.name}")


def _convergence(rows: Sequence[Scored]) -> Markup:
    """The average on validation over training, as in figures 5 and 6 of arXiv 2301.13688."""
    steps = sorted({step for row in rows for step in row.curve})
    lines = {row.name: [Score(row.curve.get(step)) for step in steps] for row in rows}
    chart = charts.curve(steps, lines, "Validation over training")
    told = tag("p", "Mean over seeds on the validation split", class_="soft")
    return tag("div", page.legend(list(lines)), chart, told)


def _figure(names: Sequence[str], lines: Mapping[str, Sequence[Score]], axis: str, caption: str) -> Markup:
    told = caption
    if sum(map(len, names)) > _LETTERS:
        told += ". " + ", ".join(f"{number}: {name}" for number, name in enumerate(names, start=1))
        names = [str(number) for number in range(1, len(names) + 1)]
    chart = charts.curve(range(len(names)), lines, caption, names=names, axis=axis)
    return tag("div", page.legend(list(lines)), chart, tag("p", told, class_="soft"))


def _score(cells: Cells, key: str) -> Score:
    cell = cells.get(key)
    return Score(cell["mean"], cell["low"], cell["high"]) if cell else Score(None)
