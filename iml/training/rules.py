"""The table of partition rules, as gin binds it; kept apart from JAX, which is slow to import."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from iml.errors import InputError

DEFAULT_RULES = (
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("embed", "fsdp"),
    ("word_embed", "fsdp"),
    ("kv", None),
    ("positions", None),
    ("layers", None),
)


@dataclasses.dataclass(frozen=True)
class PartitionRules:
    """Which logical axis of a parameter is split over which mesh axis.

    Attributes:
      rules: pairs (logical axis, mesh axis or None); the first that names an axis holds. An axis that no rule
        names is not split, nor is one whose mesh axis an earlier axis of the same array took.
    """

    rules: Sequence[Sequence[str | None]] = DEFAULT_RULES

    def __post_init__(self):
        rules = tuple(tuple(rule) for rule in self.rules)
        if any(len(rule) != 2 for rule in rules):
            raise InputError(
                "rules are pairs (logical axis, mesh axis or None)", field="PartitionRules.rules"
            )
        object.__setattr__(self, "rules", rules)

    def mesh_axes(self, axes: Sequence[str | None], mesh_axes: Sequence[str]) -> tuple[str | None, ...]:
        """The mesh axis of every axis of an array.

        Args:
          axes: its logical axes.
          mesh_axes: the axes that the mesh has.

        Raises:
          InputError: a rule names another.
        """
        table: dict[str | None, str | None] = {}
        for logical, axis in self.rules:
            if axis is not None and axis not in mesh_axes:
                raise InputError(
                    f"no mesh axis {axis!r}",
                    field="PartitionRules.rules",
                    remedy=f"There are {', '.join(mesh_axes)}",
                )
            table.setdefault(logical, axis)
        chosen: list[str | None] = []
        for logical in axes:
            axis = table.get(logical)
            chosen.append(None if axis in chosen else axis)
        return tuple(chosen)
