"""Which examples a few-shot prompt shows before the one that it asks."""

from __future__ import annotations

from collections.abc import Sequence
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
    store: ExampleStore,
    task: str,
    split: str,
    example: Example,
    shots: int,
    draws: Draws,
    within: Sequence[int] | None = None,
) -> list[Example]:
    """Up to `shots` examples of a split, none of them a rendering of `example` or of each other's instance.

    They are drawn uniformly; those rendered by the example's own template are preferred where a task has
    several. Fewer come back only if the split has fewer, or of its rows those `within` which they are sought.
    """
    if shots <= 0:
        return []
    rows = store.tasks[task].splits[split].rows if within is None else len(within)
    taken, fitting, others = {instance(example)}, [], []
    patience, key = 16 * (shots + 1), draws.key("demonstrations")
    # One row at a time: array_record needs twice the time for a row where it reads several together.
    for looked in range(min(rows, _SEARCH)):
        if len(fitting) == shots or (looked >= patience and len(fitting) + len(others) >= shots):
            break
        row = permute(looked, rows, key)
        shown = store.read(task, split, row if within is None else within[row])
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
