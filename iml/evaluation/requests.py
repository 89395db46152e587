"""What a model is asked: one request for each row, number of shots and task that a suite names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from iml.bench.levels import load_split_scheme
from iml.data.prompts import Prompt, render_request
from iml.data.random import Draws, permute
from iml.data.store import ExampleStore, TaskEntry
from iml.errors import InputError
from iml.evaluation import metrics

if TYPE_CHECKING:
    from iml.evaluation.suites import Suite

#: Splits that may be evaluated; where a task lacks the one asked for, the other is taken.
SPLITS = ("validation", "test")


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One thing to score or to generate.

    Attributes:
      task: name of the task.
      split: split of the row.
      row: row of the split.
      uid: uid of its example.
      prompt: what the model reads, and how that came about.
      references: every right answer.
      candidates: the answers to choose between; () for generation.
      kind: "rank" or "generate".
      shots: demonstrations asked for; `prompt.provenance["shots"]` says how many there were.
      metric_data: what metrics need of the example beside its references, JSON or "".
    """

    task: str
    split: str
    row: int
    uid: str
    prompt: Prompt
    references: tuple[str, ...]
    candidates: tuple[str, ...]
    kind: Literal["rank", "generate"]
    shots: int
    metric_data: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Selected:
    """A task of a suite: its level, the split that is evaluated, and which of its rows."""

    task: str
    level: str
    split: str
    rows: tuple[int, ...]


def select(store: ExampleStore, suite: Suite, seed: int) -> dict[str, Selected]:
    """The tasks of a suite, by name, in order.

    A task is taken if its name and its category match patterns of the suite, its level is asked for and it has
    the split asked for, or the other one where the suite allows that. Of a split larger than
    `suite.max_prompts_per_task` rows are drawn, the same for every number of shots and every model.

    Raises:
      InputError: no task is left.
    """
    scheme = load_split_scheme(suite.split_scheme)
    selected = {}
    for name, entry in sorted(_asked(store, suite).items()):
        level, split = scheme.level(entry.card), choose_split(entry, suite.split, suite.other_split)
        if level in suite.levels and split is not None:
            rows = choose_rows(entry.splits[split].rows, suite.max_prompts_per_task, Draws(seed, name))
            selected[name] = Selected(name, level, split, rows)
    if not selected:
        raise InputError(
            f"none of the store's {len(store.tasks)} tasks fits",
            field="Suite.tasks",
            remedy=f"It asks for {', '.join(suite.tasks)} at the levels {', '.join(suite.levels)}",
        )
    return selected


def missing(store: ExampleStore, suite: Suite) -> dict[str, str]:
    """What of a suite cannot be evaluated, by task or pattern, and why.

    Named are tasks that a pattern matches and that have no rows of the split, or could not be prepared; and
    patterns that match no task, or fewer than `suite.task_counts` says. A pattern that has as many as that lacks
    nothing; `*` stands for whatever the store has rows of.
    """
    scheme, asked = load_split_scheme(suite.split_scheme), _asked(store, suite)
    found = {}
    for pattern in suite.tasks:
        tasks = {name: entry for name, entry in asked.items() if fnmatchcase(name, pattern)}
        lacking = {
            name: entry
            for name, entry in tasks.items()
            if choose_split(entry, suite.split, suite.other_split) is None
        }
        expected, present = (suite.task_counts or {}).get(pattern), len(tasks) - len(lacking)
        if expected is not None and present >= expected:
            continue
        failed = {
            name: reason
            for name, reason in sorted(store.failures.items())
            if fnmatchcase(name, pattern) and name not in store.tasks and not _matches(name, suite.exclude)
        }
        if expected is not None:
            found[pattern] = f"{present} of its {expected} tasks have rows to evaluate"
        elif not failed and not any(fnmatchcase(name, pattern) for name in store.tasks):
            found[pattern] = "not in the store"
        found |= {name: f"could not be prepared: {reason}" for name, reason in failed.items()}
        found |= {
            name: f"has no rows to evaluate, its splits being {', '.join(entry.splits) or 'empty'}"
            for name, entry in sorted(lacking.items())
            if pattern != "*" and scheme.level(entry.card) in suite.levels
        }
    return found


def unscorable(store: ExampleStore, selected: Mapping[str, Selected], suite: Suite) -> dict[str, str]:
    """What metrics of selected tasks lack, databases or that there is such a metric, by task, and why."""
    found = {}
    for name, task in selected.items():
        try:
            every = map(metrics.find, suite.scored(store.tasks[name].card).metrics)
            readers = [metric for metric in every if metric.reads_files]
        except InputError as error:
            found[f"a metric of {name}"] = " ".join(str(error).split())
            continue
        try:
            for example in store.read_many(name, task.split, task.rows) if readers else ():
                for metric in readers:
                    metric.find_data(example.metric_data, suite.databases)
        except metrics.NotComputable as error:
            found[f"databases of {name}"] = " ".join(str(error).split())
        except InputError:
            continue  # A damaged file: told when the task's turn comes.
    return found


def _asked(store: ExampleStore, suite: Suite) -> dict[str, TaskEntry]:
    """The tasks of the store whose name and category a suite asks for."""
    return {
        name: entry
        for name, entry in store.tasks.items()
        if _matches(name, suite.tasks)
        and not _matches(name, suite.exclude)
        and _matches(entry.card.category, suite.categories)
    }


def choose_split(entry: TaskEntry, wanted: str, other: bool = True) -> str | None:
    """The split asked for, or if `other` is set the other of validation and test, or None."""
    options = (wanted, *(SPLITS if other else ()))
    return next((split for split in options if split in entry.splits and entry.splits[split].rows), None)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def choose_rows(rows: int, most: int | None, draws: Draws) -> tuple[int, ...]:
    """All rows, or `most` of them drawn without replacement, in ascending order."""
    if most is None or rows <= most:
        return tuple(range(rows))
    return tuple(sorted(permute(range(most), rows, draws.key("rows")).tolist()))


def make_requests(store: ExampleStore, selected: Selected, suite: Suite, seed: int) -> list[Request]:
    """All requests of a task, for one number of shots after the other.

    A row is ranked if it has candidates and accuracy is among its task's metrics, else its answer is
    generated.
    """
    metrics = store.tasks[selected.task].card.metrics
    examples = store.read_many(selected.task, selected.split, selected.rows)
    requests = []
    for shots in suite.shots:
        for row, example in zip(selected.rows, examples, strict=True):
            prompt = render_request(
                store, selected.task, selected.split, row, suite.format, shots=shots, seed=seed
            )
            ranked = bool(example.candidates) and "accuracy" in metrics
            requests.append(
                Request(
                    selected.task,
                    selected.split,
                    row,
                    example.uid,
                    prompt,
                    example.references,
                    example.candidates if ranked else (),
                    "rank" if ranked else "generate",
                    shots,
                    example.metric_data,
                )
            )
    return requests


def count_requests(selected: Mapping[str, Selected], suite: Suite) -> int:
    """Requests of all tasks together."""
    return sum(len(task.rows) for task in selected.values()) * len(suite.shots)
