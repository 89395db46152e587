"""The report as one page: what an evaluation comes to, down to prompts and predictions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from iml.evaluation.reports import charts, page, quality, tables
from iml.evaluation.reports.quality import Grid
from iml.evaluation.reports.tables import Row
from iml.evaluation.results import samples
from iml.evaluation.results.changes import PER_TASK, Changes
from iml.evaluation.results.confusion import Confusion, confuse
from iml.evaluation.results.result import Result
from iml.evaluation.scores.units import group
from iml.markup import Markup, join, tag, void

#: Sample prompts of all tasks together, about; of many tasks, fewer each.
_SAMPLES = 1200
#: Characters of their texts, about.
_CHARACTERS = 3_000_000
#: Tasks whose changed answers are shown.
_CHANGED = 100


def render(results: Sequence[Result], changes: Sequence[Changes]) -> str:
    """The page.

    Args:
      results: the evaluation at hand last; differences are from the first.
      changes: from the first result to each other.
    """
    titles = [result.title for result in results]
    scores = [result.scores for result in results]
    title = f"Evaluation: {titles[-1]}"
    sections = [
        ("Levels", _levels(scores, titles)),
        ("Published figures", [_grid(grid) for grid in quality.published_grids(results)]),
        ("Categories", _categories(scores, titles)),
        ("Changes", [part for change in changes for part in _changes(change)]),
        ("Benchmarks", _nested(scores, titles, "benchmarks")),
        *(
            (found.title, _table(found, titles))
            for found in (
                tables.instance_table(scores),
                tables.group_table(scores),
                tables.scorer_table(scores),
            )
        ),
        ("Calibration", _calibration(results, titles)),
        ("Robustness over templates", _quality(quality.robustness_grid(results))),
        ("Efficiency", [_grid(grid) for grid in quality.efficiency_grids(results)]),
        ("Tasks", _tasks(results)),
        ("Left out", _failures(results)),
        ("How it was made", [page.plain_table(tables.facts(scores), titles)]),
    ]
    sections = [(name, parts) for name, parts in sections if parts]
    top = [tag("a", "Skip to the scores", href="#levels", class_="skip"), tag("h1", title)]
    if len(titles) > 1:
        top += [page.legend(titles), page.note(f"Differences are from {titles[0]}.")]
    top += [tag("p", warning, class_="warning") for warning in tables.warnings(scores, titles)]
    top.append(page.contents([name for name, _ in sections]))
    body = [part for name, parts in sections for part in (page.heading(name), *parts)]
    return page.document(title, *top, *body, script=True)


def _levels(scores: Sequence[tables.Scores], titles: Sequence[str]) -> list[Markup]:
    levels = tables.level_table(scores)
    return [
        page.note(levels.note),
        page.table(levels, titles),
        charts.bars(levels.rows, levels.columns, titles),
    ]


def _categories(scores: Sequence[tables.Scores], titles: Sequence[str]) -> list[Markup]:
    parts = []
    for level, content in tables.nested_tables(scores, "categories"):
        parts.append(tag("h3", tables.words(level)))
        # The mean over shots; the table has the rest.
        rows = [Row(row.name, (), row.scores[-1:]) for row in content.rows]
        parts.append(charts.bars(rows, content.columns[-1:], titles))
        if len(rows) in charts.RADAR_AXES:
            parts.append(charts.radar(rows, titles))
        parts.append(page.table(content, titles))
    return parts


def _nested(scores: Sequence[tables.Scores], titles: Sequence[str], kind: str) -> list[Markup]:
    return [
        part
        for level, content in tables.nested_tables(scores, kind)
        for part in (tag("h3", tables.words(level)), page.table(content, titles))
    ]


def _table(content: tables.Table, titles: Sequence[str]) -> list[Markup]:
    return [page.note(content.note), page.table(content, titles)] if content.rows else []


def _quality(content: Grid) -> list[Markup]:
    return [page.note(content.note), page.grid(content.head, content.rows)] if content.rows else []


def _grid(content: Grid, level: str = "h3") -> Markup:
    rows = [
        [tag("span", text, class_="other") if i in content.others else text for i, text in enumerate(row)]
        for row in content.rows
    ]
    head = [
        tag("span", text, class_="other title") if i in content.others else text
        for i, text in enumerate(content.head)
    ]
    note = [page.note(content.note)] if content.note else []
    return join([tag(level, content.title), *note, page.grid(head, rows)])


def _calibration(results: Sequence[Result], titles: Sequence[str]) -> list[Markup]:
    content = quality.calibration_grid(results)
    figures = []
    for level, shots in dict.fromkeys((row[0], row[1]) for row in content.rows):
        found = [_bins(result, level, shots) for result in results]
        figures.append(charts.reliability(found, titles, f"{level}, {shots}"))
    return [*_quality(content), tag("div", *figures, class_="side")] if content.rows else []


def _bins(result: Result, level: str, shots: str) -> Mapping[str, Any] | None:
    cells = result.scores.get("calibration", {}).get(level.replace(" ", "_"), {})
    return cells.get(shots.removesuffix("-shot"))


def _changes(content: Changes) -> list[Markup]:
    if content.problem:
        heading = tag("h3", f"{content.second} less {content.first}")
        return [heading, tag("p", f"Not compared: {content.problem}", class_="warning")]
    shown = [change for change in content.tasks if change.samples][:_CHANGED]
    answers = [
        tag(
            "details",
            tag("summary", change.task, tag("small", f"+{change.gained:,} right, −{change.lost:,} right")),
            *map(page.sample, change.samples),
        )
        for change in shown
    ]
    return [
        _grid(quality.level_change_grid(content)),
        _grid(quality.category_change_grid(content), "h4"),
        _grid(quality.task_change_grid(content), "h4"),
        tag("h4", "Answers that changed"),
        page.note(f"Of each task up to {PER_TASK} that became right and {PER_TASK} that became wrong."),
        tag("details", tag("summary", f"{len(shown):,} tasks"), *answers),
    ]


def _tasks(results: Sequence[Result]) -> list[Markup]:
    content = tables.task_table([result.scores for result in results])
    titles = [result.title for result in results]
    facts = {name: task for result in results for name, task in result.scores["tasks"].items()}
    shown: Mapping[str, Sequence[samples.Sample]] = {}
    asked = len(facts) * max(1, len(results[-1].scores["shots"]))
    few = max(1, min(samples.PER_TASK, _SAMPLES // asked))
    prompts = "prompt" if few == 1 else "prompts"
    longest = max(400, min(samples.LONGEST, _CHARACTERS // (asked * few)))
    if results[-1].predictions:
        metrics = {name: task["metric"] for name, task in facts.items()}
        shown = samples.choose([result.predictions for result in results], titles, metrics, few, longest)
    lines = [group(result.predictions, lambda line: line["task"]) for result in results]
    total = sum(len(result.predictions) for result in results[-1:])
    note = (
        f"{content.note} Below, every task opens to its details and up to {few} {prompts} for each number of "
        f"shots, wrong answers first; texts beyond {longest:,} characters are cut in the middle. "
        f"All {total:,} predictions are in results.jsonl."
    )
    rows = {row.name: row for row in content.rows}
    details = []
    for name, task in sorted(facts.items()):
        confusions = [
            (title, shots, found)
            for title, by_task in zip(titles, lines, strict=True)
            for shots, part in group(by_task.get(name, ()), lambda line: line["shots"]).items()
            if (found := confuse(part))
        ]
        details.append(_task(name, task, rows[name], results, shown.get(name, ()), confusions))
    return [
        page.note(note),
        page.table(content, titles),
        tag("h3", "Prompts and predictions"),
        _filter(facts),
        *details,
    ]


def _filter(facts: Mapping[str, Mapping[str, Any]]) -> Markup:
    """The form that narrows the tasks down; without scripts it stays hidden."""

    def choice(label: str, name: str, options: Mapping[str, str]) -> Markup:
        entries = (tag("option", text, value=value) for value, text in {"": "all", **options}.items())
        return tag("label", label, tag("select", *entries, name=name, autocomplete="off"))

    levels = {name: tables.words(name) for name in dict.fromkeys(task["level"] for task in facts.values())}
    categories = {name: name for name in sorted({task["category"] for task in facts.values()})}
    answers = {"wrong": "wrong", "right": "right", "changed": "changed between results"}
    words = tag("label", "words in names, prompts and answers",
                void("input", type="search", name="words", autocomplete="off"))  # fmt: skip
    return tag(
        "form",
        words,
        choice("level", "level", levels),
        choice("category", "category", categories),
        choice("answers", "answers", answers),
        tag("output", id="count", role="status"),
        id="filter",
        class_="fields",
        hidden=True,
    )


def _task(
    name: str,
    task: Mapping[str, Any],
    row: Row,
    results: Sequence[Result],
    shown: Sequence[samples.Sample],
    confusions: Sequence[tuple[str, int, Confusion]],
) -> Markup:
    told = " · ".join(
        [tables.words(task["level"]), task["category"], *(score.short for score in row.scores[-1])]
    )
    parts = [_numbers(name, results)]
    if confusions:
        parts.append(tag("h4", "Right answers (rows) by answers given (columns)"))
        parts.append(tag("div", *(_confusion(*found, len(results)) for found in confusions), class_="side"))
    parts += [page.sample(found) for found in shown]
    return tag(
        "details",
        tag("summary", name, tag("small", told)),
        *parts,
        class_="task",
        data_level=task["level"],
        data_category=task["category"],
    )


def _numbers(name: str, results: Sequence[Result]) -> Markup:
    """Metrics, scorers, spread over templates and flags of a task, by result and number of shots."""
    columns = [(i, str(shots)) for i, result in enumerate(results) for shots in result.scores["shots"]]
    told: dict[str, dict[tuple[int, str], str]] = defaultdict(dict)
    for i, result in enumerate(results):
        task = result.scores["tasks"].get(name, {})
        for metric, values in task.get("metrics", {}).items():
            told[metric] |= {(i, key): f"{value:.1f}" for key, value in values.items()}
        for scorer, values in task.get("scorers", {}).items():
            told[f"accuracy by {scorer}"] |= {(i, key): f"{value:.1f}" for key, value in values.items()}
        for key, values in result.scores.get("seqio", {}).get(name, {}).items():
            for metric, value in values.items():
                text = f"{value:.4g}" if isinstance(value, int | float) else str(value)
                told[f"{metric}, of the SeqIO task"][i, key] = text
        for key, spread in task.get("templates", {}).items():
            found = f"{spread['min']:.1f} to {spread['max']:.1f} (of {spread['templates']})"
            told["worst to best template"][i, key] = found
        for key, found in task.get("calibration", {}).items():
            told["calibration error"][i, key] = f"{found['ece']:.1f}"
        if flags := task.get("flags"):
            first = str(result.scores["shots"][0])
            counted = ", ".join(f"{count:,} {flag}" for flag, count in flags.items())
            told["flags, at all shots"][i, first] = counted
    head = [
        ", ".join([results[i].title] * (len(results) > 1) + [tables.shots_title(shots)])
        for i, shots in columns
    ]
    rows = [(label, *(values.get(column, "–") for column in columns)) for label, values in told.items()]
    return page.grid(["", *head], rows)


def _confusion(title: str, shots: int, found: Confusion, results: int) -> Markup:
    caption = f"{title}, {shots}-shot" if results > 1 else f"{shots}-shot"
    caption += ", by place among the candidates" if found.kind == "places" else ""
    most = max((max(row) for row in found.counts), default=0) or 1
    head = tag("tr", tag("td"), *(tag("th", text, scope="col") for text in found.columns))
    body = (
        tag(
            "tr",
            tag("th", label, scope="row"),
            *(
                tag("td", f"{count:,}", class_="right" if label == column else False,
                    style=f"background: rgb(var(--heat) / {0.45 * count / most:.2f})")
                for column, count in zip(found.columns, row, strict=True)
            ),
        )
        for label, row in zip(found.labels, found.counts, strict=True)
    )  # fmt: skip
    content = tag(
        "table", tag("caption", caption), tag("thead", head), tag("tbody", *body), class_="confusion"
    )
    return tag("div", content, class_="scroll", tabindex="0")


def _failures(results: Sequence[Result]) -> list[Markup]:
    parts = []
    for result in results:
        if failures := result.scores.get("failures"):
            if len(results) > 1:
                parts.append(tag("h3", result.title))
            parts.append(page.plain_table({task: [reason] for task, reason in failures.items()}))
    return parts
