"""Readers of the releases that ExMix's sets come in.

A reader takes a file and the split that is wanted of it, and yields records. It raises an `InputError` that
names file, line and field where a file is damaged.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from iml.errors import InputError
from tasks import files, layouts
from tasks.t5 import formats


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One example before its instruction.

    Attributes:
      uid: its place in the file.
      text: the input.
      references: the right answers, the first being the one to learn.
      candidates: the answers to choose between, if they are not the same for every set of this form.
    """

    uid: str
    text: str
    references: tuple[str, ...]
    candidates: tuple[str, ...] = ()


#: How UKP names a split, and its annotations as words.
_UKP_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_UKP_WORDS = {
    "Argument_for": "Argument for",
    "Argument_against": "Argument against",
    "NoArgument": "No argument",
}
_TOXIC = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")


def columns(path: epath.Path, split: str) -> Iterator[Record]:
    """Input, tab, output; further columns tell of the example (COGS, StylePTB, Unimer)."""
    for number, (source, target, *_) in files.columns(path, 2):
        if not target.strip():
            raise InputError("has no output", path=path, line=number)
        yield Record(str(number), source.strip(), (target.strip(),))


def parallel(path: epath.Path, split: str) -> Iterator[Record]:
    """Line-aligned files; `path` is the modern one, Shakespeare's stands beside it as `.original`."""
    other = path.with_name(path.name.replace(".modern", ".original"))
    for number, modern, original in formats.aligned(path, other):
        yield Record(str(number), modern, (original,))


def written_by(path: epath.Path, split: str) -> Iterator[Record]:
    """GPT-2's output: people wrote what stands in files of `webtext`, a model all else."""
    answer = "No" if path.name.startswith("webtext") else "Yes"
    for number, record in files.json_lines(path):
        yield Record(str(number), files.field(record, "text", str, path, number), (answer,))


def arguments(path: epath.Path, split: str) -> Iterator[Record]:
    """UKP's sentences: a file a topic, whose column `set` tells the split."""
    for number, row in files.table(path, delimiter="\t", quoting=csv.QUOTE_NONE):
        if _one_of(row, "set", _UKP_SPLITS, path, number) == split:
            text = f"Topic: {_of(row, 'topic', path, number)}\n{_of(row, 'sentence', path, number)}"
            yield Record(str(number), text, (_one_of(row, "annotation", _UKP_WORDS, path, number),))


def quiz(path: epath.Path, split: str) -> Iterator[Record]:
    """NewsQuizQA: the question stands alone, the article it was asked about is only linked to."""
    for number, row in files.table(path):
        answer = _of(row, "answer", path, number)
        yield Record(str(number), _of(row, "question", path, number), (answer,))


def intents(path: epath.Path, split: str) -> Iterator[Record]:
    """DialoGLUE's utterances; the intents to choose between stand in `categories.json` beside the file."""
    home = path.parent / "categories.json"
    known = files.json_value(home)
    if not isinstance(known, list) or not all(isinstance(name, str) for name in known):
        raise InputError("must hold a JSON list of strings", path=home)
    words = {name: name.replace("_", " ") for name in known}
    for number, row in files.table(path):
        intent = _one_of(row, "category", words, path, number)
        yield Record(str(number), _of(row, "text", path, number), (intent,), tuple(words.values()))


def slots(path: epath.Path, split: str) -> Iterator[Record]:
    """DialoGLUE's Restaurant-8k: the spans of a message, each after its slot's name."""
    for number, record in enumerate(files.json_records(path), start=1):
        text = files.field(files.field(record, "userInput", dict, path), "text", str, path)
        found = []
        for label in record.get("labels", ()):
            span = files.field(label, "valueSpan", dict, path)
            value = text[span.get("startIndex", 0) : span.get("endIndex", len(text))]
            found.append(f"{files.field(label, 'slot', str, path).replace('_', ' ')}: {value}")
        asked = record.get("context", {}).get("requestedSlots", ())
        requested = f"Asked for: {', '.join(slot.replace('_', ' ') for slot in asked)}\n" if asked else ""
        yield Record(str(number), requested + text, ("; ".join(found) or "none",))


def linked(path: epath.Path, split: str) -> Iterator[Record]:
    """KILT's entities: the mention stands between [START_ENT] and [END_ENT], the answer is a page's title."""
    for number, record in files.json_lines(path):
        outputs = files.field(record, "output", list, path, number)
        answers = [output["answer"] for output in outputs if output.get("answer")]
        if not answers:
            raise InputError("has no answer", path=path, line=number, field="output")
        text = files.field(record, "input", str, path, number)
        yield Record(str(number), text, tuple(dict.fromkeys(answers)))


def toxicity(path: epath.Path, split: str) -> Iterator[Record]:
    """Wikipedia's comments: toxic if any subtype is marked. A test file's marks stand in `test_labels.csv`.

    Comments that were not marked, whose subtypes are -1, are left out.
    """
    marks = {}
    beside = layouts.find(path.parent, "test_labels.csv") if split == "test" else []
    for labels in beside:
        marks = {_of(row, "id", labels, number): row for number, row in files.table(labels)}
    for number, row in files.table(path):
        marked = marks.get(_of(row, "id", path, number), row)
        values = [_of(marked, subtype, path, number) for subtype in _TOXIC]
        if "-1" not in values:
            answer = "Yes" if "1" in values else "No"
            yield Record(str(number), _of(row, "comment_text", path, number), (answer,))


READERS: Mapping[str, Callable[[epath.Path, str], Iterator[Record]]] = {
    reader.__name__: reader
    for reader in (columns, parallel, written_by, arguments, quiz, intents, slots, linked, toxicity)
}


def _of(row: Mapping[str, Any], name: str, path: epath.Path, line: int) -> str:
    return files.field(row, name, str, path, line)


def _one_of(row: Mapping[str, Any], name: str, words: Mapping[str, str], path: epath.Path, line: int) -> str:
    """A column's word; it must be a known one."""
    value = _of(row, name, path, line)
    if value not in words:
        raise InputError(f"{value!r:.60} is not a known one", path=path, line=line, field=name)
    return words[value]
