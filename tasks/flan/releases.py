"""Brings releases of FLAN's data sets that come in other files than JSON lines into the rows HF's `datasets` has.

`tasks/definitions/flan_datasets.json` names a set's files by split and the reader that serves them.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from iml.errors import InputError
from tasks import files, layouts
from tasks.promptsource.rows import Reader, Row, RowFiles
from tasks.unified_skg import descriptions

_LABELS = ("entailment", "neutral", "contradiction")


def release_of(root: epath.Path, definition: Mapping[str, Any]) -> dict[str, RowFiles]:
    """The splits of a data set whose release is there; opens no file."""
    if "reader" not in definition:
        return {}
    found = layouts.find_splits(epath.Path(root), definition["files"])
    read = functools.partial(_guarded, READERS[definition["reader"]])
    return {split: RowFiles(tuple(map(epath.Path, paths)), read) for split, paths in found.items()}


def _guarded(read: Reader, path: epath.Path) -> Iterator[Row]:
    return layouts.guarded(read(path), epath.Path(path))


def _articles(path: epath.Path) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """(article, paragraph) of the JSON that SQuAD and QuAC have in common."""
    for article in files.field(files.json_value(path), "data", list, path):
        for paragraph in files.field(article, "paragraphs", list, path):
            yield article, paragraph


def squad(path: epath.Path) -> Iterator[Row]:
    """SQuAD 1.1 and 2.0: a row a question."""
    for article, paragraph in _articles(path):
        for question in files.field(paragraph, "qas", list, path):
            texts = [answer["text"] for answer in question["answers"]]
            row = {"title": article.get("title", "").replace("_", " "), "context": paragraph["context"]}
            yield {**row, "question": question["question"], "answers": {"text": texts}}


def quac(path: epath.Path) -> Iterator[Row]:
    """QuAC: a row a dialogue; an answer that is none is CANNOTANSWER."""
    for article, paragraph in _articles(path):
        questions = files.field(paragraph, "qas", list, path)
        yield {
            "wikipedia_page_title": article.get("title", ""),
            "section_title": article.get("section_title", ""),
            "background": article.get("background", ""),
            "context": paragraph["context"].removesuffix("CANNOTANSWER"),
            "questions": [question["question"] for question in questions],
            "answers": {
                "texts": [[answer["text"] for answer in question["answers"]] for question in questions]
            },
        }


def drop(path: epath.Path) -> Iterator[Row]:
    """DROP: the answer is a number, a date or spans, which are joined by commas; then the other annotators'."""
    for passage in files.json_value(path).values():
        for question in files.field(passage, "qa_pairs", list, path):
            answers = [question["answer"], *question.get("validated_answers", ())]
            row = {"passage": passage["passage"], "question": question["question"]}
            yield {**row, "answer": [text for text in map(_drop_answer, answers) if text]}


def _drop_answer(answer: Mapping[str, Any]) -> str:
    date = [answer["date"].get(part) for part in ("day", "month", "year")] if answer.get("date") else []
    return str(answer["number"] or "") or ", ".join(answer["spans"]) or " ".join(filter(None, date))


def snli(path: epath.Path) -> Iterator[Row]:
    """SNLI and MNLI: rows on whose label the annotators disagreed, "-", have it withheld."""
    for line, record in files.json_lines(path):
        told = files.field(record, "gold_label", str, path, line)
        if told not in (*_LABELS, "-"):
            raise InputError(f"is an unknown label {told!r:.40}", path=path, line=line, field="gold_label")
        premise, hypothesis = (
            files.field(record, name, str, path, line) for name in ("sentence1", "sentence2")
        )
        label = -1 if told == "-" else _LABELS.index(told)
        yield {"premise": premise, "hypothesis": hypothesis, "label": label}


def mrpc(path: epath.Path) -> Iterator[Row]:
    """MRPC's own text files, whose quotes are part of the sentences."""
    for line, row in files.table(path, delimiter="\t", quoting=csv.QUOTE_NONE):
        told = files.field(row, "Quality", str, path, line)
        if told not in ("0", "1"):
            raise InputError(f"must be 0 or 1, not {told!r:.40}", path=path, line=line, field="Quality")
        sentences = [files.field(row, f"#{number} String", str, path, line) for number in (1, 2)]
        yield {"sentence1": sentences[0], "sentence2": sentences[1], "label": int(told)}


def dart(path: epath.Path) -> Iterator[Row]:
    """DART: its annotations' texts side by side."""
    for record in files.json_records(path):
        yield {**record, "annotations": {"text": [note["text"] for note in record["annotations"]]}}


def e2e(path: epath.Path) -> Iterator[Row]:
    """E2E: all texts of one meaning are right."""
    for record in descriptions.e2e(epath.Path(path).parent, epath.Path(path), {}):
        yield {"meaning_representation": record.structure, "human_reference": list(record.references)}


def webnlg(path: epath.Path) -> Iterator[Row]:
    """WebNLG's XML: an entry's triples, and its texts, all of them right."""
    for record in descriptions.webnlg(epath.Path(path).parent, epath.Path(path), {}):
        texts = list(record.references)
        yield {"input": record.structure, "target": texts[0], "references": texts}


READERS: Mapping[str, Callable[[epath.Path], Iterator[Row]]] = {
    reader.__name__: reader for reader in (squad, quac, drop, snli, mrpc, dart, e2e, webnlg)
}
