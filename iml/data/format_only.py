"""Is it only form? Instructions that say no more than the output space, and demonstrations with wrong answers.

After Kung and Peng, "Do Models Really Learn to Follow Instructions?" (2023), of which arXiv 2308.10792 tells in
section 8.7: what still helps once the meaning is gone was the form.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from iml.bench.card import Example
from iml.data.demonstrations import instance
from iml.data.random import Draws, hash64, permute
from iml.data.store import ExampleStore

#: What of a task-level instruction stays.
DEFINITIONS = ("whole", "output_space", "none")
#: Rows looked at for a task's labels, and for another answer, at most.
_LABEL_ROWS, _SEARCH = 200, 64
#: Labels that a task may have, and rows looked at for each.
_MOST_LABELS, _ROWS_EACH = 20, 4


def output_space(labels: Sequence[str]) -> str:
    """An instruction that names the labels, or says that text is asked for where there are none."""
    named = dict.fromkeys(label.strip() for label in labels)
    return f"Output: {', '.join(named) or 'text'}."


@functools.lru_cache(maxsize=4096)
def task_labels(store: ExampleStore, task: str, split: str) -> tuple[str, ...]:
    """The labels of a task whose examples name no candidates, sorted; () of one that generates.

    Up to 200 rows of the split are looked at, drawn by the task's name alone: a task has labels if their
    answers are at least 2 and at most 20 different ones, and at most one for every 4 rows.
    """
    rows = store.tasks[task].splits[split].rows
    looked = permute(range(min(rows, _LABEL_ROWS)), rows, hash64("labels", task)).tolist()
    labels = {example.target.strip() for example in store.read_many(task, split, looked)}
    return tuple(sorted(labels)) if 2 <= len(labels) <= min(_MOST_LABELS, len(looked) // _ROWS_EACH) else ()


def mislabel(
    store: ExampleStore,
    task: str,
    split: str,
    example: Example,
    demonstrations: Sequence[Example],
    share: float,
    draws: Draws,
    within: Sequence[int] | None = None,
) -> tuple[list[Example], tuple[str, ...]]:
    """Demonstrations, some with a wrong answer, and the uids of those.

    The answer is another of the demonstration's candidates, if the right one is among them; else that of a row of
    the split that answers otherwise. A demonstration for which none is found among 64 rows keeps its own.

    Args:
      example: the one that is asked; its own row gives no answer away.
      share: probability with which each demonstration is drawn.
      within: the rows that may be looked at; None for all.
    """
    shown, wrong = list(demonstrations), []
    for place, demonstration in enumerate(demonstrations):
        if draws.uniform(f"wrong_label:{place}") >= share:
            continue
        right = {text.strip() for text in (demonstration.target, *demonstration.references)}
        candidates = [text for text in demonstration.candidates if text.strip() not in right]
        if 0 < len(candidates) < len(demonstration.candidates):
            target = draws.choice(f"wrong_candidate:{place}", candidates)
            changed = dataclasses.replace(demonstration, target=target, references=(target,))
        else:
            key = draws.key(f"wrong_target:{place}")
            changed = _answer_of_another(store, task, split, example, demonstration, right, key, within)
        if changed is not None:
            shown[place] = changed
            wrong.append(demonstration.uid)
    return shown, tuple(wrong)


def _answer_of_another(
    store: ExampleStore,
    task: str,
    split: str,
    example: Example,
    demonstration: Example,
    right: set[str],
    key: int,
    within: Sequence[int] | None,
) -> Example | None:
    rows = range(store.tasks[task].splits[split].rows) if within is None else within
    for looked in range(min(len(rows), _SEARCH)):
        other = store.read(task, split, rows[permute(looked, len(rows), key)])
        if instance(other) != instance(example) and other.target.strip() not in {"", *right}:
            return dataclasses.replace(
                demonstration, target=other.target, references=(other.target,), rationale=other.rationale
            )
    return None
