"""Execution accuracy: whether a query finds in a database what the right one finds.

After `exec_eval.py` of test-suite-sql-eval (arXiv 2010.02840) as UnifiedSKG calls it: the first statement of each
text is run, without DISTINCT; columns may stand in any order, rows too unless the right query says ORDER BY; and
where a folder holds several databases the results must agree in all of them.

Queries are written by a model: they run on a database opened for reading, may do nothing but select, and end after
`SECONDS`.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from iml.evaluation.metrics.base import NotComputable

#: A query that takes longer is wrong.
SECONDS = 30.0
#: Bytes of a value or a row that a query may make.
_LONGEST = 10_000_000
_STEPS_BETWEEN_LOOKS = 10_000
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
_QUOTED = r"""'[^']*'|"[^"]*"|`[^`]*`"""
_DISTINCT = re.compile(rf"({_QUOTED})|\bdistinct\b", re.IGNORECASE)
_FIRST_STATEMENT = re.compile(rf"(?:{_QUOTED}|[^;])*")
_CURRENT_YEAR = re.compile(r"YEAR\s*\(\s*CURDATE\s*\(\s*\)\s*\)\s*", re.IGNORECASE)

Rows = list[tuple]


def same_results(
    prediction: str, reference: str, databases: Sequence[pathlib.Path], seconds: float = SECONDS
) -> bool:
    """Whether two queries find the same in every database.

    Args:
      databases: SQLite files.
      seconds: that a query may take.

    Raises:
      NotComputable: the reference itself fails.
    """
    found, right = (_plain(text) for text in (prediction, reference))
    ordered = "order by" in right.lower()
    for path in databases:
        try:
            expected = _execute(path, right, seconds)
        except sqlite3.Error as error:
            raise NotComputable(f"the right query {reference!r:.80} fails: {error}", path=path) from error
        try:
            rows = _execute(path, found, seconds, len(expected) + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return False
        if not same_rows(rows, expected, ordered):
            return False
    return True


def same_rows(found: Rows, right: Rows, ordered: bool) -> bool:
    """Whether two results are the same but for the order of columns, and if not `ordered` of rows."""
    if len(found) != len(right) or (right and len(found[0]) != len(right[0])):
        return False
    if not right or found == right:
        return True
    if ordered:
        # Row by row, so that the columns are the same as a multiset.
        return Counter(zip(*found, strict=True)) == Counter(zip(*right, strict=True))
    columns, wanted = list(zip(*found, strict=True)), list(zip(*right, strict=True))
    bags = [frozenset(Counter(column).items()) for column in columns]
    # For every column of the right result those that hold the same values.
    options = [
        [i for i, bag in enumerate(bags) if bag == frozenset(Counter(column).items())] for column in wanted
    ]
    return any(
        Counter(zip(*(columns[i] for i in places), strict=True)) == Counter(right)
        for places in _assignments(options, columns)
    )


def _assignments(
    options: Sequence[Sequence[int]], columns: Sequence[tuple], taken: tuple[int, ...] = ()
) -> Iterator[tuple[int, ...]]:
    """All ways to take a different option at every place; of equal columns it matters not which is taken."""
    if len(taken) == len(options):
        yield taken
        return
    tried = set()
    for option in options[len(taken)]:
        if option not in taken and columns[option] not in tried:
            tried.add(columns[option])
            yield from _assignments(options, columns, (*taken, option))


def _plain(query: str) -> str:
    for apart, together in (("> =", ">="), ("< =", "<="), ("! =", "!=")):
        query = query.replace(apart, together)
    query = _DISTINCT.sub(lambda found: found[1] or "", _FIRST_STATEMENT.match(query)[0])
    return _CURRENT_YEAR.sub("2020", query)


def _execute(path: pathlib.Path, query: str, seconds: float, most: int | None = None) -> Rows:
    """The first `most` rows, or all."""
    end = time.monotonic() + seconds
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.text_factory = lambda text: text.decode(errors="ignore")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        connection.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY
        )
        connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS_BETWEEN_LOOKS)
        cursor = connection.execute(query)
        if cursor.description is None:
            raise sqlite3.ProgrammingError("no query")
        return cursor.fetchall() if most is None else cursor.fetchmany(most)
