"""What one evaluation left: its scores and its predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from iml.evaluation.results.samples import Prediction


@dataclasses.dataclass(frozen=True)
class Result:
    """One of the results that a report sets side by side.

    Attributes:
      title: what the report calls it.
      scores: what `scores.json` holds.
      predictions: lines of `results.jsonl`; () for none.
      folder: where it lies, "" for nowhere.
    """

    title: str
    scores: Mapping[str, Any]
    predictions: Sequence[Prediction] = ()
    folder: str = ""
