"""Paired comparison of two results: is one model better on the same prompts, and by how much?

Only prompts that both answered are compared. Both models' tasks are resampled by the same draws, so a difference
has the interval of the paired bootstrap; the means of means are taken of the differences. A second bootstrap also
draws the tasks of each category: it tells what other tasks of the same kind may give.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from iml.errors import InputError
from iml.evaluation.scores.aggregation import AVERAGE, measure, primary_scorer, scored_card
from iml.evaluation.scores.uncertainty import interval, p_value
from iml.evaluation.scores.units import (
    Prediction,
    Unit,
    by_level,
    group,
    join_benchmarks,
    join_categories,
    join_parents,
    mean,
    over_tasks,
    task_unit,
)

#: More than for an interval, since a p-value cannot be below 2 / (resamples + 1).
RESAMPLES = 2000

Cells = dict[str, dict[str, Any]]
Scores = Mapping[str, Any]


def compare(
    first: tuple[Scores, Iterable[Prediction]],
    second: tuple[Scores, Iterable[Prediction]],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The second result less the first; JSON-able.

    A cell is `{"difference", "low", "high", "p", "tasks", "examples"}`: the difference of scores from 0 to 100,
    its 95 % interval and two-sided p-value over resampled examples; for categories of several tasks, and
    levels of such, also "over_tasks" with "low", "high" and "p" where tasks are resampled as well. Cells
    are kept by shots, and under "average" where a row has all of them.

    Args:
      first, second: what `aggregation.aggregate` returned, and the predictions.
      resamples, seed: of the bootstrap.

    Returns:
      levels: {level: cells}
      categories: {level: {name: cells}}
      tasks: {task: cells}
      shots: the numbers of shots
      prompts: how many are compared
      left_out: how many of each result's prompts the other does not have

    Raises:
      InputError: the results have no prompt in common, or score a task by different metrics.
    """
    lines = [{_key(line): line for line in predictions} for _, predictions in (first, second)]
    common = [key for key in lines[0] if key in lines[1]]
    if not common:
        raise InputError("the two results have no prompt in common", remedy="Were they asked the same suite?")
    shots = sorted({key[1] for key in common})
    units = [
        _difference(
            name,
            *(
                (scores, [found[key] for key in keys])
                for (scores, _), found in zip((first, second), lines, strict=True)
            ),
            resamples=resamples,
            seed=seed,
        )
        for name, keys in group(common, lambda key: key[0]).items()
    ]
    joined = join_benchmarks(join_parents(units))
    return {
        "shots": shots,
        "prompts": len(common),
        "left_out": [len(found) - len(common) for found in lines],
        "levels": {
            level: difference_cells(rows, level, shots, seed) for level, rows in by_level(joined).items()
        },
        "categories": {
            level: {
                name: difference_cells(part, name, shots, seed)
                for name, part in group(rows, lambda unit: unit.category).items()
            }
            for level, rows in by_level(joined).items()
        },
        "tasks": {unit.name: difference_cells([unit], unit.name, shots, seed) for unit in units},
    }


def _key(line: Prediction) -> tuple[str, int, str, int, str]:
    return line["task"], line["shots"], line["split"], line["row"], line["prompt"]


def _difference(
    name: str,
    first: tuple[Scores, Sequence[Prediction]],
    second: tuple[Scores, Sequence[Prediction]],
    resamples: int,
    seed: int,
) -> Unit:
    """A task's unit whose values are the second result's less the first's, draw by draw."""
    task, other = second[0]["tasks"][name], first[0]["tasks"][name]
    metric = task["metric"]
    if other["metric"] != metric:
        raise InputError(f"{name} is scored by {other['metric']} and by {metric}", field="Suite.metric")
    card = scored_card(name, task)
    before, after = (
        task_unit(
            card,
            task["level"],
            lines,
            measure(metric, primary_scorer(scores.get("header", {}))),
            resamples,
            seed,
        )
        for scores, lines in (first, second)
    )
    return dataclasses.replace(after, values={n: after.values[n] - before.values[n] for n in after.values})


def difference_cells(units: Sequence[Unit], name: str, shots: Sequence[int], seed: int = 0) -> Cells:
    """The cells of a level or of one category, from the differences of what its categories are the means of."""
    whole = mean(join_categories(units), name)
    values = dict(whole.values)
    wider = over_tasks(units, seed)
    keys = {number: str(number) for number in values}
    if set(values) == set(shots):
        values[-1] = np.mean([values[number] for number in shots], axis=0)
        keys[-1] = AVERAGE
        if wider:
            wider[-1] = np.mean([wider[number] for number in shots], axis=0)
    examples = {**whole.examples, -1: max(whole.examples.values())}
    found = {}
    for number, key in keys.items():
        low, high = interval(values[number][1:])
        found[key] = {
            "difference": float(values[number][0]),
            "low": low,
            "high": high,
            "p": p_value(values[number][1:]),
            "tasks": len(whole.tasks),
            "examples": examples[number],
        }
        if wider:
            low, high = interval(wider[number])
            found[key]["over_tasks"] = {"low": low, "high": high, "p": p_value(wider[number])}
    return found
