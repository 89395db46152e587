"""Reads SQL as Spider's own scorer does: the grammar of its queries, names resolved by a database's schema.

The grammar is that of Spider's `process_sql.py` (arXiv 1809.08887), its limits among it, since these decide what
its scorer calls a query: aliases hold for a whole text, nothing is joined but by JOIN, a column has at most one
aggregate and one operator, and words after a complete query do not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from iml.evaluation.metrics.sql.tree import Column, Condition, Conditions, NotSql, Query, Schema, Term

_AGGREGATES = ("max", "min", "count", "sum", "avg")
_OPERATORS = ("-", "+", "*", "/")
_COMPARISONS = ("not", "between", "=", ">", "<", ">=", "<=", "!=", "in", "like", "is", "exists")
_CLAUSES = ("select", "from", "where", "group", "order", "limit", "intersect", "union", "except")
_JOINING = ("join", "on", "as")
_ENDS = (")", ";")
_AFTER_VALUES = (",", ")", "and", *_CLAUSES, *_JOINING)
_COMBINING = ("intersect", "union", "except")

#: Words end at white space, at these signs, and at a comma or colon before anything but a digit, which is how
#: NLTK's `word_tokenize` parts them. "=" ends no word, so that `a=1` is one, and none that Spider's scorer knows.
_SIGN = r"\[\](){}<>;@#$%&?!*"
_WORD = re.compile(rf"--|[{_SIGN}]|\.{{2,}}|[,:](?!\d)|(?:(?!--|\.\.|[,:](?!\d))[^\s{_SIGN}])+")
_QUOTED = re.compile(r'"[^"]*"')
_LAST_STOP = re.compile(r"(?<!\.)\.(?=[\])}>\s]*$)")
_KEPT = "\ue000{}\ue001"
_KEY = re.compile("\ue000(\\d+)\ue001")


def parse(text: str, schema: Schema) -> Query:
    """A text as a query.

    Raises:
      NotSql: it is none.
    """
    try:
        return _Parser(_words(text), schema).query(0)[1]
    except (IndexError, RecursionError) as error:
        raise NotSql("the text ends too early, or is too deep") from error


def _words(text: str) -> list[str]:
    text = text.replace("'", '"')
    if text.count('"') % 2:
        raise NotSql("an odd number of quotation marks")
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(found[0])
        return _KEPT.format(len(kept) - 1)

    words = [word.lower() for word in _WORD.findall(_LAST_STOP.sub(" . ", _QUOTED.sub(keep, text)))]
    words = [kept[int(key[1])] if (key := _KEY.fullmatch(word)) else word for word in words]
    joined: list[str] = []
    for word in words:
        if word == "=" and joined and joined[-1] in ("!", ">", "<"):
            joined[-1] += "="
        else:
            joined.append(word)
    return joined


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


class _Parser:
    """Every method reads from a place and gives the place after what it read, and that.

    `default` are the tables whose columns need no table before their names.
    """

    def __init__(self, words: Sequence[str], schema: Schema):
        self._words, self._schema = words, schema
        aliases = {words[i + 1]: words[i - 1] for i, word in enumerate(words) if word == "as"}
        if doubled := aliases.keys() & schema.columns.keys():
            raise NotSql(f"the alias {min(doubled)} is a table's name")
        self._tables = {**aliases, **{table: table for table in schema.columns}}

    def _is(self, place: int, *words: str) -> bool:
        return place < len(self._words) and self._words[place] in words

    def _expect(self, place: int, *words: str) -> int:
        if self._words[place] not in words:
            raise NotSql(f"{self._words[place]!r} in place of {' or '.join(words)}")
        return place + 1

    def _ended(self, place: int) -> bool:
        return place >= len(self._words) or self._words[place] in (*_CLAUSES, *_ENDS)

    def query(self, place: int) -> tuple[int, Query]:
        begun = place
        bracket = self._is(place, "(")
        place += bracket
        # The tables come first: they say whose the columns are.
        after, tables, joins, default = self._from(begun)
        distinct, select = self._select(place, default)
        place, where = self._where(after, "where", default)
        place, group = self._group(place, default)
        place, having = self._where(place, "having", default)
        place, direction, order = self._order(place, default)
        limited = self._is(place, "limit")
        if limited:
            if place + 1 == len(self._words):
                raise NotSql("a LIMIT without a number")
            place += 2
        place = self._skip(place)
        if bracket:
            place = self._skip(self._expect(place, ")"))
        combined = None
        if self._is(place, *_COMBINING):
            word = self._words[place]
            place, other = self.query(place + 1)
            combined = (word, other)
        return place, Query(
            distinct, select, tables, joins, where, group, having, direction, order, limited, combined
        )

    def _skip(self, place: int) -> int:
        while self._is(place, ";"):
            place += 1
        return place

    def _from(self, place: int) -> tuple[int, tuple[str | Query, ...], Conditions, list[str]]:
        while self._words[place] != "from":
            place += 1
        place += 1
        tables: list[str | Query] = []
        joins, default = Conditions(), []
        while place < len(self._words):
            bracket = self._is(place, "(")
            place += bracket
            if self._is(place, "select"):
                place, query = self.query(place)
                tables.append(query)
            else:
                place += self._is(place, "join")
                table = self._table(self._words[place])
                place += 3 if self._is(place + 1, "as") else 1
                tables.append(table)
                default.append(table)
            if self._is(place, "on"):
                place, found = self._conditions(place + 1, default)
                between = ("and",) if joins.parts else ()
                joins = Conditions(joins.parts + found.parts, joins.words + between + found.words)
            if bracket:
                place = self._expect(place, ")")
            if self._is(place, *_CLAUSES, *_ENDS):
                break
        return place, tuple(tables), joins, default

    def _select(self, place: int, default: Sequence[str]) -> tuple[bool, tuple[tuple[str, Term], ...]]:
        place = self._expect(place, "select")
        distinct = self._is(place, "distinct")
        place += distinct
        found = []
        while place < len(self._words) and self._words[place] not in _CLAUSES:
            aggregate = self._words[place] if self._is(place, *_AGGREGATES) else ""
            place, term = self._term(place + bool(aggregate), default)
            found.append((aggregate, term))
            place += self._is(place, ",")
        return distinct, tuple(found)

    def _where(self, place: int, word: str, default: Sequence[str]) -> tuple[int, Conditions]:
        return self._conditions(place + 1, default) if self._is(place, word) else (place, Conditions())

    def _group(self, place: int, default: Sequence[str]) -> tuple[int, tuple[Column, ...]]:
        found: list[Column] = []
        if self._is(place, "group"):
            place = self._expect(place + 1, "by")
            while not self._ended(place):
                place, column = self._column_unit(place, default)
                found.append(column)
                if not self._is(place, ","):
                    break
                place += 1
        return place, tuple(found)

    def _order(self, place: int, default: Sequence[str]) -> tuple[int, str, tuple[Term, ...]]:
        if not self._is(place, "order"):
            return place, "", ()
        place = self._expect(place + 1, "by")
        direction, found = "asc", []
        while not self._ended(place):
            place, term = self._term(place, default)
            found.append(term)
            if self._is(place, "asc", "desc"):
                direction = self._words[place]
                place += 1
            if not self._is(place, ","):
                break
            place += 1
        return place, direction, tuple(found)

    def _conditions(self, place: int, default: Sequence[str]) -> tuple[int, Conditions]:
        parts: list[Condition] = []
        words: list[str] = []
        while place < len(self._words):
            place, term = self._term(place, default)
            negated = self._words[place] == "not"
            place += negated
            comparison = self._words[place]
            place, value = self._value(self._expect(place, *_COMPARISONS), default)
            values = (value,)
            if comparison == "between":
                place, second = self._value(self._expect(place, "and"), default)
                values = (value, second)
            parts.append(Condition(negated, comparison, term, values))
            if self._is(place, *_CLAUSES, *_ENDS, *_JOINING):
                break
            if self._is(place, "and", "or"):
                words.append(self._words[place])
                place += 1
        return place, Conditions(tuple(parts), tuple(words))

    def _value(self, place: int, default: Sequence[str]) -> tuple[int, Any]:
        begun = place
        bracket = self._is(place, "(")
        place += bracket
        word = self._words[place]
        if word == "select":
            place, value = self.query(place)
        elif '"' in word:
            place, value = place + 1, word
        else:
            value = _number(word)
            place += 1
            if value is None:
                # Of what stands there a column is read, and the rest passed over.
                read, value = self._column_unit(begun, default)
                while place < len(self._words) and not self._is(place, *_AFTER_VALUES):
                    place += 1
                if read > place:
                    raise NotSql("a value that ends too early")
        return (self._expect(place, ")") if bracket else place), value

    def _term(self, place: int, default: Sequence[str]) -> tuple[int, Term]:
        bracket = self._is(place, "(")
        place, first = self._column_unit(place + bracket, default)
        operator, second = "", None
        if self._is(place, *_OPERATORS):
            operator = self._words[place]
            place, second = self._column_unit(place + 1, default)
        return (self._expect(place, ")") if bracket else place), Term(operator, first, second)

    def _column_unit(self, place: int, default: Sequence[str]) -> tuple[int, Column]:
        bracket = self._is(place, "(")
        place += bracket
        if self._is(place, *_AGGREGATES):
            aggregate = self._words[place]
            place = self._expect(place + 1, "(")
            distinct = self._is(place, "distinct")
            name = self._column(self._words[place + distinct], default)
            # The bracket around an aggregate, if there is one, is left to whoever asked.
            return self._expect(place + distinct + 1, ")"), Column(aggregate, name, distinct)
        distinct = self._is(place, "distinct")
        place += distinct
        name = self._column(self._words[place], default)
        place += 1
        return (self._expect(place, ")") if bracket else place), Column("", name, distinct)

    def _column(self, word: str, default: Sequence[str]) -> str:
        if word == "*":
            return word
        owner, dot, name = word.partition(".")
        owners = [self._table(owner)] if dot else default
        name = name if dot else word
        for table in owners:
            if name in self._schema.columns[table]:
                return f"{table}.{name}"
        raise NotSql(f"no column {word!r}")

    def _table(self, word: str) -> str:
        table = self._tables.get(word)
        if table not in self._schema.columns:
            raise NotSql(f"no table {word!r}")
        return table
