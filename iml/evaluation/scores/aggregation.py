"""From predictions to scores of tasks, categories and levels (paper, section 4.1).

A task's score is its card's first metric over its prompts. Then means of means (`units`); each number of shots on
its own, and at last the mean over these. `docs/metrics.md` tells the rule with an example, and what scores.json
holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from iml.bench.card import TaskCard
from iml.errors import InputError
from iml.evaluation.metrics import METRICS, Answer, accuracy
from iml.evaluation.metrics.base import CorpusMetric
from iml.evaluation.scores.calibration import calibration
from iml.evaluation.scores.robustness import robustness, spread
from iml.evaluation.scores.uncertainty import RESAMPLES, interval
from iml.evaluation.scores.units import (
    Measure,
    Prediction,
    Unit,
    by_level,
    group,
    join_benchmarks,
    join_categories,
    join_parents,
    mean,
    mean_over_instances,
    over_tasks,
    task_unit,
)

#: The key beside the numbers of shots that holds the mean over them.
AVERAGE = "average"
#: The scorer whose scores become probabilities where the header names none.
_SCORER = "sum_eos"

Cells = dict[str, dict[str, Any]]


def aggregate(
    predictions: Iterable[Prediction],
    cards: Mapping[str, TaskCard],
    levels: Mapping[str, str],
    header: Mapping[str, Any] | None = None,
    failures: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of tasks, groups, benchmarks, categories and levels; JSON-able.

    A cell is `{"mean", "low", "high", "tasks", "examples"}`, scores from 0 to 100, low and high the 95 %
    bootstrap interval over examples. Cells of levels, of their mean, of categories and of benchmarks also have
    "over_tasks" with "low" and "high" where a category has several tasks: tasks are drawn, then their examples.
    Cells are kept by the number of shots (a string) and, where a row has all numbers of shots, under "average".

    Args:
      predictions: of `iml.evaluation.runner`, in any order.
      cards: by task.
      levels: by task.
      header: what the predictions depend on; passed through. Its suite's primary scorer gives probabilities.
      failures: by task left out, the reason; passed through.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      levels: {level: cells}
      overall: cells of the mean over the categories of all levels
      categories, benchmarks: {level: {name: cells}}
      groups: {level: [{name, category, benchmarks, tasks, cells}]}, the parents and what was joined over
        benchmarks
      tasks: {task: {level, category, benchmark, source, parent, drawn_together, metric, cells, metrics,
        uncomputed, scorers, templates, calibration, prompts, flags}}; why metrics of it are uncomputed
      scorers: {scorer: {level: cells}}, accuracy over the ranked tasks by each scorer's choice
      calibration: {level: {shots: calibration}}, over all ranked prompts of a level
      robustness: {level: {shots: {tasks, std, range}}}, means over the tasks that have several templates
      instances: {metric: {"overall": cells, "categories": {name: cells}}}, means over all examples, whatever their
        task and level, by the metrics of single answers that every task has; {} if the header's suite does not ask
        for it
      shots, header, failures

    Raises:
      InputError: there are no predictions, or one lacks its task's metric.
    """
    by_task = group(predictions, lambda line: line["task"])
    if not by_task:
        raise InputError("there are no predictions to aggregate")
    scorer = primary_scorer(header or {})
    shots = sorted({line["shots"] for lines in by_task.values() for line in lines})
    units: list[Unit] = []
    by_scorer: dict[str, list[Unit]] = {}
    by_metric: dict[str, list[Unit]] = {}
    over_instances = (header or {}).get("suite", {}).get("over_instances", False)
    tasks = {}
    for name, lines in by_task.items():
        card, level = cards[name], levels[name]
        main = measure(card.metrics[0], scorer)
        unit = task_unit(card, level, lines, main, resamples, seed)
        units.append(unit)
        ranked = [line for line in lines if line["picks"]]
        picks = {
            found: task_unit(card, level, ranked, _picked(found), 0, seed)
            for found in sorted({scorer for line in ranked for scorer in line["picks"]})
        }
        for found, picked in picks.items():
            by_scorer.setdefault(found, []).append(picked)
        uncomputed = next((line["uncomputed"] for line in lines if "uncomputed" in line), {})
        others = {
            m: task_unit(card, level, lines, measure(m, scorer), resamples if over_instances else 0, seed)
            for m in card.metrics[1:]
            if m not in uncomputed
        }
        by_name = {card.metrics[0]: unit} | others
        for m, found in by_name.items():
            by_metric.setdefault(m, []).append(found)
        tasks[name] = {
            "level": level,
            "category": card.category,
            "benchmark": card.benchmark,
            "source": card.source,
            "parent": card.parent,
            "drawn_together": card.drawn_together,
            "metric": card.metrics[0],
            "cells": cells(unit, shots),
            "uncomputed": dict(uncomputed),
            "metrics": {m: found.plain for m, found in by_name.items()},
            "scorers": {found: picked.plain for found, picked in picks.items()},
            "templates": spread(lines, partial(task_unit, card, level, measure=main, resamples=0, seed=seed)),
            "calibration": calibration(ranked, scorer),
            "prompts": len(lines),
            "flags": dict(sorted(Counter(flag for line in lines for flag in _flags(line)).items())),
        }
    parents = join_parents(units)
    joined = join_benchmarks(parents)
    groups = [unit for unit in parents if len(unit.tasks) > 1]
    groups += [unit for unit in joined if len(unit.benchmarks) > 1]
    lines_of = group(
        (line for lines in by_task.values() for line in lines), lambda line: levels[line["task"]]
    )
    return {
        "header": dict(header or {}),
        "shots": shots,
        "levels": _level_cells(joined, shots, seed),
        "overall": _mean_cells(joined, "overall", shots, seed) if joined else {},
        "categories": {
            level: {
                name: _mean_cells(part, name, shots, seed)
                for name, part in group(rows, lambda unit: unit.category).items()
            }
            for level, rows in by_level(joined).items()
        },
        "benchmarks": {
            level: {
                name: _mean_cells(part, name, shots, seed)
                for name, part in group(rows, lambda unit: unit.benchmarks[0]).items()
            }
            for level, rows in by_level(parents).items()
        },
        "groups": {
            level: [_describe(unit, shots) for unit in rows] for level, rows in by_level(groups).items()
        },
        "tasks": tasks,
        "scorers": {
            found: _level_cells(join_benchmarks(join_parents(rows)), shots, seed)
            for found, rows in sorted(by_scorer.items())
        },
        "calibration": {
            level: calibration([line for line in lines_of[level] if line["picks"]], scorer)
            for level in by_level(units)
        },
        "robustness": {
            level: robustness([tasks[unit.name]["templates"] for unit in rows])
            for level, rows in by_level(units).items()
        },
        "instances": {
            metric: _instance_cells(rows, shots)
            for metric, rows in by_metric.items()
            if over_instances and len(rows) == len(units) and measure(metric).metric is None
        },
        "failures": dict(sorted((failures or {}).items())),
    }


def result_units(
    scores: Mapping[str, Any],
    predictions: Iterable[Prediction],
    tasks: Collection[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Unit]:
    """The units that categories are means of, from what an evaluation left; of these tasks.

    Args:
      scores: what `aggregate` returned.
      predictions: the lines that it was made of.
    """
    scorer = primary_scorer(scores["header"])
    units = []
    for name, lines in group(predictions, lambda line: line["task"]).items():
        if name not in tasks:
            continue
        told = scores["tasks"][name]
        score = measure(told["metric"], scorer)
        units.append(task_unit(scored_card(name, told), told["level"], lines, score, resamples, seed))
    return join_benchmarks(join_parents(units))


def scored_card(name: str, told: Mapping[str, Any]) -> TaskCard:
    """What decides where a task counts, from what `aggregate` tells of it."""
    return TaskCard(
        name=name,
        benchmark=told["benchmark"],
        category=told["category"],
        source=told.get("source", ""),
        parent=told.get("parent", ""),
        drawn_together=told.get("drawn_together", ""),
        metrics=(told["metric"],),
    )


def primary_scorer(header: Mapping[str, Any]) -> str:
    """The scorer whose choices are the predictions, and whose scores become probabilities."""
    return header.get("suite", {}).get("primary_scorer", _SCORER)


def measure(name: str, scorer: str = _SCORER) -> Measure:
    """How a metric measures prediction lines: by what stands in them, or a corpus metric by the answers.

    Args:
      scorer: whose scores become probabilities.
    """
    metric = METRICS.get(name)
    if not isinstance(metric, CorpusMetric):
        return _by_line(partial(_metric, name=name))
    if metric.reads_files:
        return Measure(lambda lines: np.array([line["statistics"][name] for line in lines]), metric)
    return Measure(lambda lines: metric.statistics([_answer(line, scorer) for line in lines]), metric)


def cells(unit: Unit, shots: Sequence[int], wider: Mapping[int, np.ndarray] | None = None) -> Cells:
    """The cells of a unit, by shots.

    Args:
      wider: by shots the resamples where tasks are drawn as well, as of `units.over_tasks`.
    """
    wider = {str(number): samples for number, samples in (wider or {}).items() if len(samples)}
    values = {str(number): unit.values[number] for number in unit.values}
    examples = {str(number): unit.examples[number] for number in unit.values}
    if set(unit.values) == set(shots):
        values[AVERAGE] = np.mean([unit.values[number] for number in shots], axis=0)
        examples[AVERAGE] = max(examples.values())
        if wider:
            wider[AVERAGE] = np.mean(list(wider.values()), axis=0)
    return {
        key: {
            "mean": float(found[0]),
            **bounds(found[1:]),
            "tasks": len(unit.tasks),
            "examples": examples[key],
            **({"over_tasks": bounds(wider[key])} if key in wider else {}),
        }
        for key, found in values.items()
    }


def bounds(samples: np.ndarray) -> dict[str, float | None]:
    """The 95 % interval as entries of a cell."""
    low, high = interval(samples)
    return {"low": low, "high": high}


def _level_cells(units: Sequence[Unit], shots: Sequence[int], seed: int) -> dict[str, Cells]:
    return {level: _mean_cells(rows, level, shots, seed) for level, rows in by_level(units).items()}


def _mean_cells(units: Sequence[Unit], name: str, shots: Sequence[int], seed: int) -> Cells:
    """Of the mean over the categories of units."""
    return cells(mean(join_categories(units), name), shots, over_tasks(units, seed))


def _instance_cells(units: Sequence[Unit], shots: Sequence[int]) -> dict[str, Any]:
    categories = group(units, lambda unit: unit.category)
    return {
        "overall": cells(mean_over_instances(units, "overall"), shots),
        "categories": {
            name: cells(mean_over_instances(rows, name), shots) for name, rows in categories.items()
        },
    }


def _describe(unit: Unit, shots: Sequence[int]) -> dict[str, Any]:
    return {
        "name": unit.name,
        "category": unit.category,
        "benchmarks": list(unit.benchmarks),
        "tasks": list(unit.tasks),
        "cells": cells(unit, shots),
    }


def _by_line(score: Callable[[Prediction], float]) -> Measure:
    return Measure(lambda lines: np.array([[score(line)] for line in lines], np.float64))


def _picked(scorer: str) -> Measure:
    """Accuracy of a scorer's choice."""
    return _by_line(lambda line: accuracy(line["candidates"][line["picks"][scorer]], line["references"]))


def _metric(line: Prediction, name: str) -> float:
    try:
        return float(line["metrics"][name])
    except KeyError as error:
        raise InputError(f"a prediction of {line['task']} lacks this metric", field=name) from error


def _answer(line: Prediction, scorer: str) -> Answer:
    scores = line.get("scores", {}).get(scorer, ())
    return Answer(line["prediction"], line["references"], line["candidates"], scores, line["uid"])


def _flags(line: Prediction) -> list[str]:
    return [*line["flags"], *(["truncated"] if line["truncated"] else [])]
