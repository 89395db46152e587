"""Readers of the embedded benchmark's formats that have no reader of their own among the families.

A reader takes a file and the task's options and yields `Example`s; its uid is the row in the file. What is
wrong with a file is told as an `InputError` with the line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from iml.bench.card import Example
from iml.errors import InputError
from tasks.reasoning import readers as reasoning
from tasks.unified_skg import descriptions, queries, tables
from tasks.unified_skg.serialisation import Record

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


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(path):
        yield number, _load(line, path, number)


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
    """DART: each annotation's text is a reference; relations stay as they are."""
    records = descriptions.dart(path.parent, path, {"as_written": True})
    yield from _structured(records, "triples: {structure}\ntextual description:")


def e2e(path: Path, options: Options) -> Iterator[Example]:
    """E2E: rows of the same meaning representation are references of one example."""
    yield from _structured(
        descriptions.e2e(path.parent, path, {}), "attributes: {structure}\ntextual description:"
    )


def fetaqa(path: Path, options: Options) -> Iterator[Example]:
    """FeTaQA's tables in UnifiedSKG's serialisation: `col : a | b row 1 : c | d`, without a title."""
    records = tables.fetaqa(path.parent, path, {"untitled": True})
    yield from _structured(records, "table: {structure}\nquestion: {text}\nanswer:")


def spider(path: Path, options: Options) -> Iterator[Example]:
    """Spider's questions with their schema, `database: | id | table : column , column`, in its own case."""
    records = queries.spider(path.parent, path, {"as_written": True})
    yield from _structured(records, "database: {structure}\nquestion: {text}\nSQL query:")


def _structured(records: Iterable[Record], template: str) -> Iterator[Example]:
    for record in records:
        source = template.format(structure=record.structure, text=record.text)
        yield Example(record.uid, source, record.references[0], record.references)


def _reasoned(uid: str, question: str, rationale: str, answer: str) -> Example:
    target = f"{rationale} The answer is {answer}."
    return Example(uid, question, target, (target,), instruction=_REASONING, rationale=rationale)


def cot(path: Path, options: Options) -> Iterator[Example]:
    r"""FLAN's chain-of-thought TSV: question, answer, rationale; `\n` stands for a line break."""
    for number, question, answer, rationale in reasoning.read_cot_tsv(path):
        yield _reasoned(str(number), question, rationale, answer)


def gsm8k(path: Path, options: Options) -> Iterator[Example]:
    """GSM8K without its `<<calculator marks>>`; what stands after `####` is the answer."""
    for problem in reasoning.gsm8k(path):
        yield _reasoned(problem.uid, problem.question, problem.rationale, problem.answer)


def aqua(path: Path, options: Options) -> Iterator[Example]:
    """AQuA: the options follow the question; the answer is the text of the right one."""
    for problem in reasoning.aqua(path):
        question = f"{problem.question}\n{', '.join(problem.options)}"
        yield _reasoned(problem.uid, question, problem.rationale, problem.answer)


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
