"""Which answer is taken for which: confusion of the candidates, or of the labels of a task that is generated."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Prediction = Mapping[str, Any]

#: Most labels of a table; a task with more is no classification, but its candidates have places.
MOST = 15
OTHER = "another answer"


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often each answer was given where each was right.

    Attributes:
      kind: "labels", or "places" where candidates differ from prompt to prompt.
      labels: of rows (right) and columns (given); columns may have one more, for any other answer.
      columns: labels of the columns.
      counts: by row and column.
    """

    kind: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def confuse(lines: Sequence[Prediction]) -> Confusion | None:
    """The confusion of one task's answers; None of a task that is no classification.

    Ranked candidates that are the same few throughout are labels, and so are references that come again and
    again, four times each on average, of a task that is generated. Where candidates change, their places are
    told: whether a model prefers the first one shows here. Of several right answers the one that was given
    counts, or else the first.
    """
    ranked = all(line["candidates"] for line in lines)
    rows = [(_right(line), line["prediction"].strip()) for line in lines]
    labels = list(
        dict.fromkeys(text.strip() for line in lines for text in line["candidates"] or line["references"])
    )
    few = len(labels) <= MOST and len(lines) >= 4 * len({true for true, _ in rows})
    if few and len(labels) > 1 and (ranked or not any(line["candidates"] for line in lines)):
        return _table("labels", sorted(labels), rows)
    if not ranked or max(len(line["candidates"]) for line in lines) > MOST:
        return None
    places = [_places(line) for line in lines]
    count = max(len(line["candidates"]) for line in lines)
    return _table("places", [f"{number + 1}." for number in range(count)], places)


def _table(kind: str, labels: Sequence[str], rows: Sequence[tuple[str, str]]) -> Confusion:
    known = set(labels)
    found = Counter((true, given if given in known else OTHER) for true, given in rows)
    others = any(given == OTHER and OTHER not in known for _, given in found)
    columns = (*labels, *([OTHER] if others else []))
    counts = tuple(tuple(found[true, given] for given in columns) for true in labels)
    return Confusion(kind, tuple(labels), columns, counts)


def _right(line: Prediction) -> str:
    given = line["prediction"].strip()
    references = [text.strip() for text in line["references"]]
    return given if given in references else references[0]


def _places(line: Prediction) -> tuple[str, str]:
    candidates = [text.strip() for text in line["candidates"]]
    true, given = _right(line), line["prediction"].strip()
    place = f"{candidates.index(true) + 1}." if true in candidates else OTHER
    return place, f"{candidates.index(given) + 1}."
