"""How a task of the embedded benchmark is made: a recipe, and the drawing of its records."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One task of the embedded benchmark.

    Attributes:
      benchmark: the family whose file format it is stored in.
      name: its name within the family, without `pocket_`.
      category: category of the bench's taxonomy.
      format: the file format, a key of `tasks.pocket.formats.WRITERS`.
      make: draws one record, in the terms of that format.
      metrics: metric names, the first one aggregated.
      options: what the format wants once a task (definition, templates, instruction, candidates).
      train: the number of training records; few for a held-out task, which only demonstrates with them.
      validation: the number of validation records.
    """

    benchmark: str
    name: str
    category: str
    format: str
    make: Callable[[Random], Any]
    metrics: tuple[str, ...] = ("rouge_l", "exact_match")
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    train: int = 240
    validation: int = 32

    @property
    def task(self) -> str:
        """The name of the task in its family."""
        return f"pocket_{self.name}"


def draw(recipe: Recipe, seed: int) -> tuple[list[Any], list[Any]]:
    """The training and validation records of a recipe: all different, the same for the same seed.

    Where the world has too few different records, the training part is the shorter for it.
    """
    rng = Random(f"{seed}:{recipe.benchmark}:{recipe.name}")
    wanted, records = recipe.train + recipe.validation, {}
    for _ in range(50 * wanted):
        record = recipe.make(rng)
        records.setdefault(json.dumps(record, sort_keys=True), record)
        if len(records) == wanted:
            break
    drawn = list(records.values())
    return drawn[recipe.validation :], drawn[: recipe.validation]
