"""The figures of a study: scores over its settings, in the manner of the papers' figures."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from iml.evaluation.reports import charts, page
from iml.evaluation.reports.tables import Score, shots_title, words
from iml.evaluation.scores.aggregation import AVERAGE
from iml.markup import Markup, join, tag
from iml.studies.design import Design
from iml.studies.results import ALL, Cells, Scored, SuiteResults, place_name

#: The height that a chart's legend takes below it in a file of its own.
_LINE = 20
#: Letters of settings' names that find room below a chart; longer ones are numbered.
_LETTERS = 60


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart with what is needed to read it.

    Attributes:
      chart: a `figure` with one `svg`.
      lines: what its lines are, in the order of their colours.
      caption: what it shows; names the settings where the chart numbers them.
    """

    chart: Markup
    lines: tuple[str, ...]
    caption: str

    def html(self) -> Markup:
        """For a page that has the style sheet."""
        return tag("div", page.legend(self.lines), self.chart, tag("p", self.caption, class_="soft"))

    def svg(self) -> str:
        """A file of its own, its legend below the chart."""
        chart = self.chart[self.chart.index("<svg") : self.chart.rindex("</svg>")]
        opening, _, content = chart.partition(">")
        _, _, width, height = map(float, re.search(r'viewBox="([^"]*)"', opening)[1].split())
        marks = []
        for i, name in enumerate(self.lines):
            x, y = 42 + 200 * (i % 3), height + _LINE * (i // 3) + 12
            marks.append(tag("rect", x=f"{x}", y=f"{y - 9}", width="10", height="10", class_=page.colour(i)))
            marks.append(tag("text", name, x=f"{x + 16}", y=f"{y}", class_="tick"))
        height += _LINE * -(-len(self.lines) // 3) + 4
        opening = re.sub(r'viewBox="[^"]*"', f'viewBox="0 0 {width:g} {height:g}"', opening)
        opening = opening.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}"', 1)
        style = tag("style", Markup(page.style() + "svg { background: var(--page); font: 12px sans-serif; }"))
        return f"{opening}>{style}{content}{join(marks)}</svg>\n"


def draw(design: Design, results: SuiteResults) -> dict[str, Figure]:
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


def _grid(design: Design, rows: Sequence[Scored], results: SuiteResults) -> Figure:
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


def _convergence(rows: Sequence[Scored]) -> Figure:
    """The average on validation over training, as in figures 5 and 6 of arXiv 2301.13688."""
    steps = sorted({step for row in rows for step in row.curve})
    lines = {row.name: [Score(row.curve.get(step)) for step in steps] for row in rows}
    chart = charts.curve(steps, lines, "Validation over training")
    return Figure(chart, tuple(lines), "Mean over seeds on the validation split")


def _figure(names: Sequence[str], lines: Mapping[str, Sequence[Score]], axis: str, caption: str) -> Figure:
    told = caption
    if sum(map(len, names)) > _LETTERS:
        told += ". " + ", ".join(f"{number}: {name}" for number, name in enumerate(names, start=1))
        names = [str(number) for number in range(1, len(names) + 1)]
    chart = charts.curve(range(len(names)), lines, caption, names=names, axis=axis)
    return Figure(chart, tuple(lines), told)


def _score(cells: Cells, key: str) -> Score:
    cell = cells.get(key)
    return Score(cell["mean"], cell["low"], cell["high"]) if cell else Score(None)
