"""How structured knowledge is written as text: tables, schemas, triples and dialogues.

The conventions are those of UnifiedSKG (arXiv 2201.05966, section 3 and appendix), whose instantiated examples
OPT-IML took over (appendix A.1), with the named fields that its appendix C prints.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from iml.errors import InputError
from tasks.files import Path

_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r"""('[^']*'|"[^"]*")""")

Row = Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What a reader takes from a file.

    Attributes:
      uid: unique within the file: its place, with the turn of a dialogue.
      structure: the serialised table, schema, triples or ontology.
      text: the question, statement or dialogue that goes with it, "" if there is none.
      references: every right answer, the one to learn first.
      metric_data: as of `Example`.
    """

    uid: str
    structure: str
    text: str
    references: tuple[str, ...]
    metric_data: str = ""


def squeeze(text: str) -> str:
    """Text on one line: white space of any kind becomes one space."""
    return " ".join(text.split())


def cells(row: Iterable[Any]) -> list[str]:
    """A row's cells as text on one line each."""
    return [squeeze(str(cell)) for cell in row]


def linear_table(header: Row, rows: Sequence[Row]) -> str:
    """A table as `col : a | b row 1 : c | d row 2 : e | f`."""
    parts = [f"col : {' | '.join(header)}"]
    parts += [f"row {number} : {' | '.join(row)}" for number, row in enumerate(rows, start=1)]
    return " ".join(parts)


def fit_rows(header: Row, rows: Sequence[Row], question: str, limit: int) -> list[Row]:
    """The rows of a table whose text keeps within `limit` characters, in their order.

    UnifiedSKG drops the rows that have least in common with the question. Here these go first too, the later
    ones of equals before the earlier; unlike there, the answer is not looked at. 0 is no limit.
    """
    sizes = [
        len(f" row {number} : ") + sum(map(len, row)) + 3 * (len(row) - 1)
        for number, row in enumerate(rows, 1)
    ]
    excess = len(linear_table(header, rows)) - limit
    if not limit or excess <= 0:
        return list(rows)
    asked = set(_WORD.findall(question.lower()))
    common = [len(asked.intersection(_WORD.findall(" ".join(row).lower()))) for row in rows]
    dropped: set[int] = set()
    for index in sorted(range(len(rows)), key=lambda index: (common[index], -index)):
        if excess <= 0:
            break
        dropped.add(index)
        excess -= sizes[index]
    return [row for index, row in enumerate(rows) if index not in dropped]


def linear_triples(triples: Iterable[Sequence[str]]) -> str:
    """Triples as `subject : relation : object | ...`."""
    return " | ".join(" : ".join(cells(triple)) for triple in triples)


def linear_schema(database: str, tables: Mapping[str, Sequence[str]]) -> str:
    """A database schema as `| name | table : column , column | table : ...`."""
    parts = (f" | {table} : {' , '.join(columns)}" for table, columns in tables.items())
    return f"| {database}{''.join(parts)}"


def history(current: str, earlier: Sequence[str]) -> str:
    """What is said now and, the latest first, what was said before: `q2 || q1 | q0`.

    Args:
      earlier: in the order in which it was said.
    """
    before = " | ".join(map(squeeze, reversed(earlier)))
    return f"{squeeze(current)} || {before}" if before else squeeze(current)


def normal_sql(query: str) -> str:
    """SQL in lower case but for quoted values, with single spaces and none before a comma."""
    parts = [part if index % 2 else part.lower() for index, part in enumerate(_QUOTED.split(query))]
    return squeeze("".join(parts)).replace(" , ", ", ")


def shuffled(items: Iterable[str], key: str) -> list[str]:
    """Distinct items in an order that tells nothing of them and is always the same for one key."""
    return sorted(set(items), key=lambda item: hashlib.blake2b(f"{key} {item}".encode()).digest())


def texts(record: Any, name: str, path: Path, line: int | None = None) -> list[str]:
    """A field that is a list of strings, perhaps an empty one."""
    values = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f"must be a list of strings, not {values!r:.60}", path=path, line=line, field=name)
    return values


def matrix(value: Any, name: str, path: Path, line: int | None = None) -> list[list[str]]:
    """A field that is a list of rows, each a list of cells, as text; rows are filled up to the longest's width."""
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise InputError("must be a list of rows", path=path, line=line, field=name)
    width = max(map(len, value), default=0)
    return [cells(row) + [""] * (width - len(row)) for row in value]
