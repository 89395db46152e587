"""Rows of T5's sets: readers of their releases, and what makes a row an example.

A reader yields (place in the file, line, row); rows have the fields that Hugging Face's and TFDS's editions have,
so that all three become examples by the same functions (`FORMS`). A row without label is no example.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from iml.errors import InputError
from tasks import files

Row = Mapping[str, Any]
Definition = Mapping[str, Any]
Placed = tuple[str, int | None, Row]

_MARKUP = re.compile(r"</?b>")
_LINE_BREAK = re.compile(r"<br\s*/?>")
_HIGHLIGHT = re.compile(r"([.?!\"'])?\n@highlight\n")
_TREE_LEAF = re.compile(r"\(\d ([^()]+)\)")


def read(path: epath.Path, definition: Definition) -> Iterator[Placed]:
    """The rows of a file, read by what its name ends in.

    Raises:
      InputError: the file is damaged.
    """
    suffix = path.name.removesuffix(".gz").rpartition(".")[2]
    reader = _READERS.get(suffix)
    if reader is None:
        raise InputError("is of an unknown format", path=path, remedy=f"Known: {', '.join(_READERS)}")
    renamed = definition.get("rename", {})
    for place, line, row in reader(path, definition):
        yield place, line, {renamed.get(name, name): value for name, value in row.items()}


def _json_lines(path: epath.Path, definition: Definition) -> Iterator[Placed]:
    for number, record in files.json_lines(path):
        for place, row in _flat(record):
            yield f"{number}{place}", number, row


def _json_data(path: epath.Path, definition: Definition) -> Iterator[Placed]:
    """One object with a list `data`, of SQuAD's articles or ReCoRD's passages."""
    for number, entry in enumerate(files.field(files.json_value(path), "data", list, path), start=1):
        if "paragraphs" not in entry:
            yield from ((f"{number}{place}", None, row) for place, row in _flat(entry))
            continue
        for part, paragraph in enumerate(entry["paragraphs"], start=1):
            for index, question in enumerate(paragraph["qas"], start=1):
                texts = [answer["text"] for answer in question["answers"]]
                row = {"context": paragraph["context"], "answers": {"text": texts}}
                yield f"{number}-{part}-{index}", None, {**row, "question": question["question"]}


def _flat(record: Row) -> Iterator[tuple[str, Row]]:
    """SuperGLUE's nested records as flat rows, each with the end of its place; others as they are."""
    passage = record.get("passage")
    if isinstance(passage, Mapping) and "questions" in passage:
        for number, question in enumerate(passage["questions"]):
            for index, answer in enumerate(question["answers"]):
                row = {
                    "paragraph": passage["text"],
                    "question": question["question"],
                    "answer": answer["text"],
                }
                yield f"-{number}-{index}", {**row, "label": answer.get("label")}
    elif isinstance(passage, Mapping):
        text = passage["text"]
        entities = [text[span["start"] : span["end"] + 1] for span in passage["entities"]]
        for number, query in enumerate(record["qas"]):
            answers = [answer["text"] for answer in query.get("answers", ())]
            row = {"passage": text, "entities": entities, "query": query["query"], "answers": answers}
            yield f"-{number}", row
    elif isinstance(record.get("target"), Mapping):
        yield "", {**record, **record["target"]}
    else:
        yield "", record


def _table(path: epath.Path, definition: Definition) -> Iterator[Placed]:
    """Tab-separated lines without quoting, whose first is a header unless the definition names the columns.

    Sentence trees of the Stanford Sentiment Treebank are told by the bracket that they begin with.
    """
    names: list[str] = list(definition.get("columns", ()))
    for number, line in files.lines(path):
        parts = line.split("\t")
        if line.startswith("(") and len(parts) == 1:
            yield str(number), number, _tree(line)
        elif not names:
            names = parts
        elif len(parts) >= len(names):
            yield str(number), number, dict(zip(names, parts, strict=False))
        elif not definition.get("passes_short_lines"):
            problem = f"has {len(parts)} of {len(names)} columns"
            raise InputError(problem, path=path, line=number)


def _tree(line: str) -> Row:
    """A sentence tree's sentence and its polarity; none for the neutral ones, as in GLUE."""
    label = {"0": 0, "1": 0, "3": 1, "4": 1}.get(line[1:2])
    return {"sentence": " ".join(_TREE_LEAF.findall(line)), "label": label}


def _parallel(path: epath.Path, definition: Definition) -> Iterator[Placed]:
    """Line-aligned files that end in `.en` and the other language's code."""
    code = definition["field"]
    stem, _, packed = path.name.rpartition(".en")
    for number, source, target in aligned(path, path.with_name(f"{stem}.{code}{packed}")):
        yield str(number), number, {"en": source, code: target}


def aligned(path: epath.Path, other: epath.Path) -> Iterator[tuple[int, str, str]]:
    """(line number, line, the other file's line) where neither is blank; both files are read as a stream.

    Raises:
      InputError: a file cannot be read, or they do not end together.
    """
    theirs = files.lines(other)
    line = number = 0
    text = ""
    for line, mine in files.lines(path):
        while number < line:
            following = next(theirs, None)
            if following is None:
                problem = f"ends at line {number}, before {path.name} does"
                raise InputError(problem, path=other, remedy="Each line must go with one of the other file")
            number, text = following
        if number == line:
            yield line, mine, text
    last = max((further for further, _ in theirs), default=number)
    if last > line:
        problem = f"ends at line {line}, before {other.name} does"
        raise InputError(problem, path=path, remedy="Each line must go with one of the other file")


_READERS: Mapping[str, Callable[[epath.Path, Definition], Iterator[Placed]]] = {
    "jsonl": _json_lines,
    "json": _json_data,
    "tsv": _table,
    "txt": _table,
    "en": _parallel,
}


def _example(source: str, references: list[str], candidates: list[str]) -> dict[str, Any]:
    return {"source": source, "target": references[0], "references": references, "candidates": candidates}


def _filled(definition: Definition, row: Row) -> str:
    texts = {
        name: _MARKUP.sub("", _LINE_BREAK.sub(" ", value)) if isinstance(value, str) else value
        for name, value in row.items()
    }
    return definition["source"].format_map(texts)


def labelled(definition: Definition, row: Row) -> dict[str, Any] | None:
    """A label, given as its number, as true or false, or by its name, becomes its word."""
    labels, value = definition["labels"], row.get("label")
    if value is None or value in (-1, "-1", "-"):
        return None
    if value not in labels:
        number = int(value)
        if not 0 <= number < len(labels):
            raise ValueError(f"the label {number} is not one of {len(labels)}")
        value = labels[number]
    return _example(_filled(definition, row), [value], list(labels))


def similarity(definition: Definition, row: Row) -> dict[str, Any] | None:
    """A score of 0 to 5 is rounded to the nearest 0.2 and written out; -1 stands for none."""
    score = float(row["label"])
    return None if score < 0 else _example(_filled(definition, row), [f"{round(score * 5) / 5:.1f}"], [])


def marked(definition: Definition, row: Row) -> dict[str, Any] | None:
    """Winograd's schemas: the noun stands between `*`, the pronoun between `#`."""
    words = row["text"].split()
    for mark, span in (("*", "span1"), ("#", "span2")):
        start, length = int(row[f"{span}_index"]), len(row[f"{span}_text"].split())
        if not 0 <= start < len(words):
            raise ValueError(f"{span}_index is {start} of {len(words)} words")
        words[start] = f"{mark} {words[start]}"
        words[min(start + length, len(words)) - 1] += f" {mark}"
    return labelled(definition, {**row, "text": " ".join(words)})


def cloze(definition: Definition, row: Row) -> dict[str, Any] | None:
    """ReCoRD: any of the entities that fill the gap is right; summaries stand as sentences."""
    entities, answers = list(dict.fromkeys(row["entities"])), list(dict.fromkeys(row["answers"]))
    if not answers:
        return None
    passage = _HIGHLIGHT.sub(lambda found: f"{found[1] or '.'} ", row["passage"])
    source = _filled(definition, {**row, "entities": ", ".join(entities), "passage": passage})
    return _example(source, answers, list(dict.fromkeys([*entities, *answers])))


def extractive(definition: Definition, row: Row) -> dict[str, Any] | None:
    """SQuAD: every annotator's answer is right; what has none is answered by a word of the definition."""
    word = definition.get("unanswerable")
    answers = list(dict.fromkeys(row["answers"]["text"])) or ([word] if word else [])
    return _example(_filled(definition, row), answers, []) if answers else None


def text(definition: Definition, row: Row) -> dict[str, Any] | None:
    """One field becomes another: an article its summary, a sentence its translation."""
    row = row.get("translation", row)
    target = row[definition["field"]].strip()
    return _example(definition["source"].format_map(row), [target], []) if target else None


FORMS: Mapping[str, Callable[[Definition, Row], dict[str, Any] | None]] = {
    form.__name__: form for form in (labelled, similarity, marked, cloze, extractive, text)
}


@functools.singledispatch
def plain(value: Any) -> Any:
    """A TFDS row's value, of NumPy's types and bytes, as Python's own."""
    return plain(value.tolist()) if hasattr(value, "tolist") else value


@plain.register
def _(value: bytes) -> str:
    return value.decode("utf-8", "replace")


@plain.register
def _(value: list) -> list[Any]:
    return [plain(item) for item in value]


@plain.register
def _(value: dict) -> dict[str, Any]:
    return {name: plain(item) for name, item in value.items()}
