"""Finds and reads the rows that templates are rendered on, in the schema that the templates were written for.

`hf_raw/<data set>/<subset or none>/<split>.jsonl[.gz]` holds such rows for any data set. A few other releases
are brought into it here, field by field; none of them has a label guessed.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from iml.errors import InputError
from tasks import files

Row = dict[str, Any]
Reader = Callable[[epath.Path], Iterator[Row]]
SPLITS = ("train", "validation", "test")

#: Template folders whose rows stand under another name.
_FOLDERS = {"commonsense_qa": "tau/commonsense_qa/none", "piqa": "piqa/plain_text"}

_ALIEN = "not in this data set's format"


@dataclasses.dataclass(frozen=True)
class RowFiles:
    """The files of one split and how to read them.

    Attributes:
      paths: the files, read one after the other.
      read: gives one file's rows.
      beside: other files that decide what the rows are.
    """

    paths: tuple[epath.Path, ...]
    read: Reader
    beside: tuple[epath.Path, ...] = ()

    def rows(self) -> Iterator[Row]:
        """The rows in order.

        Raises:
          InputError: a line is not what it should be, naming file and line.
        """
        for path in self.paths:
            yield from self.read(path)


def read_lines(path: epath.Path) -> Iterator[Row]:
    """JSON lines, gzipped if the name ends in .gz."""
    return (row for _, row in files.json_lines(path))


def _mapped(change: Callable[[Row], Row | Iterator[Row]]) -> Reader:
    """A reader of JSON lines that gives each record's row, or its several rows."""

    def read(path: epath.Path) -> Iterator[Row]:
        for number, record in files.json_lines(path):
            try:
                changed = change(record)
                rows = [changed] if isinstance(changed, dict) else list(changed)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"{_ALIEN}: {error!r}", path=path, line=number) from error
            yield from rows

    return read


def _table(change: Callable[[Row], Row], columns: tuple[str, ...] = (), **options: Any) -> Reader:
    """A reader of CSV or TSV; `columns` names them where the file has no header."""

    def read(path: epath.Path) -> Iterator[Row]:
        for line, record in files.table(path, columns, **options):
            try:
                yield change(record)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{_ALIEN}: {error!r}", path=path, line=line) from error

    return read


def _labelled(*names: str) -> Callable[[Row], Row]:
    return lambda record: {**record, "label": names.index(record["label"])}


def _boolq(record: Row) -> Row:
    label = record["label"] if "label" in record else record["answer"]
    return {"question": record["question"], "passage": record["passage"], "label": int(label)}


def _wsc(record: Row) -> Row:
    return {"text": record["text"], **record["target"], "idx": record["idx"], "label": int(record["label"])}


def _multirc(record: Row) -> Iterator[Row]:
    for question in record["passage"]["questions"]:
        for answer in question["answers"]:
            yield {
                "paragraph": record["passage"]["text"],
                "question": question["question"],
                "answer": answer["text"],
                "idx": {"paragraph": record["idx"], "question": question["idx"], "answer": answer["idx"]},
                "label": int(answer["label"]),
            }


def _record_qa(record: Row) -> Iterator[Row]:
    text = record["passage"]["text"]
    spans = record["passage"]["entities"]
    entities = list(dict.fromkeys(text[span["start"] : span["end"] + 1] for span in spans))
    for query in record["qas"]:
        yield {
            "passage": text,
            "query": query["query"],
            "entities": entities,
            "answers": list(dict.fromkeys(answer["text"] for answer in query["answers"])),
            "idx": {"passage": record["idx"], "query": query["idx"]},
        }


def _ag_news(record: Row) -> Row:
    return {"text": f"{record['title']} {record['description']}", "label": int(record["class"]) - 1}


def _anli(record: Row) -> Row:
    return {
        "uid": record["uid"],
        "premise": record["context"],
        "hypothesis": record["statement"],
        "label": ("e", "n", "c").index(record["gold_label"]),
        "reason": record["reason"],
    }


def _sentence(record: Row) -> Row:
    return {"sentence": record["sentence"], "label": int(record["label"])}


def _dream(path: epath.Path) -> Iterator[Row]:
    dialogues = files.json_value(path)
    try:
        for turns, questions, name in dialogues:
            for index, question in enumerate(questions):
                yield {"id": index, "dialogue_id": name, "dialogue": turns, **question}
    except (ValueError, TypeError) as error:
        raise InputError(f"not DREAM's list of [turns, questions, id]: {error}", path=path) from error


def _banking77(path: epath.Path) -> Iterator[Row]:
    """Labels are numbered by their names' order without regard to case, as the templates' choices are."""
    categories = path.parent / "categories.json"
    try:
        names = sorted(json.loads(categories.read_text(encoding="utf-8")), key=str.lower)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"not a list of names: {error}", path=categories) from error
    return _table(lambda record: {"text": record["text"], "label": names.index(record["category"])})(path)


_read_cola = _table(
    _sentence, ("source", "label", "star", "sentence"), delimiter="\t", quoting=csv.QUOTE_NONE
)
_read_sst2 = _table(_sentence, delimiter="\t", quoting=csv.QUOTE_NONE)
_read_label = _mapped(lambda record: {**record, "label": int(record["label"])})

#: Template folder -> split -> files and their reader.
_RELEASES: Mapping[str, Mapping[str, tuple[tuple[str, ...], Reader]]] = {
    "ag_news": {"test": (("raw/ag_news/test.csv",), _table(_ag_news, ("class", "title", "description")))},
    "anli": {"validation": (("raw/anli/ANLI_analysis_r1_dev.csv",), _table(_anli))},
    "banking77": {split: ((f"raw/banking77/{split}.csv",), _banking77) for split in ("train", "test")},
    "cosmos_qa": {
        "validation": (
            ("raw/cosmos_qa/valid.csv",),
            _table(lambda record: {**record, "label": int(record["label"])}),
        )
    },
    "dream": {"validation": (("raw/dream/dev.json",), _dream)},
    "glue/cola": {
        "train": (("t5/glue/CoLA/in_domain_train.tsv",), _read_cola),
        "validation": (
            ("t5/glue/CoLA/in_domain_dev.tsv", "t5/glue/CoLA/out_of_domain_dev.tsv"),
            _read_cola,
        ),
    },
    "glue/sst2": {"train": (("t5/glue/SST-2/train.tsv",), _read_sst2)},
    "super_glue/boolq": {
        "train": (("t5/superglue/BoolQ/train.jsonl",), _mapped(_boolq)),
        "validation": (("hf_raw/boolq/none/validation.jsonl.gz",), _mapped(_boolq)),
    },
    "super_glue/cb": {
        "train": (
            ("t5/superglue/CB/train.jsonl",),
            _mapped(_labelled("entailment", "contradiction", "neutral")),
        )
    },
    "super_glue/copa": {"train": (("t5/superglue/COPA/train.jsonl",), _read_label)},
    "super_glue/multirc": {"train": (("t5/superglue/MultiRC/train.jsonl",), _mapped(_multirc))},
    "super_glue/record": {"train": (("t5/superglue/ReCoRD/train.jsonl",), _mapped(_record_qa))},
    "super_glue/rte": {
        "train": (("t5/superglue/RTE/train.jsonl",), _mapped(_labelled("entailment", "not_entailment"))),
    },
    "super_glue/wic": {"train": (("t5/superglue/WiC/train.jsonl",), _read_label)},
    "super_glue/wsc.fixed": {"train": (("t5/superglue/WSC/train.jsonl",), _mapped(_wsc))},
}


@functools.cache
def find_rows(data_dir: epath.Path, folder: str) -> Mapping[str, RowFiles]:
    """The splits of a template folder ("super_glue/copa") that have rows on disk; opens no file."""
    rows = data_dir / "hf_raw" / _FOLDERS.get(folder, folder if "/" in folder else f"{folder}/none")
    found: dict[str, RowFiles] = {}
    for split in SPLITS:
        names, read = _RELEASES.get(folder, {}).get(split, ((), None))
        released = tuple(data_dir / name for name in names)
        for path in (rows / f"{split}.jsonl.gz", rows / f"{split}.jsonl"):
            if path.is_file():
                found[split] = RowFiles((path,), read_lines)
                break
        else:
            if released and all(path.is_file() for path in released):
                beside = tuple(path.parent / "categories.json" for path in released if folder == "banking77")
                found[split] = RowFiles(released, read, beside)
    return found
