"""The tables of a report, from one or several results side by side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from iml.bench.levels import LEVELS
from iml.evaluation.scores.aggregation import AVERAGE

Scores = Mapping[str, Any]

#: What a report tells of each result: the header's entries, and those of its suite.
_FACTS = ("model", "model_hash", "dtype", "attention", "bos", "max_length", "seed", "store", "vocabulary")
_SUITE_FACTS = ("name", "split", "split_scheme", "max_prompts_per_task", "primary_scorer", "decoding")
#: Results that differ in one of these, or in a part of one, were not asked or not judged the same.
_COMPARABLE = ("seed", "store", "bos", "max_length", "dtype")
_COMPARABLE_OF_SUITE = (
    *("split", "other_split", "split_scheme", "shots", "max_prompts_per_task", "format", "decoding"),
    *("primary_scorer", "metric"),
)
#: Characters shown of a setting in which results differ.
_LONGEST = 60


@dataclasses.dataclass(frozen=True)
class Score:
    """A cell of a table: a score from 0 to 100.

    Attributes:
      mean: None where there is none.
      low, high: its 95 % interval, or None.
      difference: from the first result, or None.
      over_tasks: the 95 % interval where tasks are drawn as well, or None.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    over_tasks: tuple[float, float] | None = None

    @classmethod
    def of(cls, cell: Mapping[str, Any], difference: float | None = None) -> Self:
        """From a cell of scores.json."""
        wider = cell.get("over_tasks")
        bounds = (wider["low"], wider["high"]) if wider else None
        return cls(cell["mean"], cell["low"], cell["high"], difference, bounds)

    def __str__(self) -> str:
        if self.mean is None:
            return "–"
        interval = "" if self.low is None else f" [{self.low:.1f}, {self.high:.1f}]"
        wider = "" if self.over_tasks is None else ", over tasks [{:.1f}, {:.1f}]".format(*self.over_tasks)
        return f"{self.mean:.1f}{interval}{wider}{self._bracketed}"

    @property
    def short(self) -> str:
        """Without its interval."""
        return "–" if self.mean is None else f"{self.mean:.1f}{self._bracketed}"

    @property
    def change(self) -> str:
        """The difference with its sign, "" if there is none; what rounds to nothing is +0.0."""
        return "" if self.difference is None else f"{round(self.difference, 1) + 0.0:+.1f}"

    @property
    def _bracketed(self) -> str:
        return f" ({self.change})" if self.change else ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row: what names it, a few plain columns, and scores.

    Attributes:
      name: what the row is of.
      details: plain text columns after the name.
      scores: by column, the score of each result.
    """

    name: str
    details: tuple[str, ...]
    scores: tuple[tuple[Score, ...], ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of scores.

    Attributes:
      title: its heading.
      note: a sentence below the heading, or "".
      labels: headings of the name and the details.
      columns: headings of the scores, each over one column for each result.
      rows: its rows.
    """

    title: str
    note: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def words(name: str) -> str:
    """A level's or benchmark's name as it is read."""
    return name.replace("_", " ")


def shots_of(results: Sequence[Scores]) -> list[str]:
    """Keys of the cells that any result has, the mean over shots last."""
    return [*map(str, sorted({number for result in results for number in result["shots"]})), AVERAGE]


def shots_title(key: str) -> str:
    return "average" if key == AVERAGE else f"{key}-shot"


def level_table(results: Sequence[Scores]) -> Table:
    """Level by shots, and the mean over all levels' categories: what an evaluation comes to."""
    rows = {level: [_cells(r, "levels", level) for r in results] for level in _levels(results, "levels")}
    overall = [_cells(result, "overall") for result in results]
    if len(rows) > 1 and any(overall):
        rows["all categories"] = overall
    return _table(
        "Levels",
        "Mean over the categories of a level, and of all levels, with 95 % bootstrap intervals over examples. Over "
        "tasks: those of each category are drawn as well, as if others of their kind might have been asked.",
        ("level", "tasks", "examples"),
        results,
        rows,
        lambda name, cells: (words(name), _latest(cells, "tasks"), _latest(cells, "examples")),
    )


def nested_tables(results: Sequence[Scores], kind: str) -> list[tuple[str, Table]]:
    """By level, the table of its categories or its benchmarks.

    Args:
      kind: "categories" or "benchmarks".
    """
    label = {"categories": "category", "benchmarks": "benchmark"}[kind]
    tables = []
    for level in _levels(results, kind):
        names = sorted({name for result in results for name in result[kind].get(level, {})})
        rows = {name: [_cells(result, kind, level, name) for result in results] for name in names}
        table = _table(
            f"{kind.capitalize()}: {words(level)}",
            "",
            (label, "tasks", "examples"),
            results,
            rows,
            lambda name, cells: (
                words(name) if kind == "benchmarks" else name,
                _latest(cells, "tasks"),
                _latest(cells, "examples"),
            ),
        )
        tables.append((level, table))
    return tables


def group_table(results: Sequence[Scores]) -> Table:
    """Subtypes of a parent, and tasks joined over benchmarks."""
    found: dict[tuple[str, ...], list[Mapping[str, Any] | None]] = {}
    for i, result in enumerate(results):
        for level, groups in result["groups"].items():
            for group in groups:
                benchmarks = " + ".join(map(words, group["benchmarks"]))
                key = (group["name"], words(level), group["category"], benchmarks)
                found.setdefault(key, [None] * len(results))[i] = group["cells"]
    return _table(
        "Tasks averaged before their category",
        "Subtypes of one task, and one task in several benchmarks.",
        ("group", "level", "category", "benchmarks", "tasks"),
        results,
        dict(sorted(found.items())),
        lambda key, cells: (*key, _latest(cells, "tasks")),
    )


def task_table(results: Sequence[Scores]) -> Table:
    """Every task by its card's first metric."""
    facts = {name: task for result in results for name, task in result["tasks"].items()}
    rows = {name: [_cells(result, "tasks", name, "cells") for result in results] for name in sorted(facts)}
    return _table(
        "Tasks",
        "Mean of each task's first metric over its prompts.",
        ("task", "level", "category", "metric", "prompts"),
        results,
        rows,
        lambda name, cells: (
            name,
            words(facts[name]["level"]),
            facts[name]["category"],
            facts[name]["metric"],
            str(facts[name]["prompts"]),
        ),
    )


def instance_table(results: Sequence[Scores]) -> Table:
    """Means over all examples, of suites that ask for them."""
    found = [result.get("instances", {}) for result in results]
    rows = {
        (metric, name): [
            _cells(cells, metric, *(("categories", name) if name else ("overall",))) for cells in found
        ]
        for metric in _keys(found)
        for name in (
            "",
            *sorted(set(_keys(cells[metric]["categories"] for cells in found if metric in cells))),
        )
    }
    return _table(
        "Means over instances",
        "All examples count alike, whatever their task: the rule of Super-NaturalInstructions' official metric.",
        ("metric", "category", "tasks", "examples"),
        results,
        rows,
        lambda key, cells: (
            key[0],
            key[1] or "all",
            _latest(cells, "tasks"),
            _latest(cells, "examples"),
        ),
    )


def scorer_table(results: Sequence[Scores]) -> Table:
    """Scorers of candidates side by side, on the tasks that are ranked."""
    rows = {
        (scorer, level): [_cells(result, "scorers", scorer, level) for result in results]
        for scorer in _keys(results, "scorers")
        for level in _keys([result["scorers"].get(scorer, {}) for result in results])
    }
    return _table(
        "Scorers",
        "Accuracy by each scorer's choice among the candidates, on the ranked tasks alone.",
        ("scorer", "level", "tasks"),
        results,
        rows,
        lambda key, cells: (key[0], words(key[1]), _latest(cells, "tasks")),
    )


def facts(results: Sequence[Scores]) -> dict[str, list[str]]:
    """What each result was made with: by fact, one text for each result."""
    table: dict[str, list[str]] = {}
    for name in _FACTS:
        table[name] = [_text(result["header"].get(name)) for result in results]
    for name in _SUITE_FACTS:
        table[f"suite {name}"] = [_text(result["header"].get("suite", {}).get(name)) for result in results]
    table["devices"] = [_text(result["header"].get("devices")) for result in results]
    for name in _keys([result["header"].get("versions", {}) for result in results]):
        table[name] = [_text(result["header"].get("versions", {}).get(name)) for result in results]
    return {name: texts for name, texts in table.items() if any(text != "–" for text in texts)}


def warnings(results: Sequence[Scores], titles: Sequence[str]) -> list[str]:
    """Why results may not be compared, and which metrics are missing."""
    settings = [_settings(result["header"]) for result in results]
    told = {name: [_short(found.get(name)) for found in settings] for name in _keys(settings)}
    found = [
        f"The results differ in their {name}: {', '.join(told[name])}."
        for name in told
        if any(one.get(name) != settings[0].get(name) for one in settings)
    ]
    for title, result in zip(titles, results, strict=True):
        counts = result["header"].get("suite", {}).get("task_counts") or {}
        lacking = {name: told for name, told in result.get("failures", {}).items() if name in counts}
        found += [f"{title} is not the whole suite: of {name}, {told}." for name, told in lacking.items()]
        missing = sorted({name for other in results for name in other["tasks"]} - set(result["tasks"]))
        if missing:
            found.append(f"{title} lacks {len(missing)} tasks that another result has, {missing[0]} for one.")
    uncomputed: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for name, task in result["tasks"].items():
            for cause in task.get("uncomputed", {}).items():
                uncomputed.setdefault(cause, []).append(name)
    for (metric, reason), names in uncomputed.items():
        found.append(f"{metric} of {', '.join(dict.fromkeys(names))} was not computed: {reason}")
    return found


def _table(title, note, labels, results, rows: Mapping[Any, Sequence[Any]], describe) -> Table:
    shots = shots_of(results)
    made = []
    for key, cells in rows.items():
        name, *details = describe(key, cells)
        scores = tuple(_compare([(cell or {}).get(number) for cell in cells]) for number in shots)
        made.append(Row(name, tuple(details), scores))
    return Table(title, note, labels, tuple(map(shots_title, shots)), tuple(made))


def _compare(cells: Sequence[Mapping[str, Any] | None]) -> tuple[Score, ...]:
    first = cells[0]
    scores = []
    for i, cell in enumerate(cells):
        if cell is None:
            scores.append(Score(None))
            continue
        difference = cell["mean"] - first["mean"] if i and first is not None else None
        scores.append(Score.of(cell, difference))
    return tuple(scores)


def _cells(result: Scores, *path: str) -> Mapping[str, Any] | None:
    found: Any = result
    for name in path:
        found = found.get(name)
        if found is None:
            return None
    return found


def _latest(cells: Iterable[Mapping[str, Any] | None], name: str) -> str:
    """A count of the last result that has the row."""
    found = [cell for cell in cells if cell]
    return f"{max(cell[name] for cell in found[-1].values()):,}"


def _keys(results: Iterable[Mapping[str, Any]], name: str | None = None) -> list[str]:
    """Keys of all results, in the order in which they come."""
    mappings = [result[name] if name else result for result in results]
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _levels(results: Sequence[Scores], name: str) -> list[str]:
    keys = _keys(results, name)
    return [level for level in LEVELS if level in keys] + [key for key in keys if key not in LEVELS]


def _settings(header: Mapping[str, Any]) -> dict[str, Any]:
    """What scores depend on beside the model, by name; what has parts, by theirs."""
    header = json.loads(json.dumps(header))  # One that was read has lists where another has tuples.
    suite = header.get("suite", {})
    found = {name: header.get(name) for name in _COMPARABLE}
    found |= {f"suite {name}": suite.get(name) for name in _COMPARABLE_OF_SUITE}
    parts = {name: value for name, value in found.items() if isinstance(value, Mapping)}
    whole = {name: value for name, value in found.items() if name not in parts}
    return whole | {f"{name} {part}": item for name, value in parts.items() for part, item in value.items()}


def _short(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _text(value: Any) -> str:
    return "–" if value is None or value == "" else str(value)
