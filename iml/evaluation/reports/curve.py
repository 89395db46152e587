"""The curve over training, and the checkpoint that is picked by it.

The paper compares models by one average (section 4.1): scores become categories' scores at each level as in
`aggregation`, these are averaged at each number of shots, and then over the numbers of shots. The categories of
all levels count alike: its Table 4 averages so to the 46.0 (0-shot) and 57.6 (5-shot) of its Table 18. The step
with the highest average is picked, the earlier one of equals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from iml.errors import InputError
from iml.evaluation.reports.tables import Score
from iml.evaluation.results.result import Result
from iml.evaluation.scores.aggregation import AVERAGE, bounds, cells, result_units
from iml.evaluation.scores.uncertainty import RESAMPLES, p_value
from iml.evaluation.scores.units import (
    Unit,
    by_level,
    join_categories,
    mean,
    over_tasks,
)

Cells = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Point:
    """A checkpoint on the curve.

    Attributes:
      step: of training.
      title: what the report calls its result.
      average: cells by shots of the mean over all levels' categories; under "average" what is picked by.
      levels: by level, cells by shots.
      behind: the picked step's average less this one's, with "low", "high" and "p" of the paired bootstrap.
    """

    step: int
    title: str
    average: Cells
    levels: Mapping[str, Cells]
    behind: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Curve:
    """Checkpoints of one run.

    Attributes:
      points: by step, ascending.
      chosen: the step with the highest average.
      shots: numbers of shots.
      tasks: how many all checkpoints have.
      left_out: tasks that some checkpoint lacks, which do not count.
    """

    points: tuple[Point, ...]
    chosen: int
    shots: tuple[int, ...]
    tasks: int
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What `curve.json` holds."""
        return {
            "chosen": self.chosen,
            "shots": list(self.shots),
            "tasks": self.tasks,
            "left_out": list(self.left_out),
            "points": [dataclasses.asdict(point) for point in self.points],
        }


def draw(results: Mapping[int, Result], resamples: int = RESAMPLES, seed: int = 0) -> Curve:
    """The curve of checkpoints' results, by step.

    Raises:
      InputError: there are none, they have no task in common, or were not asked the same.
    """
    if not results:
        raise InputError("no results to draw a curve of")
    steps = sorted(results)
    every = [set(results[step].scores["tasks"]) for step in steps]
    common = set.intersection(*every)
    if not common:
        raise InputError("the checkpoints' results have no task in common")
    shots = tuple(results[steps[-1]].scores["shots"])
    _check_asked_the_same([results[step] for step in steps])
    units = {
        step: result_units(results[step].scores, results[step].predictions, common, resamples, seed)
        for step in steps
    }
    whole = {step: mean(join_categories(found), "average") for step, found in units.items()}
    # What is picked by needs every number of shots; a task set that lacks one is averaged over those it has.
    picked = {
        step: np.mean([unit.values[n] for n in sorted(unit.values)], axis=0) for step, unit in whole.items()
    }
    chosen = max(steps, key=lambda step: (picked[step][0], -step))
    points = tuple(
        Point(
            step,
            results[step].title,
            _average_cells(whole[step], picked[step], shots, over_tasks(units[step], seed)),
            {
                level: cells(mean(join_categories(rows), level), shots, over_tasks(rows, seed))
                for level, rows in by_level(units[step]).items()
            },
            _difference(picked[chosen] - picked[step]),
        )
        for step in steps
    )
    return Curve(points, chosen, shots, len(common), tuple(sorted(set.union(*every) - common)))


def scores(curve: Curve, key: str, level: str | None = None) -> list[Score]:
    """One line of the curve: the average, or a level, at a number of shots or `AVERAGE`."""
    found = [point.average if level is None else point.levels.get(level, {}) for point in curve.points]
    return [Score.of(cell[key]) if key in cell else Score(None) for cell in found]


def _average_cells(
    unit: Unit, values: np.ndarray, shots: Sequence[int], wider: Mapping[int, np.ndarray]
) -> Cells:
    average = {
        "mean": float(values[0]),
        **bounds(values[1:]),
        "tasks": len(unit.tasks),
        "examples": max(unit.examples.values()),
    }
    samples = [wider[number] for number in sorted(wider)]
    if samples and len(samples[0]):
        average["over_tasks"] = bounds(np.mean(samples, axis=0))
    return {**cells(unit, shots, wider), AVERAGE: average}


def _difference(values: np.ndarray) -> dict[str, Any]:
    return {"difference": float(values[0]), **bounds(values[1:]), "p": p_value(values[1:])}


def _check_asked_the_same(results: Sequence[Result]) -> None:
    for name in ("suite", "seed", "store"):
        values = [result.scores["header"].get(name) for result in results]
        for result, value in zip(results, values, strict=True):
            if value != values[-1]:
                raise InputError(
                    f"{result.title} was not asked the same as {results[-1].title}",
                    path=result.folder or None,
                    field=name,
                    remedy="Evaluate the checkpoints with one suite, seed and store",
                )
