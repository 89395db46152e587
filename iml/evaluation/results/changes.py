"""What changed from one result to another: how many answers, which ones, and whether it is more than chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from iml.errors import InputError
from iml.evaluation.results.result import Result
from iml.evaluation.results.samples import Prediction, Sample, describe, points, right
from iml.evaluation.scores.aggregation import AVERAGE
from iml.evaluation.scores.comparison import compare
from iml.evaluation.scores.units import group

#: Prompts shown of each task, of those that became right and of those that became wrong.
PER_TASK = 3


@dataclasses.dataclass(frozen=True)
class TaskChange:
    """A task's answers under two models, over all numbers of shots.

    Attributes:
      task: its name.
      prompts: how many both were asked.
      gained, lost: how many became right, and how many became wrong.
      better, worse: how many score more, and how many less.
      cell: the difference of the task's score, as of `comparison.compare`.
      samples: some of those gained, then some of those lost.
    """

    task: str
    prompts: int
    gained: int
    lost: int
    better: int
    worse: int
    cell: Mapping[str, Any]
    samples: tuple[Sample, ...]


@dataclasses.dataclass(frozen=True)
class Changes:
    """Two results compared.

    Attributes:
      first, second: their titles.
      comparison: what `comparison.compare` returned; {} where they cannot be compared.
      tasks: the tasks that both have, the largest differences first.
      problem: why they cannot be compared, or "".
    """

    first: str
    second: str
    comparison: Mapping[str, Any]
    tasks: tuple[TaskChange, ...]
    problem: str = ""


def find_changes(first: Result, second: Result, per_task: int = PER_TASK) -> Changes:
    """Compares two results prompt by prompt."""
    found = second.scores.get("comparisons", {}).get(first.folder)
    try:
        found = found or compare((first.scores, first.predictions), (second.scores, second.predictions))
    except InputError as error:
        found = {"problem": str(error)}
    if "problem" in found:
        return Changes(first.title, second.title, {}, (), found["problem"])
    before = {_key(line): line for line in first.predictions}
    pairs = [(before[_key(line)], line) for line in second.predictions if _key(line) in before]
    tasks = []
    for task, lines in group(pairs, lambda pair: pair[1]["task"]).items():
        metric = second.scores["tasks"][task]["metric"]
        lines = sorted(lines, key=lambda pair: (pair[1]["shots"], pair[1]["row"]))
        gained = [pair for pair in lines if not right(pair[0], metric) and right(pair[1], metric)]
        lost = [pair for pair in lines if right(pair[0], metric) and not right(pair[1], metric)]
        moved = [points(after, metric) - points(early, metric) for early, after in lines]
        cells = found["tasks"][task]
        tasks.append(
            TaskChange(
                task,
                len(lines),
                len(gained),
                len(lost),
                sum(value > 0 for value in moved),
                sum(value < 0 for value in moved),
                cells.get(AVERAGE) or next(iter(cells.values())),
                tuple(
                    describe(after, [(first.title, early), (second.title, after)], metric)
                    for part in (gained, lost)
                    for early, after in part[:per_task]
                ),
            )
        )
    tasks.sort(key=lambda change: (-abs(change.cell["difference"]), change.task))
    return Changes(first.title, second.title, found, tuple(tasks))


def _key(line: Prediction) -> tuple[str, int, str, int, str]:
    return line["task"], line["shots"], line["split"], line["row"], line["prompt"]


def flips(tasks: Sequence[TaskChange]) -> tuple[int, int, int]:
    """Of all tasks together: prompts, how many became right, how many wrong."""
    return tuple(sum(getattr(change, name) for change in tasks) for name in ("prompts", "gained", "lost"))
