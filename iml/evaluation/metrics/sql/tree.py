"""SQL queries as far as Spider's scorer tells them apart, and the schemas that their names are resolved by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


class NotSql(ValueError):
    """The text is no query of this grammar to this database."""


@dataclasses.dataclass(frozen=True, slots=True)
class Schema:
    """A database's tables.

    Attributes:
      columns: the columns of each table, all in lower case.
      same: "table.column" by "table.column", for columns that foreign keys tie: what both are called.
    """

    columns: Mapping[str, Sequence[str]]
    same: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[str]], foreign_keys: Sequence[Sequence[str]] = ()) -> Schema:
        """A schema out of names in any case.

        Args:
          columns: of each table.
          foreign_keys: pairs of "table.column" that mean the same. What they tie is called by its first column.
        """
        lowered = {table.lower(): [name.lower() for name in names] for table, names in columns.items()}
        places = {f"{table}.{name}": None for table, names in lowered.items() for name in names}
        order = {name: place for place, name in enumerate(places)}
        groups: list[set[str]] = []
        for pair in foreign_keys:
            tied = {name.lower() for name in pair}
            # Groups that a later pair would join stay two, as in Spider's `build_foreign_key_map`.
            group = next((group for group in groups if group & tied), None)
            if group is None:
                groups.append(group := set())
            group |= tied
        same = {name: min(group, key=order.__getitem__) for group in groups for name in group}
        return cls(lowered, same)


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column, or "*"; its aggregate, "" for none; `distinct` is None where it does not count."""

    aggregate: str
    name: str
    distinct: bool | None


@dataclasses.dataclass(frozen=True, slots=True)
class Term:
    """A column, or two with an operator between them."""

    operator: str
    first: Column
    second: Column | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """What a term is compared with: one value, or two of "between"; None where values do not count."""

    negated: bool
    comparison: str
    term: Term
    values: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions, and the "and" and "or" between them."""

    parts: tuple[Condition, ...] = ()
    words: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """A query.

    Attributes:
      distinct: of its SELECT; None where it does not count.
      select: aggregate ("" for none) and term of each column.
      tables: names, or queries in brackets.
      joins, where, having: conditions.
      group: columns.
      order: terms; `direction` is "asc" or "desc", "" without any.
      limited: whether it has a LIMIT; its number does not count.
      combined: "intersect", "union" or "except", and the query after it.
    """

    distinct: bool | None
    select: tuple[tuple[str, Term], ...]
    tables: tuple[str | Query, ...]
    joins: Conditions
    where: Conditions
    group: tuple[Column, ...]
    having: Conditions
    direction: str
    order: tuple[Term, ...]
    limited: bool
    combined: tuple[str, Query] | None
