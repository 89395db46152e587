"""What a run trains, as gin binds it; kept apart from JAX, which is slow to import."""

from __future__ import annotations

import dataclasses
from typing import Any

from iml.models.adapters import LoRA


@dataclasses.dataclass(frozen=True)
class BitFit:
    """Only biases are trained (arXiv 2106.10199).

    Attributes:
      norms: train the layer norms' scales too; their biases are trained anyway.
    """

    norms: bool = False


#: None stands for full tuning.
Settings = LoRA | BitFit | None
CONFIGURABLES = (LoRA, BitFit)


def to_json(settings: Settings) -> dict[str, Any] | None:
    """Settings as plain values, with the name of their class."""
    if settings is None:
        return None
    fields = {
        name: list(value) if isinstance(value, tuple) else value for name, value in vars(settings).items()
    }
    return {"kind": type(settings).__name__, **fields}


def from_json(fields: dict[str, Any] | None) -> Settings:
    """The inverse of `to_json`."""
    if fields is None:
        return None
    kinds = {kind.__name__: kind for kind in CONFIGURABLES}
    return kinds[fields["kind"]](**{name: value for name, value in fields.items() if name != "kind"})
