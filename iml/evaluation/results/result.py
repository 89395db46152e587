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


def failed_tasks(scores: Mapping[str, Any]) -> dict[str, str]:
    """The tasks of an evaluation that failed, by name why, which another try may mend.

    What the store lacks, which `scores.json` names among the failures as well, stays so.
    """
    missing = scores.get("missing", ())
    return {name: told for name, told in scores["failures"].items() if name not in missing}
