"""Runs WikiSQL's queries: one column, one aggregate, conditions that must all hold."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"[-+]?\d*\.?\d+")
_COMPARISONS: tuple[Callable[[Any, Any], bool], ...] = (operator.eq, operator.gt, operator.lt)
_COUNT, _SUM, _MEAN = 3, 4, 5


def answers_of(query: Mapping[str, Any], types: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """What a query finds, as text; an aggregate of nothing is "none".

    Text is compared without regard to case, columns of type `real` as numbers, as WikiSQL's own engine does.

    Args:
      query: `sel` and `agg` (0 for none, then MAX, MIN, COUNT, SUM, AVG) and `conds`, each a column, a
        comparison (=, >, <) and a value.
      types: `text` or `real` for each column.

    Raises:
      KeyError, IndexError, TypeError, ValueError: the query does not fit the table.
    """
    chosen = list(rows)
    for column, comparison, value in query["conds"]:
        read = _number if types[column] == "real" else _text
        wanted, compare = read(value), _COMPARISONS[comparison]
        chosen = [row for row in chosen if compare(read(row[column]), wanted)]
    found, aggregate = [row[query["sel"]] for row in chosen], query["agg"]
    if not aggregate:
        return [str(value) for value in found]
    if aggregate == _COUNT:
        return [str(len(found))]
    if not found:
        return ["none"]
    if aggregate not in (_SUM, _MEAN):
        read = _number if types[query["sel"]] == "real" else _text
        return [str((None, max, min)[aggregate](found, key=read))]
    total = sum(map(_summand, found)) / (len(found) if aggregate == _MEAN else 1)
    return [str(int(total)) if total.is_integer() else str(round(total, 6))]


def _text(value: Any) -> str:
    return str(value).lower()


def _summand(value: Any) -> float:
    """A number as SQLite sums it: text without one counts 0."""
    try:
        return _number(value)
    except ValueError:
        return 0.0


def _number(value: Any) -> float:
    """A number, or the first one in a text, whose commas part thousands."""
    if isinstance(value, int | float):
        return float(value)
    found = _NUMBER.search(str(value).replace(",", ""))
    if found is None:
        raise ValueError(f"no number: {value!r}")
    return float(found[0])
