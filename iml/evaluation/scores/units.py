"""Scores of tasks with their resamples, and their means of means (paper, section 4.1).

Subtypes -> parent task -> the same task in several benchmarks -> category -> level. Every mean is taken of the
scores and of each resample alike.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from iml.bench.card import TaskCard
from iml.bench.levels import LEVELS
from iml.evaluation.metrics.base import CorpusMetric, ratio
from iml.evaluation.scores import uncertainty

Prediction = Mapping[str, Any]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Measure:
    """How the lines of a task become scores.

    Attributes:
      statistics: of lines, float64 [lines, k].
      metric: what combines them; None for the mean of the one statistic.
    """

    statistics: Callable[[Sequence[Prediction]], np.ndarray]
    metric: CorpusMetric | None = None


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
      values: by shots, float64 [1 + resamples]: the score, then those of the resamples.
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

    @property
    def plain(self) -> dict[str, float]:
        """By shots, the score alone."""
        return {str(shots): float(found[0]) for shots, found in self.values.items()}


def task_unit(
    card: TaskCard, level: str, lines: Sequence[Prediction], measure: Measure, resamples: int, seed: int
) -> Unit:
    """A task's scores, and those of resamples.

    An example is drawn with all its prompts and all numbers of shots, and with those of the same passage where the
    card or the metric names passages, for these are not independent. What is no
    mean over answers is scored template by template; the templates' scores are averaged by their prompts.
    Draws depend on the seed, the task's name and how many examples there are: two models' units are paired.
    """
    cluster = _cluster(card, measure)
    names = sorted({cluster(line["uid"]) for line in lines})
    row = {name: i for i, name in enumerate(names)}
    shots = sorted({line["shots"] for line in lines})
    by_shots = group(lines, lambda line: line["shots"])
    parts = {number: _parts(by_shots[number], measure, row, cluster) for number in shots}
    rng = np.random.default_rng([seed, zlib.crc32(card.name.encode("utf-8", "surrogatepass"))])
    blocks = [np.ones((1, len(names))), *uncertainty.draws(len(names), resamples, rng)]
    values = {}
    for number, found in parts.items():
        scores = np.concatenate([_average(found, times) for times in blocks])
        # Where none of the examples drawn has a prompt at this number of shots.
        values[number] = np.where(np.isnan(scores), scores[0], scores)
    return Unit(
        level=level,
        category=card.category,
        benchmarks=(card.benchmark,),
        source=_data_set(card.source),
        name=card.name,
        parent=card.parent,
        tasks=(card.name,),
        values=values,
        examples={number: len({line["uid"] for line in rows}) for number, rows in by_shots.items()},
    )


def _cluster(card: TaskCard, measure: Measure) -> Callable[[str], str]:
    """What names the examples that are drawn together, from an example's uid."""
    if card.drawn_together:
        pattern = re.compile(card.drawn_together)
        return lambda uid: found[0] if (found := pattern.match(uid)) else uid
    return measure.metric.cluster if measure.metric else lambda uid: uid


#: Scores and sizes [sets] of weighted clusters [sets, clusters].
_Part = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _parts(
    lines: Sequence[Prediction], measure: Measure, row: Mapping[str, int], cluster: Callable[[str], str]
) -> list[_Part]:
    """What is scored on its own: all lines for a mean, those of one template for another metric."""
    if measure.metric is None:
        # The order of lines must not matter, not even to the last bit.
        pairs = zip(
            (row[cluster(line["uid"])] for line in lines), measure.statistics(lines)[:, 0], strict=True
        )
        places, scores = map(np.array, zip(*sorted(pairs), strict=True))
        totals, counts = np.bincount(places, scores, len(row)), np.bincount(places, minlength=len(row))
        return [lambda times: (ratio(times @ totals, times @ counts), times @ counts.astype(np.float64))]
    templates = group(lines, lambda line: line.get("template") or "")
    return [_corpus_part(rows, measure, row, cluster) for rows in templates.values()]


def _corpus_part(
    lines: Sequence[Prediction], measure: Measure, row: Mapping[str, int], cluster: Callable[[str], str]
) -> _Part:
    lines = sorted(lines, key=lambda line: (line["uid"], line["row"], line["prediction"]))
    statistics = measure.statistics(lines)
    places = np.array([row[cluster(line["uid"])] for line in lines])

    def score(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights = times[:, places]
        return measure.metric.combine(statistics, weights), weights.sum(axis=1)

    return score


def _average(parts: Sequence[_Part], times: np.ndarray) -> np.ndarray:
    scores, sizes = map(np.stack, zip(*(part(times) for part in parts), strict=True))
    sizes = np.where(np.isnan(scores), 0.0, sizes)
    return ratio((np.nan_to_num(scores) * sizes).sum(axis=0), sizes.sum(axis=0))


def _data_set(source: str) -> str:
    """The data set that a card's source names: `super_glue/copa (a note)` and `COPA` are both `copa`."""
    return source.partition(" (")[0].strip().rpartition("/")[-1].casefold()


def join_parents(units: Sequence[Unit]) -> list[Unit]:
    """Subtypes of one parent in one benchmark become one unit."""
    groups = group(
        units,
        lambda unit: (
            unit.level,
            unit.category,
            unit.benchmarks,
            bool(unit.parent),
            unit.parent or unit.name,
        ),
    )
    return [mean(rows, rows[0].parent or rows[0].name) for rows in groups.values()]


def join_benchmarks(units: Sequence[Unit]) -> list[Unit]:
    """Units of one data set and category in several benchmarks become one unit, benchmarks counting alike."""
    joined = []
    for (_, _, source), rows in group(units, lambda unit: (unit.level, unit.category, unit.source)).items():
        benchmarks = group(rows, lambda unit: unit.benchmarks)
        if source and len(benchmarks) > 1:
            joined.append(mean([mean(part, source) for part in benchmarks.values()], source))
        else:
            joined.extend(rows)
    return joined


def join_categories(units: Sequence[Unit]) -> list[Unit]:
    """Units of one category become one unit."""
    groups = group(units, lambda unit: (unit.level, unit.category))
    return [mean(rows, category) for (_, category), rows in groups.items()]


def mean(units: Sequence[Unit], name: str) -> Unit:
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


def mean_over_instances(units: Sequence[Unit], name: str) -> Unit:
    """The mean over all examples of units, so that one counts by how many it has."""
    whole = mean(units, name)
    values = {}
    for shots in whole.values:
        rows = [unit for unit in units if shots in unit.values]
        sizes = [unit.examples[shots] for unit in rows]
        values[shots] = np.average([unit.values[shots] for unit in rows], axis=0, weights=sizes)
    return dataclasses.replace(whole, values=values)


def over_tasks(units: Sequence[Unit], seed: int) -> dict[int, np.ndarray]:
    """By shots, float64 [resamples]: means of categories' means where units are drawn before their examples.

    Each category's units are drawn with replacement among themselves, so that the categories stay what they are;
    a unit that is drawn twice comes with two draws of its examples.

    Returns:
      {} where no category has several units, for then there is nothing to draw.
    """
    categories = group(units, lambda unit: (unit.level, unit.category))
    if all(len(rows) == 1 for rows in categories.values()):
        return {}
    shots = sorted({number for unit in units for number in unit.values})
    found: dict[int, list[np.ndarray]] = {number: [] for number in shots}
    for names, rows in categories.items():
        for number in shots:
            values = [unit.values[number][1:] for unit in rows if number in unit.values]
            if values:
                rng = np.random.default_rng([seed, zlib.crc32("/".join(names).encode())])
                stacked = np.stack(values, axis=1)
                draws = rng.random((2, *stacked.shape))
                resamples, places = (
                    (share * size).astype(int) for share, size in zip(draws, stacked.shape, strict=True)
                )
                found[number].append(stacked[resamples, places].mean(axis=1))
    return {number: np.mean(parts, axis=0) for number, parts in found.items()}


def by_level(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    """Units by level, the levels in their own order."""
    groups = group(units, lambda unit: unit.level)
    order = sorted(groups, key=lambda level: (LEVELS.index(level) if level in LEVELS else len(LEVELS), level))
    return {level: groups[level] for level in order}


def group(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """Items by key, keys in ascending order."""
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(sorted(groups.items()))
