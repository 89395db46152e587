"""Readers of the embedded benchmark's formats that have no reader of their own among the families.

A reader takes a file and the task's options and yields `Example`s; its uid is the row in the file. What is
wrong with a file is told as an `InputError` with the line.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from iml.bench.card import Example
from iml.errors import InputError

Options = Mapping[str, Any]
_REASONING = "Answer the following question by reasoning step by step."
_KINDS = {str: "a string", list: "a list", dict: "an object", bool: "true or false"}


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 at byte {error.start}", path=path) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of the lines that are not blank; only line feeds end a line."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip():
            yield number, line


def _load(text: str, path: Path, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON: {error.msg}", path=path, line=line or error.lineno) from error


def _field(record: Any, name: str, kind: type, path: Path, line: int | None = None) -> Any:
    """A field of a JSON object, checked for its type."""
    if not isinstance(record, dict) or name not in record:
        raise InputError("a record lacks this field", path=path, line=line, field=name)
    if not isinstance(record[name], kind):
        problem = f"must be {_KINDS[kind]}, not {record[name]!r:.60}"
        raise InputError(problem, path=path, line=line, field=name)
    return record[name]


def _strings(record: Any, name: str, path: Path, line: int | None = None) -> list[str]:
    """A field that is a list of strings and not empty."""
    values = _field(record, name, list, path, line)
    if not values or not all(isinstance(value, str) for value in values):
        raise InputError(f"must be a list of strings, not {values!r:.60}", path=path, line=line, field=name)
    return values


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(path):
        yield number, _load(line, path, number)


def _json_list(path: Path) -> list[Any]:
    records = _load(_text(path), path)
    if not isinstance(records, list):
        raise InputError("must hold a JSON list", path=path)
    return records


def _columns(path: Path, least: int) -> Iterator[tuple[int, list[str]]]:
    """The columns of a tab-separated file without header and without quoting."""
    for number, line in _lines(path):
        columns = line.split("\t")
        if len(columns) < least:
            raise InputError(f"has {len(columns)} of {least} tab-separated columns", path=path, line=number)
        yield number, columns


def _instructed(options: Options, text: str) -> str:
    instruction = options.get("instruction", "")
    return f"{instruction}\n\nInput: {text}" if instruction else text


def flan(path: Path, options: Options) -> Iterator[Example]:
    """FLAN 2022 rows: inputs, targets; the choices are the lines of a last `OPTIONS:` block."""
    for number, record in _json_lines(path):
        source = _field(record, "inputs", str, path, number)
        target = _field(record, "targets", str, path, number)
        _, mark, block = source.rpartition("OPTIONS:\n")
        choices = re.findall(r"^- (.+)$", block, re.MULTILINE) if mark else []
        if choices and target not in choices:
            raise InputError("the target is not among the options", path=path, line=number, field="targets")
        template = str(record.get("_template_idx", ""))
        yield Example(str(number), source, target, (target,), tuple(choices), template=template)


def crossfit(path: Path, options: Options) -> Iterator[Example]:
    """CrossFit's TSV: input, output, and further outputs in further columns."""
    candidates = tuple(options.get("candidates", ()))
    for number, (source, *answers) in _columns(path, 2):
        if candidates and answers[0] not in candidates:
            raise InputError(f"{answers[0]!r:.60} is not among the candidates", path=path, line=number)
        yield Example(str(number), _instructed(options, source), answers[0], tuple(answers), candidates)


def parallel(path: Path, options: Options) -> Iterator[Example]:
    """Line-aligned `.original` and `.modern` files; `path` is the former."""
    other = path.with_suffix(".modern")
    sources, targets = dict(_lines(path)), dict(_lines(other))
    if sources.keys() != targets.keys():
        raise InputError(f"has {len(targets)} lines for {len(sources)} of {path.name}", path=other)
    for number, source in sources.items():
        target = targets[number]
        yield Example(str(number), _instructed(options, source), target, (target,))


def cogs(path: Path, options: Options) -> Iterator[Example]:
    """COGS: sentence, logical form, kind of distribution."""
    for number, (source, target, *_) in _columns(path, 3):
        yield Example(str(number), _instructed(options, source), target, (target,))


def boolq(path: Path, options: Options) -> Iterator[Example]:
    """SuperGLUE's BoolQ as T5 words it; the label becomes True or False."""
    for number, record in _json_lines(path):
        question = _field(record, "question", str, path, number)
        passage = _field(record, "passage", str, path, number)
        target = str(_field(record, "label", bool, path, number))
        source = f"boolq question: {question} passage: {passage}"
        yield Example(str(number), source, target, (target,), ("False", "True"))


def news(path: Path, options: Options) -> Iterator[Example]:
    """CNN/DailyMail under T5's `summarize:` prefix."""
    for number, record in _json_lines(path):
        target = _field(record, "highlights", str, path, number)
        yield Example(
            str(number), f"summarize: {_field(record, 'article', str, path, number)}", target, (target,)
        )


def wmt(path: Path, options: Options) -> Iterator[Example]:
    """WMT rows under T5's `translate X to Y:` prefix; options `from` and `to` are language codes."""
    names = {"en": "English", "es": "Spanish", "de": "German", "fr": "French", "ro": "Romanian"}
    source_code, target_code = options["from"], options["to"]
    prefix = f"translate {names[source_code]} to {names[target_code]}: "
    for number, record in _json_lines(path):
        pair = _field(record, "translation", dict, path, number)
        target = _field(pair, target_code, str, path, number)
        yield Example(str(number), prefix + _field(pair, source_code, str, path, number), target, (target,))


def dart(path: Path, options: Options) -> Iterator[Example]:
    """DART: each annotation's text is a reference."""
    for number, record in enumerate(_json_list(path), start=1):
        triples = _field(record, "tripleset", list, path)
        texts = tuple(_field(note, "text", str, path) for note in _field(record, "annotations", list, path))
        if not texts:
            raise InputError(f"record {number} has no annotation", path=path, field="annotations")
        facts = " | ".join(" : ".join(triple) for triple in triples)
        yield Example(str(number), f"triples: {facts}\ntextual description:", texts[0], texts)


def e2e(path: Path, options: Options) -> Iterator[Example]:
    """E2E: rows of the same meaning representation are references of one example."""
    rows = csv.DictReader(_text(path).splitlines())
    if not {"mr", "ref"} <= set(rows.fieldnames or ()):
        raise InputError("lacks the columns mr and ref", path=path, line=1)
    references: dict[str, list[str]] = {}
    for row in rows:
        if not row["mr"] or not row["ref"]:
            raise InputError("a row lacks mr or ref", path=path, line=rows.line_num)
        references.setdefault(row["mr"], []).append(row["ref"])
    for number, (meaning, texts) in enumerate(references.items(), start=1):
        yield Example(str(number), f"attributes: {meaning}\ntextual description:", texts[0], tuple(texts))


def fetaqa(path: Path, options: Options) -> Iterator[Example]:
    """FeTaQA's tables in UnifiedSKG's serialisation: `col : a | b row 1 : c | d`."""
    for number, record in _json_lines(path):
        header, *rows = _field(record, "table_array", list, path, number) or [[]]
        table = " ".join(
            (
                f"col : {' | '.join(header)}",
                *(f"row {i} : {' | '.join(row)}" for i, row in enumerate(rows, 1)),
            )
        )
        question = _field(record, "question", str, path, number)
        target = _field(record, "answer", str, path, number)
        source = f"table: {table}\nquestion: {question}\nanswer:"
        yield Example(str(number), source, target, (target,))


def spider(path: Path, options: Options) -> Iterator[Example]:
    """Spider's questions with their schema, `database: | id | table : column , column`."""
    tables_path = path.parent / "tables.json"
    schemas = {}
    for schema in _json_list(tables_path):
        tables = _strings(schema, "table_names_original", tables_path)
        columns: list[list[str]] = [[] for _ in tables]
        for table, column in _field(schema, "column_names_original", list, tables_path):
            if table >= 0:
                columns[table].append(column)
        parts = (f"{table} : {' , '.join(names)}" for table, names in zip(tables, columns, strict=True))
        schemas[_field(schema, "db_id", str, tables_path)] = " | ".join(parts)
    for number, record in enumerate(_json_list(path), start=1):
        database = _field(record, "db_id", str, path)
        if database not in schemas:
            raise InputError(
                f"record {number} names the unknown database {database!r}", path=path, field="db_id"
            )
        question = _field(record, "question", str, path)
        target = _field(record, "query", str, path)
        source = f"database: | {database} | {schemas[database]}\nquestion: {question}\nSQL query:"
        yield Example(str(number), source, target, (target,))


def _reasoned(uid: int, question: str, rationale: str, answer: str) -> Example:
    target = f"{rationale} The answer is {answer}."
    return Example(str(uid), question, target, (target,), instruction=_REASONING, rationale=rationale)


def cot(path: Path, options: Options) -> Iterator[Example]:
    r"""FLAN's chain-of-thought TSV: question, answer, rationale; `\n` stands for a line break."""
    for number, columns in _columns(path, 3):
        question, answer, rationale = (column.replace("\\n", "\n") for column in columns[:3])
        yield _reasoned(number, question, rationale, answer)


def gsm8k(path: Path, options: Options) -> Iterator[Example]:
    """GSM8K without its `<<calculator marks>>`; what stands after `####` is the answer."""
    for number, record in _json_lines(path):
        rationale, mark, answer = _field(record, "answer", str, path, number).rpartition("\n####")
        if not mark:
            raise InputError("has no '#### result'", path=path, line=number, field="answer")
        rationale = re.sub(r"<<[^<>]*>>", "", rationale)
        yield _reasoned(number, _field(record, "question", str, path, number), rationale, answer.strip())


def aqua(path: Path, options: Options) -> Iterator[Example]:
    """AQuA: the options follow the question; the answer is the text of the right one."""
    for number, record in _json_lines(path):
        choices = _strings(record, "options", path, number)
        letter = _field(record, "correct", str, path, number)
        right = [choice.partition(")")[2] for choice in choices if choice.partition(")")[0].strip() == letter]
        if not right:
            raise InputError(f"no option has the letter {letter!r}", path=path, line=number, field="correct")
        question = f"{_field(record, 'question', str, path, number)}\n{', '.join(choices)}"
        yield _reasoned(number, question, _field(record, "rationale", str, path, number), right[0].strip())


READERS: Mapping[str, Callable[[Path, Options], Iterator[Example]]] = {
    reader.__name__: reader
    for reader in (
        flan,
        crossfit,
        parallel,
        cogs,
        boolq,
        news,
        wmt,
        dart,
        e2e,
        fetaqa,
        spider,
        cot,
        gsm8k,
        aqua,
    )
}  # fmt: skip


def examples(data_dir: Path, entry: Mapping[str, Any], split: str) -> Iterator[Example]:
    """The examples of one catalogue entry and split.

    Raises:
      InputError: the entry's format is unknown or its file is bad or empty.
    """
    reader = READERS.get(entry["format"])
    if reader is None:
        raise InputError(f"unknown format {entry['format']!r}", remedy=f"Formats: {', '.join(READERS)}")
    path = data_dir / entry["files"][split]
    count = 0
    for example in reader(path, entry["options"]):
        count += 1
        yield example
    if not count:
        raise InputError("holds no example", path=path)
