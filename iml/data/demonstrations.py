"""Which examples a few-shot prompt shows before the one that it asks."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from iml.bench.card import Example
from iml.data.random import Draws, permute

if TYPE_CHECKING:
    from iml.data.store import ExampleStore

#: Rows looked at in search of demonstrations, at most.
_SEARCH = 4096


def instance(example: Example) -> str:
    """Names the instance that an example renders: its uid, without the template's name should that follow."""
    return example.uid.removesuffix(f"/{example.template}")


def find_demonstrations(
    store: ExampleStore, task: str, split: str, example: Example, shots: int, draws: Draws
) -> list[Example]:
    """Up to `shots` examples of a split, none of them a rendering of `example` or of each other's instance.

    They are drawn uniformly; those rendered by the example's own template are preferred where a task has
    several. Fewer come back only if the split has fewer.
    """
    if shots <= 0:
        return []
    rows = store.tasks[task].splits[split].rows
    taken, fitting, others = {instance(example)}, [], []
    patience, looked = 16 * (shots + 1), 0
    walk, key = iter(range(min(rows, _SEARCH))), draws.key("demonstrations")
    while len(fitting) < shots:
        # As many as must be looked at in any case are read at once.
        missing = shots - len(fitting)
        wanted = min(missing, patience - looked) if looked < patience else missing - len(others)
        chunk = [permute(place, rows, key) for place in itertools.islice(walk, max(0, wanted))]
        if not chunk:
            break
        looked += len(chunk)
        for shown in store.read_many(task, split, chunk):
            if instance(shown) in taken:
                continue
            if shown.template == example.template:
                taken.add(instance(shown))
                fitting.append(shown)
            else:
                others.append(shown)
    for shown in others:
        if len(fitting) == shots:
            break
        if instance(shown) not in taken:
            taken.add(instance(shown))
            fitting.append(shown)
    return fitting
