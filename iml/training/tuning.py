"""Parameters that are trained and parameters that stay as they are, as two trees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from iml.training.tunings import BitFit, Settings

#: A nested dict, of arrays or of what describes them.
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Which parameters a run trains.

    Attributes:
      trains: whether it trains the parameter at a path of names in the tree.
    """

    trains: Callable[[tuple[str, ...]], bool] = lambda path: True

    def split(self, tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> tuple[Tree, Tree]:
        """What is trained and what is frozen of a model's tree, which may hold arrays, axes or shardings."""
        trained: Tree = {}
        frozen: Tree = {}
        for name, child in tree.items():
            below = (*path, name)
            if isinstance(child, Mapping):
                parts = self.split(child, below)
                for part, whole in zip(parts, (trained, frozen), strict=True):
                    if part:
                        whole[name] = part
            else:
                (trained if self.trains(below) else frozen)[name] = child
        return trained, frozen


def join(trained: Tree, frozen: Tree) -> Tree:
    """The model's tree, of the two that `Tuning.split` gives."""
    joined = dict(frozen)
    for name, child in trained.items():
        joined[name] = join(child, frozen[name]) if name in frozen else child
    return joined


def make_tuning(settings: Settings) -> Tuning:
    """The tuning that settings describe."""
    if isinstance(settings, BitFit):
        names = ("bias", "scale") if settings.norms else ("bias",)
        return Tuning(lambda path: path[-1] in names)
    return Tuning()
