"""From predictions to scores of tasks, categories and levels (paper, section 4.1).

A task's score is the mean of its card's first metric over its prompts, all templates alike. Then means of
means: subtypes -> parent task -> the same task in several benchmarks -> category -> level; each number of shots
on its own, and at last the mean over these. `docs/metrics.md` tells the rule with an example.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from iml.bench.card import TaskCard
from iml.bench.levels import LEVELS
from iml.errors import InputError
from iml.evaluation.metrics import accuracy

#: The key beside the numbers of shots that holds the mean over them.
AVERAGE = "average"
RESAMPLES = 500
#: Bounds of the 95 % interval.
_QUANTILES = (0.025, 0.975)
#: Examples drawn at a time, all resamples together: 32 MiB.
_BLOCK = 1 << 22

Prediction = Mapping[str, Any]
Cells = dict[str, dict[str, Any]]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Unit:
    """A task, or several that are averaged, with the scores at each number of shots.

    Attributes:
      level, category: where it counts.
      benchmarks: the benchmarks its tasks are from, sorted.
      source: the data set all its tasks are from, in lower case, or "".
      name: of the task, or of what joins them.
      parent: of the task, or "".
      tasks: names of the tasks.
      values: by shots, float64 [1 + resamples]: the mean, then the means of the resamples.
      examples: by shots, how many underlying examples.
    """

    level: str
    category: str
    benchmarks: tuple[str, ...]
    source: str
    name: str
    parent: str
    tasks: tuple[str, ...]
    values: Mapping[int, np.ndarray]
    examples: Mapping[int, int]


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
    bootstrap interval; cells are kept by the number of shots (a string) and, where a row has all numbers of
    shots, under "average".

    Args:
      predictions: of `iml.evaluation.runner`, in any order.
      cards: by task.
      levels: by task.
      header: what the predictions depend on; passed through.
      failures: by task left out, the reason; passed through.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      levels: {level: cells}
      categories, benchmarks: {level: {name: cells}}
      groups: {level: [{name, category, benchmarks, tasks, cells}]}, the parents and what was joined over
        benchmarks
      tasks: {task: {level, category, benchmark, metric, cells, metrics, scorers, prompts, flags}}
      scorers: {scorer: {level: cells}}, accuracy over the ranked tasks by each scorer's choice
      shots, header, failures

    Raises:
      InputError: there are no predictions, or one lacks its task's metric.
    """
    by_task = _group(predictions, lambda line: line["task"])
    if not by_task:
        raise InputError("there are no predictions to aggregate")
    shots = sorted({line["shots"] for lines in by_task.values() for line in lines})
    units: list[Unit] = []
    by_scorer: dict[str, list[Unit]] = defaultdict(list)
    tasks = {}
    for name, lines in by_task.items():
        card, level, metric = cards[name], levels[name], cards[name].metrics[0]
        unit = _task_unit(card, level, lines, partial(_metric, name=metric), resamples, seed)
        units.append(unit)
        ranked = [line for line in lines if line["picks"]]
        scorers = sorted({scorer for line in ranked for scorer in line["picks"]})
        for scorer in scorers:
            by_scorer[scorer].append(
                _task_unit(card, level, ranked, partial(_picked, scorer=scorer), 0, seed)
            )
        tasks[name] = {
            "level": level,
            "category": card.category,
            "benchmark": card.benchmark,
            "metric": metric,
            "cells": _cells(unit, shots),
            "metrics": {m: _plain_means(lines, partial(_metric, name=m)) for m in card.metrics},
            "scorers": {s: _plain_means(ranked, partial(_picked, scorer=s)) for s in scorers},
            "prompts": len(lines),
            "flags": dict(sorted(Counter(flag for line in lines for flag in _flags(line)).items())),
        }
    parents = _join_parents(units)
    joined = _join_benchmarks(parents)
    groups = [unit for unit in parents if len(unit.tasks) > 1]
    groups += [unit for unit in joined if len(unit.benchmarks) > 1]
    return {
        "header": dict(header or {}),
        "shots": shots,
        "levels": _level_cells(joined, shots),
        "categories": {
            level: {unit.category: _cells(unit, shots) for unit in _join_categories(rows)}
            for level, rows in _by_level(joined).items()
        },
        "benchmarks": {level: _benchmark_cells(rows, shots) for level, rows in _by_level(parents).items()},
        "groups": {
            level: [_describe(unit, shots) for unit in rows] for level, rows in _by_level(groups).items()
        },
        "tasks": tasks,
        "scorers": {
            scorer: _level_cells(_join_benchmarks(_join_parents(rows)), shots)
            for scorer, rows in sorted(by_scorer.items())
        },
        "failures": dict(sorted((failures or {}).items())),
    }


def _task_unit(
    card: TaskCard,
    level: str,
    lines: Sequence[Prediction],
    score: Callable[[Prediction], float],
    resamples: int,
    seed: int,
) -> Unit:
    """A task's mean scores, and their means over resampled examples.

    An example is drawn with all its prompts and all numbers of shots, for these are not independent.
    """
    shots = sorted({line["shots"] for line in lines})
    uids = sorted({line["uid"] for line in lines})
    column = {number: i for i, number in enumerate(shots)}
    row = {uid: i for i, uid in enumerate(uids)}
    # The order of lines must not matter, not even to the last bit.
    found = sorted((row[line["uid"]], column[line["shots"]], score(line)) for line in lines)
    index = tuple(np.array([entry[:2] for entry in found]).T)
    totals, counts = np.zeros((2, len(uids), len(shots)))
    np.add.at(totals, index, [entry[2] for entry in found])
    np.add.at(counts, index, 1.0)
    means = totals.sum(axis=0) / counts.sum(axis=0)
    samples = _resample(totals, counts, means, resamples, np.random.default_rng([seed, _hash(card.name)]))
    return Unit(
        level=level,
        category=card.category,
        benchmarks=(card.benchmark,),
        source=_data_set(card.source),
        name=card.name,
        parent=card.parent,
        tasks=(card.name,),
        values={number: np.append(means[i], samples[:, i]) for number, i in column.items()},
        examples={number: int((counts[:, i] > 0).sum()) for number, i in column.items()},
    )


def _resample(
    totals: np.ndarray, counts: np.ndarray, means: np.ndarray, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Means [resamples, shots] over as many examples drawn with replacement as there are.

    Args:
      totals, counts: [examples, shots].
      means: [shots]; stand in where none of the examples drawn has a prompt at some number of shots.
    """
    size = len(totals)
    block = max(1, _BLOCK // size)
    parts = [np.zeros((0, totals.shape[1]))]
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)
        weight = times @ counts
        parts.append(np.where(weight > 0, times @ totals / np.maximum(weight, 1.0), means))
    return np.concatenate(parts)


def _hash(name: str) -> int:
    """A task's own stream of random numbers, whatever other tasks there are."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def _data_set(source: str) -> str:
    """The data set that a card's source names: `super_glue/copa (a note)` and `COPA` are both `copa`."""
    return source.partition(" (")[0].strip().rpartition("/")[-1].casefold()


def _join_parents(units: Sequence[Unit]) -> list[Unit]:
    """Subtypes of one parent in one benchmark become one unit."""
    groups = _group(
        units,
        lambda unit: (
            unit.level,
            unit.category,
            unit.benchmarks,
            bool(unit.parent),
            unit.parent or unit.name,
        ),
    )
    return [_mean(rows, rows[0].parent or rows[0].name) for rows in groups.values()]


def _join_benchmarks(units: Sequence[Unit]) -> list[Unit]:
    """Units of one data set and category in several benchmarks become one unit, benchmarks counting alike."""
    joined = []
    for (_, _, source), rows in _group(units, lambda unit: (unit.level, unit.category, unit.source)).items():
        benchmarks = _group(rows, lambda unit: unit.benchmarks)
        if source and len(benchmarks) > 1:
            joined.append(_mean([_mean(part, source) for part in benchmarks.values()], source))
        else:
            joined.extend(rows)
    return joined


def _join_categories(units: Sequence[Unit]) -> list[Unit]:
    groups = _group(units, lambda unit: (unit.level, unit.category))
    return [_mean(rows, category) for (_, category), rows in groups.items()]


def _mean(units: Sequence[Unit], name: str) -> Unit:
    """The mean of units of one level; at each number of shots, of those that have it."""
    shots = sorted({number for unit in units for number in unit.values})
    having = {number: [unit for unit in units if number in unit.values] for number in shots}
    sources = {unit.source for unit in units}
    return dataclasses.replace(
        units[0],
        benchmarks=tuple(sorted({benchmark for unit in units for benchmark in unit.benchmarks})),
        source=sources.pop() if len(sources) == 1 else "",
        name=name,
        tasks=tuple(sorted(task for unit in units for task in unit.tasks)),
        values={n: np.mean([unit.values[n] for unit in rows], axis=0) for n, rows in having.items()},
        examples={n: sum(unit.examples[n] for unit in rows) for n, rows in having.items()},
    )


def _cells(unit: Unit, shots: Sequence[int]) -> Cells:
    values = {str(number): unit.values[number] for number in unit.values}
    examples = {str(number): unit.examples[number] for number in unit.values}
    if set(unit.values) == set(shots):
        values[AVERAGE] = np.mean([unit.values[number] for number in shots], axis=0)
        examples[AVERAGE] = max(examples.values())
    return {
        key: {
            "mean": float(found[0]),
            **dict(zip(("low", "high"), _interval(found[1:]), strict=True)),
            "tasks": len(unit.tasks),
            "examples": examples[key],
        }
        for key, found in values.items()
    }


def _interval(samples: np.ndarray) -> tuple[float | None, float | None]:
    if not len(samples):
        return None, None
    low, high = np.quantile(samples, _QUANTILES)
    return float(low), float(high)


def _level_cells(units: Sequence[Unit], shots: Sequence[int]) -> dict[str, Cells]:
    return {
        level: _cells(_mean(_join_categories(rows), level), shots) for level, rows in _by_level(units).items()
    }


def _benchmark_cells(units: Sequence[Unit], shots: Sequence[int]) -> dict[str, Cells]:
    """Of units before they are joined over benchmarks: a benchmark's mean over its categories."""
    groups = _group(units, lambda unit: unit.benchmarks[0])
    return {name: _cells(_mean(_join_categories(rows), name), shots) for name, rows in groups.items()}


def _describe(unit: Unit, shots: Sequence[int]) -> dict[str, Any]:
    return {
        "name": unit.name,
        "category": unit.category,
        "benchmarks": list(unit.benchmarks),
        "tasks": list(unit.tasks),
        "cells": _cells(unit, shots),
    }


def _by_level(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    """Units by level, the levels in their own order."""
    groups = _group(units, lambda unit: unit.level)
    order = sorted(groups, key=lambda level: (LEVELS.index(level) if level in LEVELS else len(LEVELS), level))
    return {level: groups[level] for level in order}


def _group(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """Items by key, keys in ascending order."""
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(sorted(groups.items()))


def _metric(line: Prediction, name: str) -> float:
    try:
        return float(line["metrics"][name])
    except KeyError as error:
        raise InputError(f"a prediction of {line['task']} lacks this metric", field=name) from error


def _picked(line: Prediction, scorer: str) -> float:
    """Accuracy of a scorer's choice."""
    return accuracy(line["candidates"][line["picks"][scorer]], line["references"])


def _plain_means(lines: Sequence[Prediction], score: Callable[[Prediction], float]) -> dict[str, float]:
    """By shots, the mean over prompts."""
    groups = _group(lines, lambda line: line["shots"])
    return {str(shots): math.fsum(map(score, rows)) / len(rows) for shots, rows in groups.items()}


def _flags(line: Prediction) -> list[str]:
    return [*line["flags"], *(["truncated"] if line["truncated"] else [])]
