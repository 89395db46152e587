"""UnifiedSKG's table sets: questions to tables, and statements that a table bears out or not."""

from __future__ import annotations

import ast
import contextlib
import csv
import functools
import io
import json
import os
import re
import sqlite3
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml.errors import InputError
from tasks import files, layouts
from tasks.unified_skg.serialisation import Record, cells, fit_rows, history, linear_table, matrix, squeeze
from tasks.unified_skg.wikisql import answers_of

Options = Mapping[str, Any]
#: MultiModalQA's kinds of questions that need no image; UnifiedSKG takes these.
_WITHOUT_IMAGES = frozenset(
    (
        "TableQ",
        "TextQ",
        "Compose(TextQ,TableQ)",
        "Intersect(TableQ,TextQ)",
        "Compare(TableQ,Compose(TableQ,TextQ))",
        "Compose(TableQ,TextQ)",
    )
)
#: TabFact's labels.
_VERDICTS = {0: "refuted", 1: "entailed"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_WIKI_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]]*)\]\]")


def wikitq(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    r"""WikiTableQuestions: tables as `.csv` whose quotes a backslash escapes; several answers are joined by `|`."""
    for number, row in files.table(path, delimiter="\t", quoting=csv.QUOTE_NONE):
        if not {"id", "utterance", "context", "targetValue"} <= row.keys():
            raise InputError("lacks the columns id, utterance, context, targetValue", path=path, line=1)
        question = _unescape(row["utterance"])
        answers = [_unescape(value) for value in row["targetValue"].split("|")]
        table = _csv_table(home / layouts.within(home, row["context"]), escapechar="\\")
        structure = _table(table, question, options)
        yield Record(row["id"] or str(number), structure, question, (", ".join(answers),))


def wikisql(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """WikiSQL: the target is what the gold query finds in the table, not the query."""
    tables_path = layouts.one(path.parent, f"{path.name.partition('.')[0]}.tables.jsonl")
    tables = _by_id(tables_path)
    for number, record in files.json_lines(path):
        question = squeeze(files.field(record, "question", str, path, number))
        table = _lookup(tables, files.field(record, "table_id", str, path, number), tables_path, path, number)
        header = cells(files.field(table, "header", list, tables_path))
        rows = matrix(table.get("rows"), "rows", tables_path)
        query = files.field(record, "sql", dict, path, number)
        types = table.get("types") or ["text"] * len(header)
        try:
            answers = answers_of(query, types, table["rows"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError("is no query to this table", path=path, line=number, field="sql") from error
        structure = _table([header, *rows], question, options)
        yield Record(str(number), structure, question, (", ".join(answers),))


def sqa(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """SQA: sequences of questions to one table; position 0 begins a sequence."""
    earlier: list[str] = []
    for number, row in files.table(path, delimiter="\t"):
        if not {"position", "question", "table_file", "answer_text"} <= row.keys():
            raise InputError("lacks columns of SQA", path=path, line=1)
        earlier = earlier if row["position"] != "0" else []
        try:
            answers = [squeeze(str(answer)) for answer in ast.literal_eval(row["answer_text"])]
        except (ValueError, SyntaxError, TypeError) as error:
            raise InputError("is no list of texts", path=path, line=number, field="answer_text") from error
        asked = history(row["question"], earlier)
        structure = _table(_csv_table(home / layouts.within(home, row["table_file"])), asked, options)
        yield Record(str(number), structure, asked, (", ".join(answers),))
        earlier.append(row["question"])


def fetaqa(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """FeTaQA: the answer is a sentence; the titles of page and section stand before the table."""
    for number, record in files.json_lines(path):
        table = matrix(files.field(record, "table_array", list, path, number), "table_array", path, number)
        question = files.field(record, "question", str, path, number)
        titles = [record.get(name, "") for name in ("table_page_title", "table_section_title")]
        title = "" if options.get("untitled") else " | ".join(filter(None, titles)) + " "
        answer = files.field(record, "answer", str, path, number)
        yield Record(str(number), title + _table(table or [[]], question, options), question, (answer,))


def hybridqa(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """HybridQA: tables, and of the passages they link to the sentences around the answer.

    Both stand in a repository of their own, WikiTables-WithLinks (`tables_tok`, `request_tok`); where it is
    absent, the bare question is asked. Which passages matter is told by the files named `traced` only.
    """
    linked = layouts.first_folder(home, ("WikiTables-WithLinks", "WikiTables-WithLinks-master"))
    for record in files.json_records(path):
        uid, question = (files.field(record, name, str, path) for name in ("question_id", "question"))
        answer = files.field(record, "answer-text", str, path)
        structure = ""
        if linked is not None:
            name = layouts.within(linked, f"{files.field(record, 'table_id', str, path)}.json")
            table = files.json_value(linked / "tables_tok" / name)
            structure = _table(_linked_table(table, linked / "tables_tok" / name), question, options)
            nodes = [node for node in record.get("answer-node", ()) if node[3] == "passage"]
            passages = files.json_value(linked / "request_tok" / name) if nodes else {}
            told = {node[2]: passages[node[2]] for node in nodes if node[2] in passages}
            shown = [
                f"{link.rpartition('/')[2].replace('_', ' ')}: {_around(text, answer)}"
                for link, text in told.items()
            ]
            structure += f" passages: {' | '.join(shown)}" if shown else ""
        yield Record(uid, structure, question, (answer,))


def mmqa(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """MultiModalQA's questions to tables and texts; those that need an image are left out, as in UnifiedSKG."""
    stores = {kind: layouts.one(home, f"MMQA_{kind}.jsonl") for kind in ("tables", "texts")}
    for number, record in files.json_lines(path):
        metadata = files.field(record, "metadata", dict, path, number)
        if files.field(metadata, "type", str, path, number) not in _WITHOUT_IMAGES:
            continue
        question = files.field(record, "question", str, path, number)
        tables, texts = [], []
        for part in files.field(record, "supporting_context", list, path, number):
            kind = "tables" if part.get("doc_part") == "table" else "texts"
            document = _lookup(_by_id(stores[kind]), str(part.get("doc_id")), stores[kind], path, number)
            if kind == "texts":
                texts.append(f"{document['title']}. {document['text']}")
                continue
            table = files.field(document, "table", dict, stores[kind])
            header = [column["column_name"] for column in table["header"]]
            rows = [[cell["text"] for cell in row] for row in table["table_rows"]]
            title = f"{document['title']} | {table['table_name']}"
            tables.append(f"{title} {_table(matrix([header, *rows], 'table', path), question, options)}")
        answers = [str(answer["answer"]) for answer in files.field(record, "answers", list, path, number)]
        uid = str(record.get("qid", number))
        yield Record(uid, squeeze(" ".join((*tables, *texts))), question, (" | ".join(answers),))


def tab_fact(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """TabFact: statements by table file, labelled 1 (entailed) or 0 (refuted)."""
    records = files.json_value(path)
    if not isinstance(records, dict):
        raise InputError("must hold a JSON object, statements by the name of their table", path=path)
    for name, entry in records.items():
        try:
            statements, labels, _caption = entry
            pairs = [(text, _VERDICTS[label]) for text, label in zip(statements, labels, strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            problem = "must be [statements, labels of 0 or 1, caption]"
            raise InputError(problem, path=path, field=name) from error
        table = _hash_table(home / "data" / "all_csv" / layouts.within(home, name))
        for number, (statement, label) in enumerate(pairs):
            yield Record(f"{name}-{number}", _table(table, statement, options), squeeze(statement), (label,))


def feverous(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """FEVEROUS: the claims whose evidence has a table, as in UnifiedSKG, with that evidence.

    The pages stand in the SQLite file `feverous_wikiv1.db`, which must be on a local disk.
    """
    database = home / "feverous_wikiv1.db"
    if not database.exists():
        raise InputError(
            "is missing", path=database, remedy="Get FEVEROUS's Wikipedia pages, on a local disk"
        )
    address = f"file:{urllib.parse.quote(os.fspath(database))}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as pages:
        for number, record in files.json_lines(path):
            evidence = files.field(record, "evidence", list, path, number)
            ids = evidence[0].get("content", ()) if evidence else ()
            if not any("_cell_" in item or "_table_caption_" in item for item in ids):
                continue
            claim = files.field(record, "claim", str, path, number)
            label = files.field(record, "label", str, path, number).lower()
            try:
                structure = _evidence(ids, pages, claim, options)
            except (sqlite3.Error, AttributeError, ValueError, KeyError, IndexError, TypeError) as error:
                raise InputError(
                    f"evidence not found in {database.name}: {error}", path=path, line=number
                ) from error
            yield Record(str(record.get("id", number)), structure, squeeze(claim), (label,))


def _evidence(ids: list[str], pages: sqlite3.Connection, claim: str, options: Options) -> str:
    """The tables and, after them, the sentences that the parts of pages with these ids stand in."""
    tables: dict[tuple[str, str], str] = {}
    sentences = []
    for item in ids:
        name, kind, place = re.fullmatch(
            r"(.*?)_(sentence|cell|header_cell|table_caption|item)_(.*)", item
        ).groups()
        page = _page(pages, name)
        if kind == "sentence":
            sentences.append(_plain(page[f"sentence_{place}"]))
        elif kind == "item":
            entries = page[f"list_{place.split('_')[0]}"]["list"]
            sentences += [_plain(entry["value"]) for entry in entries if entry["id"] == f"item_{place}"]
        elif (name, number := place.split("_")[0]) not in tables:
            rows = [[_plain(cell["value"]) for cell in row] for row in page[f"table_{number}"]["table"]]
            tables[name, number] = _table(matrix(rows, "table", ""), claim, options)
    return " ".join((*tables.values(), *sentences))


def _page(pages: sqlite3.Connection, name: str) -> dict[str, Any]:
    found = pages.execute("SELECT data FROM wiki WHERE id = ?", (name,)).fetchone()
    if found is None:
        raise KeyError(name)
    return json.loads(found[0])


def _plain(text: str) -> str:
    """Text of a Wikipedia page without the marks of its links."""
    return squeeze(_WIKI_LINK.sub(r"\1", text))


def _table(table: list[list[str]], question: str, options: Options) -> str:
    header, *rows = table
    return linear_table(header, fit_rows(header, rows, question, options.get("max_table_chars", 0)))


@functools.lru_cache(maxsize=64)
def _csv_table(path: epath.Path, escapechar: str | None = None) -> list[list[str]]:
    """Header and rows of a quoted CSV file; quotes are doubled unless there is a character to escape them."""
    reader = csv.reader(
        io.StringIO(files.text(path), newline=""), escapechar=escapechar, doublequote=escapechar is None
    )
    try:
        return matrix([row for row in reader if row], "table", path) or [[]]
    except csv.Error as error:
        raise InputError(f"is not a table: {error}", path=path, line=reader.line_num) from error


@functools.lru_cache(maxsize=64)
def _hash_table(path: epath.Path) -> list[list[str]]:
    """Header and rows of one of TabFact's tables, whose cells `#` parts."""
    return matrix([line.split("#") for _, line in files.lines(path)], "table", path) or [[]]


@functools.lru_cache(maxsize=4)
def _by_id(path: epath.Path) -> Mapping[str, dict[str, Any]]:
    return {files.field(record, "id", str, path, number): record for number, record in files.json_lines(path)}


def _lookup(records: Mapping[str, Any], uid: str, where: epath.Path, path: epath.Path, number: int) -> Any:
    if uid not in records:
        raise InputError(f"names {uid!r:.80}, which {where.name} lacks", path=path, line=number)
    return records[uid]


def _linked_table(table: Any, path: epath.Path) -> list[list[str]]:
    """A table of WikiTables-WithLinks, whose every cell is [text, links]."""
    try:
        return matrix([[cell[0] for cell in row] for row in (table["header"], *table["data"])], "data", path)
    except (KeyError, TypeError, IndexError) as error:
        raise InputError("is no table of cells [text, links]", path=path) from error


def _around(passage: str, answer: str) -> str:
    """The sentence of a passage that holds the answer, with its neighbours; the first two if none does."""
    sentences = _SENTENCE_END.split(squeeze(passage))
    wanted = f" {answer.lower()} "
    place = next((i for i, text in enumerate(sentences) if wanted in f" {text.lower()} "), 0)
    return " ".join(sentences[max(0, place - 1) : place + 2])


def _unescape(text: str) -> str:
    r"""Undoes WikiTableQuestions' escapes: `\n` line break, `\p` bar, `\\` backslash."""
    return squeeze(re.sub(r"\\(.)", lambda found: {"n": " ", "p": "|"}.get(found[1], found[1]), text))
