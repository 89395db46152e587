"""Spider's exact set match: whether two queries have the same clauses, whatever their values and their order.

After `evaluation.py` of Spider (arXiv 1809.08887, section 5), as `test-suite-sql-eval` has it: values and DISTINCT
do not count, columns that foreign keys tie are one, the columns of SELECT and the conditions of WHERE have no
order, and what tables are joined on is not looked at. A query within a condition must be the same as it stands but
for its values, one within FROM altogether.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator

from iml.evaluation.metrics.sql.tree import Column, Condition, Conditions, Query, Schema, Term


def same_clauses(found: Query, right: Query, schema: Schema) -> bool:
    """Whether two queries match."""
    return _same(*(_comparable(_without_values(query), schema) for query in (found, right)))


def _same(found: Query, right: Query) -> bool:
    return (
        Counter(found.select) == Counter(right.select)
        and Counter(found.where.parts) == Counter(right.where.parts)
        and set(found.where.words) == set(right.where.words)
        and _same_groups(found, right)
        and (found.direction, found.order) == (right.direction, right.order)
        and _keywords(found) == _keywords(right)
        and Counter(found.tables) == Counter(right.tables)
        and (
            found.combined is right.combined is None
            or (
                found.combined is not None
                and right.combined is not None
                and found.combined[0] == right.combined[0]
                and _same(found.combined[1], right.combined[1])
            )
        )
    )


def _same_groups(found: Query, right: Query) -> bool:
    """HAVING is compared where both group."""
    if not found.group or not right.group:
        return not found.group and not right.group
    names = [[column.name for column in query.group] for query in (found, right)]
    return names[0] == names[1] and found.having == right.having


def _keywords(query: Query) -> set[str]:
    present = {
        "where": query.where.parts,
        "group": query.group,
        "having": query.having.parts,
        "order": query.order,
        "limit": query.limited,
        "combined": query.combined,
    }
    words = {word for word, found in present.items() if found}
    for conditions in (query.joins, query.where, query.having):
        words |= {word for word in conditions.words if word == "or"}
        words |= {"not" for part in conditions.parts if part.negated}
        words |= {part.comparison for part in conditions.parts if part.comparison in ("in", "like")}
    return words


def _without_values(query: Query) -> Query:
    """Values of conditions become None, but for queries, of which the same holds."""

    def bare(conditions: Conditions) -> Conditions:
        parts = [
            dataclasses.replace(
                part,
                values=tuple(
                    _without_values(value) if isinstance(value, Query) else None for value in part.values
                ),
            )
            for part in conditions.parts
        ]
        return Conditions(tuple(parts), conditions.words)

    combined = query.combined and (query.combined[0], _without_values(query.combined[1]))
    return dataclasses.replace(
        query, joins=bare(query.joins), where=bare(query.where), having=bare(query.having), combined=combined
    )


def _comparable(query: Query, schema: Schema) -> Query:
    """DISTINCT taken out, and the columns of the query's tables called by what foreign keys tie them to."""
    tables = {table for table in query.tables if isinstance(table, str)}

    def column(found: Column) -> Column:
        known = found.name.partition(".")[0] in tables
        name = schema.same.get(found.name, found.name) if known else found.name
        return Column(found.aggregate, name, None)

    return _map_columns(query, column)


def _map_columns(query: Query, column: Callable[[Column], Column]) -> Query:
    """The query and those combined with it, by the tables of the first; queries within it stay as they are."""

    def term(found: Term) -> Term:
        return Term(found.operator, column(found.first), found.second and column(found.second))

    def conditions(found: Conditions) -> Conditions:
        parts: Iterator[Condition] = (dataclasses.replace(part, term=term(part.term)) for part in found.parts)
        return Conditions(tuple(parts), found.words)

    return dataclasses.replace(
        query,
        distinct=None,
        select=tuple((aggregate, term(found)) for aggregate, found in query.select),
        joins=conditions(query.joins),
        where=conditions(query.where),
        group=tuple(map(column, query.group)),
        having=conditions(query.having),
        order=tuple(map(term, query.order)),
        combined=query.combined and (query.combined[0], _map_columns(query.combined[1], column)),
    )
