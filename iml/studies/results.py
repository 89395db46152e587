"""What a study's runs scored: means over seeds with intervals, and each setting's difference from the baseline.

Scores are means of means as everywhere (paper, section 4.1). An interval is that of the bootstrap over examples;
where a setting has several seeds these are drawn too, so that it tells what other examples and other seeds may
give. Differences are paired: the same examples and seeds are drawn of both settings. A second p-value also draws
the tasks of each category, which tells what other tasks of the same kind may give.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from iml.errors import InputError
from iml.evaluation.reports.curve_report import JSON as CURVE_FILE
from iml.evaluation.reports.report import read_result
from iml.evaluation.results.result import Result
from iml.evaluation.scores.aggregation import AVERAGE, cells, result_units
from iml.evaluation.scores.comparison import RESAMPLES, difference_cells
from iml.evaluation.scores.uncertainty import interval, p_value
from iml.evaluation.scores.units import Unit, by_level, join_categories, mean
from iml.studies.answers import CURVE, SCORES
from iml.studies.runs import Plan, Row
from iml.studies.work import read_failure, read_json, results_folder

#: Cells of scores or differences by shots, as `aggregation` and `comparison` have them.
Cells = Mapping[str, Mapping[str, Any]]
#: Their name in a table: a level and a category; ("", "") for all, (level, "") for a level.
Place = tuple[str, str]
ALL: Place = ("", "")


@dataclasses.dataclass(frozen=True)
class Scored:
    """A row of a study's table.

    Attributes:
      name: the setting.
      values: by factor, its value; {} for an untuned model.
      seeds: runs that are there, and how many there are to be.
      problem: why one is missing, or "".
      scores: by place, cells.
      differences: by place, cells of the difference from the baseline; {} for the baseline itself.
      curve: by training step, the average on validation over the seeds that are there; {} where checkpoints were
        not compared.
      behind: what the selected setting has more on average, with "low", "high" and "p"; {} for an untuned model.
    """

    name: str
    values: Mapping[str, str]
    seeds: tuple[int, int]
    problem: str
    scores: Mapping[Place, Cells]
    differences: Mapping[Place, Cells]
    curve: Mapping[int, float]
    behind: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class SuiteResults:
    """All settings on one suite.

    Attributes:
      suite: its name.
      baseline: what its settings are compared with: the study's, or the first that is asked this suite.
      shots: numbers of demonstrations.
      places: the columns: all, then each level with its categories.
      rows: the settings.
      selected: the setting that section 4.1's rule picks; None while there are no results.
      tasks: how many tasks all results have.
      left_out: tasks that some result lacks, which do not count.
    """

    suite: str
    baseline: str
    shots: tuple[int, ...]
    places: tuple[Place, ...]
    rows: tuple[Scored, ...]
    selected: str | None
    tasks: int
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All figures; nothing in it depends on when or how the runs were made."""

        def by_name(found: Mapping[Place, Cells]) -> dict[str, Any]:
            return {place_name(place): cells for place, cells in found.items()}

        return {
            "suite": self.suite,
            "baseline": self.baseline,
            "shots": list(self.shots),
            "selected": self.selected,
            "tasks": self.tasks,
            "left_out": list(self.left_out),
            "rows": [
                {
                    "name": row.name,
                    "values": dict(row.values),
                    "seeds": list(row.seeds),
                    "problem": row.problem,
                    "scores": by_name(row.scores),
                    "differences": by_name(row.differences),
                    "curve": {str(step): score for step, score in row.curve.items()},
                    "behind": dict(row.behind),
                }
                for row in self.rows
            ],
        }


def place_name(place: Place) -> str:
    """`supervised/Summarization`, `supervised` or `all`."""
    return "/".join(part for part in place if part) or "all"


def collect(plan: Plan, suite: str, resamples: int = RESAMPLES) -> SuiteResults:
    """The results that are there.

    Raises:
      InputError: a result is damaged, or two of them have no task in common.
    """
    asked = [row for row in plan.rows if suite in row.evaluations]
    settings = [row.name for row in asked if row.values]
    baseline = plan.design.baseline if plan.design.baseline in settings else settings[0]
    found = {row.name: _read(plan, row, suite) for row in asked}
    every = [set(result.scores["tasks"]) for by_seed in found.values() for result in by_seed.values()]
    common = set.intersection(*every) if every else set()
    if every and not common:
        raise InputError("the runs' results have no task in common", path=plan.folder)
    shots = tuple(next((r.scores["shots"] for by_seed in found.values() for r in by_seed.values()), ()))
    units = {
        name: {
            seed: result_units(result.scores, result.predictions, common, resamples)
            for seed, result in by_seed.items()
        }
        for name, by_seed in found.items()
    }
    whole = {name: _over_seeds(by_seed, tuple(by_seed)) for name, by_seed in units.items() if by_seed}
    places = _places(next(iter(whole.values()), []))
    picked = {row.name: _average(whole[row.name]) for row in asked if row.name in whole and row.values}
    order = list(picked)
    selected = max(order, key=lambda name: (picked[name][0], -order.index(name)), default=None)
    rows = []
    for row in asked:
        behind = picked[selected] - picked[row.name] if row.name in picked else None
        rows.append(
            Scored(
                row.name,
                row.values,
                (len(found[row.name]), len(row.runs)),
                _problem(plan, row, len(found[row.name]) < len(row.runs)),
                _score_cells(whole.get(row.name, []), places, shots),
                _differences(units, row.name, baseline, places, shots),
                _curve(plan, row, suite),
                {} if behind is None else _told(behind),
            )
        )
    left_out = tuple(sorted(set.union(*every) - common)) if every else ()
    return SuiteResults(suite, baseline, shots, places, tuple(rows), selected, len(common), left_out)


def _read(plan: Plan, row: Row, suite: str) -> dict[int, Result]:
    """By number of the seed, the results that are there."""
    found = {}
    for number, run in enumerate(row.runs):
        folder = results_folder(plan.directory, run, row.evaluations[suite])
        if (folder / SCORES).exists():
            found[number] = read_result(folder, row.name)
    return found


def _curve(plan: Plan, row: Row, suite: str) -> dict[int, float]:
    """By step, the average on validation, over the seeds whose checkpoints are evaluated."""
    scores: dict[int, list[float]] = {}
    for run in row.runs:
        curve = read_json(results_folder(plan.directory, run, row.evaluations[suite]) / CURVE / CURVE_FILE)
        for point in (curve or {}).get("points", ()):
            scores.setdefault(point["step"], []).append(point["average"][AVERAGE]["mean"])
    return {step: float(np.mean(found)) for step, found in sorted(scores.items())}


def _over_seeds(by_seed: Mapping[int, Sequence[Unit]], seeds: Sequence[int]) -> list[Unit]:
    """Units averaged over seeds; in each resample the seeds are drawn too, alike for all settings."""
    if len(seeds) == 1:
        return list(by_seed[seeds[0]])
    joined = []
    for units in zip(*(by_seed[seed] for seed in seeds), strict=True):
        values = {}
        for number in units[0].values:
            scores = np.stack([unit.values[number] for unit in units])
            resamples = scores.shape[1] - 1
            drawn = np.random.default_rng(len(seeds)).integers(len(seeds), size=(len(seeds), resamples))
            values[number] = np.concatenate(
                [[scores[:, 0].mean()], np.take_along_axis(scores[:, 1:], drawn, axis=0).mean(axis=0)]
            )
        joined.append(dataclasses.replace(units[0], values=values))
    return joined


def _differences(
    units: Mapping[str, Mapping[int, Sequence[Unit]]],
    name: str,
    baseline: str,
    places: Sequence[Place],
    shots: Sequence[int],
) -> dict[Place, Cells]:
    seeds = tuple(seed for seed in units[name] if seed in units[baseline])
    if name == baseline or not seeds:
        return {}
    before, after = (_over_seeds(units[setting], seeds) for setting in (baseline, name))
    pairs = zip(before, after, strict=True)
    less = [dataclasses.replace(b, values={n: b.values[n] - a.values[n] for n in b.values}) for a, b in pairs]
    return {
        place: difference_cells(part, place_name(place), shots)
        for place in places
        if (part := _within(less, place))
    }


def _score_cells(units: Sequence[Unit], places: Sequence[Place], shots: Sequence[int]) -> dict[Place, Cells]:
    return {
        place: cells(mean(join_categories(part), place_name(place)), shots)
        for place in places
        if (part := _within(units, place))
    }


def _within(units: Sequence[Unit], place: Place) -> list[Unit]:
    level, category = place
    return [
        unit
        for unit in units
        if (not level or unit.level == level) and (not category or unit.category == category)
    ]


def _places(units: Sequence[Unit]) -> tuple[Place, ...]:
    levels = by_level(units)
    found: list[Place] = [ALL] if units else []
    for level, rows in levels.items():
        found.append((level, ""))
        found += [(level, category) for category in sorted({unit.category for unit in rows})]
    return tuple(found)


def _average(units: Sequence[Unit]) -> np.ndarray:
    """[1 + resamples]: what settings are selected by, the mean over shots of the mean over all categories."""
    whole = mean(join_categories(units), "all")
    return np.mean([whole.values[number] for number in sorted(whole.values)], axis=0)


def _told(values: np.ndarray) -> dict[str, Any]:
    low, high = interval(values[1:])
    return {"difference": float(values[0]), "low": low, "high": high, "p": p_value(values[1:])}


def _problem(plan: Plan, row: Row, missing: bool) -> str:
    by_name = {run.name: run for run in plan.runs}
    failures = (read_failure(plan.directory, by_name[name]) for name in row.runs)
    return next(filter(None, failures), "not finished" if missing else "")


def asked_suites(plan: Plan, name: str) -> tuple[str, ...]:
    """The suites that a setting's or a run's name, or a folder of results, may be compared on."""
    found = _find_run(plan, name)
    return tuple(plan.design.suites if found is None else found[1])


def find_result(plan: Plan, name: str, suite: str) -> Result:
    """The result of a setting, which is that of its first seed, of a run or of a folder of results.

    Raises:
      InputError: there is none of that name, or it is not finished.
    """
    if (found := _find_run(plan, name)) is not None:
        run, asked = found
        return read_result(results_folder(plan.directory, run, asked[suite]), name)
    if pathlib.Path(name).is_dir():
        return read_result(name, name)
    settings, runs = (
        (row.name for row in plan.rows),
        dict.fromkeys(run for row in plan.rows for run in row.runs),
    )
    remedy = f"Settings: {', '.join(settings)}; runs: {', '.join(runs)}; or give a folder of results"
    raise InputError(f"no setting, run or folder {name!r}", field="--compare", remedy=remedy)


def _find_run(plan: Plan, name: str) -> tuple[str, dict[str, str]] | None:
    """The run that a name means, and by suite what it is asked; None where it is no setting's and no run's."""
    for row in plan.rows:
        if row.name == name:
            return row.runs[0], dict(row.evaluations)
    rows = [row for row in plan.rows if name in row.runs]
    asked = {suite: evaluation for row in rows for suite, evaluation in row.evaluations.items()}
    return (name, asked) if rows else None
