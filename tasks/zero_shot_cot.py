"""Sets that evaluate reasoning step by step and have no reasoning of their own: SVAMP, ASDiv, CommonsenseQA, ...

Never trained on. They are asked in the form of `tasks.reasoning`, and scored by the answer at the end.
`tasks/definitions/zero_shot_cot.json` says which files a set is read from.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import files, layouts, reasoning
from tasks.reasoning.readers import Problem

BENCHMARK = "zero_shot_cot"

_DEFINITIONS = pathlib.Path(__file__).parent / "definitions" / "zero_shot_cot.json"


def register(data_dir: str) -> None:
    """Registers every set of which the test file is there; opens no data file.

    Args:
      data_dir: holds `reasoning/`, or is that folder: one folder a set.

    Raises:
      InputError: there is no set.
    """
    given = epath.Path(data_dir)
    home = layouts.first_folder(given, ("reasoning",)) or given
    found = {name: layouts.find_splits(home, known["files"]) for name, known in definitions().items()}
    found = {name: splits for name, splits in found.items() if "test" in splits}
    if not found:
        remedy = "Name the folder that holds reasoning/svamp, reasoning/asdiv and so on as data_dir"
        raise InputError("no set that evaluates reasoning is here", path=home, remedy=remedy)
    for name, splits in found.items():
        paths = {split: os.fspath(several[0]) for split, several in splits.items()}
        seqio_bridge.add_task(
            card(name),
            source=seqio_bridge.PythonSource(
                read=functools.partial(read, name, paths),
                splits=tuple(paths),
                files=(*paths.values(), os.fspath(_DEFINITIONS)),
            ),
        )


def card(name: str) -> TaskCard:
    """The card of a set."""
    known = definitions()[name]
    return TaskCard(
        name=f"{BENCHMARK}.{name}",
        benchmark=BENCHMARK,
        category=canonical_category(BENCHMARK, "Reasoning"),
        instruction_level="task",
        source=name,
        metrics=("final_answer",),
        licence=known.get("licence", ""),
        url=known["url"],
    )


def read(name: str, paths: Mapping[str, str], split: str) -> Iterator[dict[str, Any]]:
    """The problems of a split, as fields of `Example`.

    Raises:
      InputError: the file is damaged.
    """
    known = definitions()[name]
    instruction = reasoning.definitions()["instructions"][known.get("kind", "question")]
    for problem in READERS[known["reader"]](paths[split]):
        yield {"uid": f"{split}-{problem.uid}", **reasoning.fields(problem, instruction)}


@functools.cache
def definitions() -> Mapping[str, Any]:
    """By name of the set, what the definitions say of it."""
    return json.loads(_DEFINITIONS.read_text(encoding="utf-8"))["sets"]


def svamp(path: str) -> Iterator[Problem]:
    """SVAMP: a list of {ID, Body, Question, Answer}, the answer a number."""
    for row in files.json_records(path):
        uid, body, question = (files.field(row, name, str, path) for name in ("ID", "Body", "Question"))
        body = body if body.rstrip().endswith((".", "?", "!", ",")) else f"{body.rstrip()}."
        answer = _number(files.field(row, "Answer", (float, int), path))
        yield Problem(uid, f"{body} {question}", answer, "")


def numbered(path: str) -> Iterator[Problem]:
    """CSV whose questions say number0, number1, ... for the numbers of another column."""
    for line, row in files.table(path):
        for name in ("Question", "Numbers", "Answer"):
            if name not in row:
                raise InputError("the file has no such column", path=path, line=1, field=name)
        numbers, answer = row["Numbers"].split(), _parsed(row["Answer"], path, line, "Answer")
        try:
            question = re.sub(
                r"\bnumber(\d+)", lambda found, have=numbers: have[int(found[1])], row["Question"]
            )
        except IndexError as error:
            problem = "the question has more numbers than this column"
            raise InputError(problem, path=path, line=line, field="Numbers") from error
        yield Problem(str(line), question, answer, "")


def asdiv(path: str) -> Iterator[Problem]:
    """ASDiv's XML: body, question and answer; a unit in brackets after the answer is not asked for."""
    content = files.text(path)
    try:
        root = ElementTree.fromstring(content.encode())
    except ElementTree.ParseError as error:
        raise InputError(f"is not XML: {error.msg}", path=path, line=error.position[0]) from error
    for number, problem in enumerate(root.iter("Problem"), start=1):
        body, question, answer = (
            " ".join((problem.findtext(name) or "").split()) for name in ("Body", "Question", "Answer")
        )
        if not question or not answer:
            raise InputError(f"problem {number} lacks a question or an answer", path=path)
        bare = re.sub(r"\s*\([^()]*\)", "", answer).strip() or answer
        also = tuple({answer, bare.replace(",", "")} - {bare})
        yield Problem(problem.get("ID", str(number)), f"{body} {question}".strip(), bare, "", also=also)


def commonsense_qa(path: str) -> Iterator[Problem]:
    """CommonsenseQA's JSON lines: a stem and five choices; the answer is the text or the letter."""
    for line, row in files.json_lines(path):
        question = files.field(row, "question", dict, path, line)
        choices = files.field(question, "choices", list, path, line)
        texts = {
            files.field(c, "label", str, path, line): files.field(c, "text", str, path, line) for c in choices
        }
        letter = files.field(row, "answerKey", str, path, line)
        if letter not in texts:
            raise InputError("names none of the choices", path=path, line=line, field="answerKey")
        options = tuple(f"({label}) {text}" for label, text in texts.items())
        stem, uid = (
            files.field(question, "stem", str, path, line),
            files.field(row, "id", str, path, line),
        )
        yield Problem(uid, stem, texts[letter], "", options, also=(f"({letter})",))


def csqa2(path: str) -> Iterator[Problem]:
    """CommonsenseQA 2.0's JSON lines: yes or no."""
    for line, row in files.json_lines(path):
        uid, question, answer = (
            files.field(row, name, str, path, line) for name in ("id", "question", "answer")
        )
        yield Problem(uid, question, answer, "", ("yes", "no"))


def solutions(path: str) -> Iterator[Problem]:
    """AddSub, MultiArith, SingleEq: a list of {sQuestion, lSolutions}, numbers or their text."""
    for number, row in enumerate(files.json_records(path), start=1):
        found = files.field(row, "lSolutions", list, path)
        if len(found) != 1:
            raise InputError(f"problem {number} has not one solution", path=path, field="lSolutions")
        answer = _parsed(found[0], path, None, "lSolutions")
        yield Problem(str(number), files.field(row, "sQuestion", str, path).strip(), answer, "")


def big_bench(path: str) -> Iterator[Problem]:
    """A BIG-bench task: examples of {input, target_scores}, of which one scores 1."""
    for number, row in enumerate(files.field(files.json_value(path), "examples", list, path), start=1):
        scores = files.field(row, "target_scores", dict, path)
        right = [text for text, score in scores.items() if score == 1]
        if len(right) != 1:
            raise InputError(
                f"example {number} has {len(right)} right answers", path=path, field="target_scores"
            )
        question = files.field(row, "input", str, path).strip()
        yield Problem(str(number), question, right[0].strip().removesuffix("."), "", tuple(scores))


def answered(path: str) -> Iterator[Problem]:
    """{"examples": [{question, answer}]}."""
    for number, row in enumerate(files.field(files.json_value(path), "examples", list, path), start=1):
        question, answer = (files.field(row, name, str, path) for name in ("question", "answer"))
        yield Problem(str(number), question, answer, "")


READERS: Mapping[str, Callable[[str], Iterator[Problem]]] = {
    reader.__name__: reader
    for reader in (svamp, numbered, asdiv, commonsense_qa, csqa2, solutions, big_bench, answered)
}


def _number(value: float) -> str:
    """A number as text, whole numbers without a point."""
    return str(int(value)) if value == int(value) else str(value)


def _parsed(value: Any, path: str, line: int | None, field: str) -> str:
    try:
        return _number(float(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"must be a number, not {value!r:.40}", path=path, line=line, field=field) from error
