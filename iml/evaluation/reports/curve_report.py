"""Evaluates the checkpoints of a run and writes the curve over training: curve.json, curve.md and curve.html."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from iml.errors import InputError
from iml.evaluation.reports import charts, page, report
from iml.evaluation.reports.curve import Curve, draw, scores
from iml.evaluation.reports.quality import Grid, interval_text, p_text
from iml.evaluation.reports.tables import shots_title, words
from iml.evaluation.results.result import failed_tasks
from iml.evaluation.scores.aggregation import AVERAGE
from iml.markup import Markup, tag
from iml.training.distributed import agreed

JSON, MARKDOWN, PAGE = "curve.json", "curve.md", "curve.html"

_RULE = (
    "A checkpoint's average is the mean over the categories of all levels, at each number of shots and then over "
    "these, as in section 4.1 of the paper (arXiv 2212.12017). The highest is picked; of equals, the earlier step. "
    "Bands are 95 % bootstrap intervals over examples; the table also has those over the tasks of each category."
)


def evaluate_steps(
    run_dir: str,
    output_dir: str | os.PathLike[str],
    steps: Sequence[int],
    asked: Mapping[str, Any],
    evaluate: Callable[[str, str], Any],
    tell: Callable[[str], None],
    process: int = 0,
) -> Curve | None:
    """Evaluates the checkpoints whose results are not there yet, and draws the curve.

    Of several processes all evaluate what the first one lacks; that one alone reads, tells and draws.

    Args:
      run_dir: the run.
      output_dir: gets a folder for each step, and the curve.
      steps: of its checkpoints.
      asked: entries that the headers of results have, if they are to be taken as they are.
      evaluate: evaluates a model into a folder.
      tell: is told which step's turn it is.
      process: the number of this process.

    Returns:
      The curve; None in other processes than the first.
    """
    folder, checkpoints = pathlib.Path(output_dir), epath.Path(run_dir) / "checkpoints"
    ahead = agreed(
        [step for step in steps if not finished(folder / str(step), checkpoints / str(step), asked)]
    )
    for number, step in enumerate(steps, start=1):
        if process == 0:
            known = "" if step in ahead else ": already evaluated"
            tell(f"step {step}, {number} of {len(steps)}{known}")
        if step in ahead:
            evaluate(os.fspath(checkpoints / str(step)), os.fspath(folder / str(step)))
    if process > 0:
        return None
    curve = draw({step: report.read_result(folder / str(step), f"step {step}") for step in steps})
    write_curve(folder, curve)
    return curve


def finished(folder: pathlib.Path, checkpoint: epath.Path, asked: Mapping[str, Any]) -> bool:
    """Whether a folder holds all results of a checkpoint that was asked this, and was not written since."""
    try:
        found = report.read_scores(folder)
        newer = (folder / report.SCORES).stat().st_mtime >= checkpoint.stat().mtime
    except (InputError, OSError):
        return False
    header = found["header"]
    wanted = json.loads(json.dumps({**asked, "model": os.fspath(checkpoint)}))
    same = all(header.get(name) == value for name, value in wanted.items())
    return newer and same and not failed_tasks(found)


def write_curve(output_dir: str | os.PathLike[str], curve: Curve) -> pathlib.Path:
    """Writes the three files; gives the page's path."""
    folder = pathlib.Path(output_dir)
    report.write(folder / JSON, json.dumps(curve.to_json(), indent=1) + "\n")
    lines = [f"# Curve over training: step {curve.chosen:,} is picked", _RULE]
    lines += [f"**{warning}**" for warning in _warnings(curve)]
    lines += [report.markdown_grid(_grid(curve))]
    report.write(folder / MARKDOWN, "\n\n".join(lines) + "\n")
    return report.write(folder / PAGE, _page(curve))


def _page(curve: Curve) -> str:
    steps = [point.step for point in curve.points]
    keys = [*map(str, curve.shots), AVERAGE]
    averages = {shots_title(key): scores(curve, key) for key in keys}
    levels = {words(level): scores(curve, AVERAGE, level) for level in curve.points[-1].levels}
    grid = _grid(curve)
    chosen = next(point for point in curve.points if point.step == curve.chosen)
    told = f"Step {curve.chosen:,} is picked: {scores(curve, AVERAGE)[curve.points.index(chosen)]}."
    cells = [scores(curve, key) for key in keys]
    cells += [scores(curve, AVERAGE, level) for level in curve.points[-1].levels]
    rows = []
    for i, (first, *rest) in enumerate(grid.rows):
        name = tag("b", first) if curve.points[i].step == curve.chosen else first
        rows.append((name, *(page.score_cell(column[i]) for column in cells), *rest[len(cells) :]))
    parts: list[Markup] = [
        tag("h1", "Curve over training"),
        tag("p", tag("b", told)),
        page.note(_RULE),
        *(tag("p", warning, class_="warning") for warning in _warnings(curve)),
        page.heading("Average over categories"),
        page.legend(list(averages)),
        charts.curve(steps, averages, "Average over categories", curve.chosen),
        page.heading("Levels"),
        page.note("Mean over the numbers of shots."),
        page.legend(list(levels)),
        charts.curve(steps, levels, "Levels", curve.chosen),
        page.heading(grid.title),
        page.note(grid.note),
        page.grid(grid.head, rows),
    ]
    return page.document("Curve over training", *parts)


def _grid(curve: Curve) -> Grid:
    levels = list(curve.points[-1].levels)
    keys = [*map(str, curve.shots), AVERAGE]
    columns = [scores(curve, key) for key in keys] + [scores(curve, AVERAGE, level) for level in levels]
    rows = tuple(
        (
            f"{point.step:,}",
            *(str(column[i]) for column in columns),
            f"{-point.behind['difference']:+.1f}" if point.step != curve.chosen else "picked",
            interval_text(point.behind, negative=True) if point.step != curve.chosen else "",
            p_text(point.behind["p"]) if point.step != curve.chosen else "",
        )
        for i, point in enumerate(curve.points)
    )
    head = ("step", *map(shots_title, keys), *map(words, levels), "from the picked", "interval", "p")
    note = (
        f"Over {curve.tasks:,} tasks. Differences from the picked step are paired. The picked step was chosen for "
        "its score, which is therefore a little too high, and p-values a little too low."
    )
    return Grid("Checkpoints", note, head, rows)


def _warnings(curve: Curve) -> list[str]:
    if not curve.left_out:
        return []
    some = ", ".join(curve.left_out[:5])
    return [f"{len(curve.left_out):,} tasks do not count, since a checkpoint lacks them: {some}."]
