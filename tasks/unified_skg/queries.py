"""UnifiedSKG's semantic parsing sets, and questions to a knowledge graph: the target is a query or its result."""

from __future__ import annotations

import collections
import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml.errors import InputError
from tasks import files
from tasks.unified_skg.serialisation import (
    Record,
    history,
    linear_schema,
    normal_sql,
    shuffled,
    squeeze,
    texts,
)

Options = Mapping[str, Any]
#: Items of GrailQA's schema that a question is shown, as in UnifiedSKG.
_SCHEMA_ITEMS = 20
_INTENT = re.compile(r"IN:[A-Z_]+")


def spider(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """Spider: questions to databases whose schemas stand in `tables.json`."""
    schemas = _schemas(home, options)
    for number, record in enumerate(files.json_records(path), start=1):
        structure, metric_data = _schema(schemas, files.field(record, "db_id", str, path), path, number)
        question = squeeze(files.field(record, "question", str, path))
        yield Record(str(number), structure, question, (_query(record, path, options),), metric_data)


def conversation(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """SParC and CoSQL: every turn of an interaction is an example, shown with the turns before it."""
    schemas = _schemas(home, options)
    for number, record in enumerate(files.json_records(path), start=1):
        structure, metric_data = _schema(schemas, files.field(record, "database_id", str, path), path, number)
        said: list[str] = []
        for turn, step in enumerate(files.field(record, "interaction", list, path)):
            utterance = files.field(step, "utterance", str, path)
            query = _query(step, path, options)
            asked = history(utterance, said)
            yield Record(f"{number}-{turn}", structure, asked, (query,), metric_data)
            said.append(utterance)


def grailqa(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """GrailQA: a Freebase query in S-expressions, shown the entities and the relations it may need.

    Of the schema the classes and relations of the gold query are shown and, up to twenty in all, others that
    UnifiedSKG's files name as retrieved.
    """
    for number, record in _records(path):
        uid = str(record.get("qid", number))
        question = squeeze(files.field(record, "question", str, path, number))
        graph = files.field(record, "graph_query", dict, path, number)
        nodes = files.field(graph, "nodes", list, path, number)
        gold = [files.field(edge, "relation", str, path, number) for edge in graph.get("edges", ())]
        entities = []
        for node in nodes:
            kind, item = (files.field(node, name, str, path, number) for name in ("node_type", "id"))
            if kind == "entity":
                entities.append(f"{node.get('friendly_name', item).lower()}: {item}")
            elif kind == "class" and node.get("question_node"):
                gold.append(item)
        others = shuffled(
            set(texts({"retrieved_schema": [], **record}, "retrieved_schema", path)) - {*gold}, uid
        )
        chosen = [*dict.fromkeys(gold), *others[: max(0, _SCHEMA_ITEMS - len(set(gold)))]]
        structure = f"{' '.join(entities)} | {' '.join(shuffled(chosen, uid))}"
        target = files.field(record, "s_expression", str, path, number)
        yield Record(str(number), structure.strip(), question, (target,))


def webqsp(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """WebQSP as UnifiedSKG ships it: entities and retrieved triples; questions without a query are left out."""
    for number, record in _records(path):
        target = files.field(record, "s_expression", str, path, number)
        if target == "null":
            continue
        entities = _tuples(record, "entities", path, number)
        structure = (
            f"{' '.join(': '.join(pair) for pair in entities)} | {_graph(record, 'kg_tuples', path, number)}"
        )
        question = squeeze(files.field(record, "question", str, path, number))
        yield Record(str(number), structure.strip(), question, (target,))


def compwebq(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """ComplexWebQuestions as UnifiedSKG ships it: retrieved triples; the answers themselves are the target."""
    for number, record in _records(path):
        answers = files.strings(record, "answers", path, number)
        question = squeeze(files.field(record, "question", str, path, number))
        yield Record(str(number), _graph(record, "KG_tuples", path, number), question, (", ".join(answers),))


def mtop(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """MTOP, English: the intents of the training file are what there is to call, grouped by their verb."""
    structure = _intents(path.parent / "train.txt" if (path.parent / "train.txt").exists() else path)
    for number, columns in files.columns(path, 8):
        try:
            tokens = json.loads(columns[7])["tokens"]
            utterance = " ".join(tokens)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("the last column must hold tokens as JSON", path=path, line=number) from error
        yield Record(str(number), structure, utterance, (columns[6],))


def sql2text(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """SQL2Text (relogic's split of Spider): a query, and the question that it answers."""
    for number, record in enumerate(files.json_records(path), start=1):
        question = squeeze(files.field(record, "question", str, path))
        yield Record(str(number), squeeze(files.field(record, "query", str, path)), "", (question,))


def _query(record: Any, path: epath.Path, options: Options) -> str:
    query = files.field(record, "query", str, path)
    return query if options.get("as_written") else normal_sql(query)


def _schemas(home: epath.Path, options: Options) -> Mapping[str, tuple[str, str]]:
    """Of all databases; Spider's test databases have a file of their own."""
    paths = [home / "tables.json", *(path for path in [home / "test_tables.json"] if path.exists())]
    found = [_read_schemas(path, bool(options.get("as_written"))) for path in paths]
    return collections.ChainMap(*map(dict, found))


@functools.lru_cache(maxsize=4)
def _read_schemas(path: epath.Path, as_written: bool) -> Mapping[str, tuple[str, str]]:
    """By the name of the database its serialised schema, and what metrics need of it."""
    schemas = {}
    for record in files.json_records(path):
        names = files.strings(record, "table_names_original", path)
        columns: list[list[str]] = [[] for _ in names]
        for column in files.field(record, "column_names_original", list, path):
            try:
                table, name = column
                if table >= 0:
                    columns[table].append(name)
            except (TypeError, ValueError, IndexError) as error:
                problem = f"must hold pairs of a table's number and a name, not {column!r:.60}"
                raise InputError(problem, path=path, field="column_names_original") from error
        name = files.field(record, "db_id", str, path)
        tables = dict(zip(names, columns, strict=True))
        schema = linear_schema(name, tables)
        data = {"database": name, "columns": tables, "foreign_keys": _foreign_keys(record, names, path)}
        metric_data = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        schemas[name] = (schema if as_written else schema.lower(), metric_data)
    return schemas


def _foreign_keys(record: Any, names: list[str], path: epath.Path) -> list[list[str]]:
    """The pairs of columns that mean the same, as "table.column"."""
    columns = record["column_names_original"]
    try:
        return [
            [f"{names[columns[key][0]]}.{columns[key][1]}" for key in pair]
            for pair in record.get("foreign_keys", ())
        ]
    except (TypeError, IndexError) as error:
        raise InputError("must hold pairs of numbers of columns", path=path, field="foreign_keys") from error


def _schema(
    schemas: Mapping[str, tuple[str, str]], database: str, path: epath.Path, number: int
) -> tuple[str, str]:
    if database not in schemas:
        problem = f"record {number} names the unknown database {database!r}"
        raise InputError(problem, path=path, remedy="tables.json must hold its schema")
    return schemas[database]


def _records(path: epath.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, record) of a file of JSON lines, or of one that is a JSON list."""
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        return files.json_lines(path)
    return enumerate(files.json_records(path), start=1)


def _tuples(record: Any, name: str, path: epath.Path, number: int) -> list[list[str]]:
    values = files.field(record, name, list, path, number)
    if not all(isinstance(value, list) for value in values):
        raise InputError("must be a list of lists", path=path, line=number, field=name)
    return [[str(part) for part in value] for value in values]


def _graph(record: Any, name: str, path: epath.Path, number: int) -> str:
    """Triples as UnifiedSKG's knowledge graph sets write them: `head relation tail | ...`."""
    return " | ".join(squeeze(" ".join(parts)) for parts in _tuples(record, name, path, number))


@functools.lru_cache(maxsize=4)
def _intents(path: epath.Path) -> str:
    found = {intent for _, columns in files.columns(path, 8) for intent in _INTENT.findall(columns[6])}
    groups: dict[str, list[str]] = {}
    for intent in sorted(found):
        verb, _, rest = intent.partition("_")
        groups.setdefault(verb, []).append(rest)
    return " | ".join(f"{verb}: {', '.join(rests)}" for verb, rests in groups.items())
