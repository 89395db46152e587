"""Brings the rows of FLAN's data sets into the fields that its templates name.

How a data set's rows become fields stands in `tasks/definitions/flan_datasets.json`. A *path* there is
`a.b` (a field within a field) or `a|b` (the first that a row has); paths with commas are several.

- `fields`: template field -> path; a list is joined by `join`. `constants`: fields that are the same in all rows.
- `options`: the answers to choose from, as a list or as path(s); `label`: path of the right one's place, which
  counts from 0, or is a value among `values`, or one of the row's own `keys`.
- `answer`: path of the right answer, or of several; `also`: path of further right ones; `empty`: the answer
  where there is none.
- `skip`: labels whose rows are left out, beside those of withheld answers.
- `rows`: a function of this module that prepares a row first, where it takes more than renaming.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tasks.promptsource.rows import Row

_WITHHELD = (-1, "-1", "", None)
_MISSING = object()


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """A row as templates see it: `fields` by name, all right `answers`, and `options` to choose from, if any."""

    fields: Mapping[str, str]
    answers: tuple[str, ...]
    options: tuple[str, ...] = ()


def instances(definition: Mapping[str, Any], row: Row) -> Iterator[Instance]:
    """The instances of a row: one in most data sets, none where the answer is withheld or there is no text.

    Raises:
      ArithmeticError, AttributeError, LookupError, TypeError, ValueError: the row is not of the data set's form.
    """
    for prepared in ROWS[definition["rows"]](row) if "rows" in definition else (row,):
        found = _instance(definition, prepared)
        if found is not None:
            yield found


def field_names(definition: Mapping[str, Any]) -> set[str]:
    """The fields that a data set's templates may name, `answer` and `options_` left out."""
    return {*definition["fields"], *definition.get("constants", ())}


def _instance(definition: Mapping[str, Any], row: Row) -> Instance | None:
    join = definition.get("join", " ")
    fields = {name: _text(_at(row, path), join) for name, path in definition["fields"].items()}
    fields |= definition.get("constants", {})
    options = tuple(dict.fromkeys(_options(definition, row)))
    if definition.get("label"):
        label = _at(row, definition["label"])
        if label in _WITHHELD or label in definition.get("skip", ()):
            return None
        listed = _options(definition, row)
        answers = [listed[_place(definition, row, label, len(listed))]]
    else:
        answers = _texts(_at(row, definition["answer"]))
        if "also" in definition:
            answers += _texts(_at(row, definition["also"]))
        if not any(answers) and "empty" in definition:
            answers = [definition["empty"]]
    answers = list(dict.fromkeys(filter(None, answers)))
    if not answers or not any(fields.values()):
        return None
    if options and answers[0] not in options:
        raise ValueError(f"the answer {answers[0]!r:.60} is not among the options")
    return Instance(fields, tuple(answers), options)


def _options(definition: Mapping[str, Any], row: Row) -> list[str]:
    options = definition.get("options", [])
    if isinstance(options, list):
        return options
    paths = options.split(",")
    return _texts(_at(row, paths[0]) if len(paths) == 1 else [_at(row, path) for path in paths])


def _place(definition: Mapping[str, Any], row: Row, label: Any, count: int) -> int:
    keys = _at(row, definition["keys"]) if definition.get("keys") else definition.get("values")
    place = int(label) if keys is None else list(keys).index(label)
    if not 0 <= place < count or (isinstance(label, float) and place != label):
        raise ValueError(f"the label {label!r:.40} is none of {count} options")
    return place


def _at(row: Any, path: str) -> Any:
    """The value at a path.

    Raises:
      KeyError: the row has none of its fields.
    """
    for one in path.split("|"):
        value = row
        for name in one.split("."):
            value = value.get(name, _MISSING) if isinstance(value, Mapping) else _MISSING
        if value is not _MISSING:
            return value
    raise KeyError(path)


def _text(value: Any, join: str) -> str:
    if isinstance(value, list):
        return join.join(_text(item, join) for item in value)
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is not text")
    return value.strip()


def _texts(value: Any) -> list[str]:
    return [_text(item, " ") for item in (value if isinstance(value, list) else [value])]


def _numbered(texts: Iterable[str]) -> str:
    return "\n".join(f"({number}) {text.strip()}" for number, text in enumerate(texts, start=1))


def rounded(row: Row) -> Iterator[Row]:
    """STS-B: similarity from 0 to 5 in whole steps, halves upwards."""
    label = row["label"]
    yield {**row, "label": int(label + 0.5) if label >= 0 else -1}


def story_cloze(row: Row) -> Iterator[Row]:
    """Story Cloze as HF has it, four sentences and two endings; as TFDS has it, it stays."""
    if "context" in row:
        yield row
        return
    yield {
        "context": " ".join(row[f"input_sentence_{number}"].strip() for number in range(1, 5)),
        "endings": [row["sentence_quiz1"], row["sentence_quiz2"]],
        "label": row["answer_right_ending"] - 1 if row.get("answer_right_ending") else -1,
    }


def record(row: Row) -> Iterator[Row]:
    """ReCoRD: the passage's highlights become sentences of it."""
    if row["answers"]:
        yield {**row, "passage": row["passage"].replace("\n@highlight\n", "\n")}


def coqa(row: Row) -> Iterator[Row]:
    """CoQA: a story's questions at once, numbered, and so their answers."""
    yield {
        **row,
        "numbered_questions": _numbered(row["questions"]),
        "numbered_answers": _numbered(row["answers"]["input_text"]),
    }


def quac(row: Row) -> Iterator[Row]:
    """QuAC: one instance a question, after the turns before it."""
    turns: list[str] = []
    for question, texts in zip(row["questions"], row["answers"]["texts"], strict=True):
        answers = list(dict.fromkeys("unanswerable" if text == "CANNOTANSWER" else text for text in texts))
        yield {**row, "dialogue": "\n".join(turns), "question": question, "answer": answers}
        turns.append(f"Q: {question.strip()} A: {answers[0].strip()}")


def fix_punct(row: Row) -> Iterator[Row]:
    """A sentence, and the same without its punctuation."""
    stripped = row["text"].translate(str.maketrans("", "", string.punctuation))
    yield {"text": row["text"], "unpunctuated": " ".join(stripped.split())}


def true_case(row: Row) -> Iterator[Row]:
    """A sentence, and the same in small letters."""
    yield {"text": row["text"], "lower": row["text"].lower()}


def word_segment(row: Row) -> Iterator[Row]:
    """A sentence, and the same without blanks."""
    yield {"text": row["text"], "joined": "".join(row["text"].split())}


def bytes_literal(row: Row) -> Iterator[Row]:
    r"""DeepMind's mathematics: older copies hold texts as Python writes bytes, `b'...\n'`."""
    clean = {name: re.sub(r"^b'(.*?)(?:\\n)?'$", r"\1", row[name].strip()) for name in ("question", "answer")}
    yield {**row, **clean}


def ag_news(row: Row) -> Iterator[Row]:
    """AG News: title and description make the text where they stand apart."""
    yield row if "text" in row else {**row, "text": f"{row['title']} {row['description']}"}


def opinions(row: Row) -> Iterator[Row]:
    """Opinions on a topic, in whichever of its two fields the set keeps them."""
    held = row.get("_argument_sentences", row.get("_critics"))
    texts = held.get("value") if isinstance(held, Mapping) else [item["value"] for item in held or ()]
    yield {**row, "arguments": "\n".join(text.strip() for text in texts)}


def dart(row: Row) -> Iterator[Row]:
    """DART: its triples as text, `subject | relation | object` joined by semicolons."""
    if "tripleset" in row:
        triples, texts = row["tripleset"], row["annotations"]["text"]
    else:
        table = row["input_text"]["table"]
        cells = _table(table, "row_number", "content")
        if len(cells) % 3:
            raise ValueError("the cells do not make triples")
        contents = [content for _, content in cells]
        triples, texts = [contents[at : at + 3] for at in range(0, len(contents), 3)], row["target_text"]
    yield {"triples": "; ".join(" | ".join(triple) for triple in triples), "texts": texts}


def e2e(row: Row) -> Iterator[Row]:
    """E2E: `name[value], ...` as it is, or made of TFDS's table."""
    if "meaning_representation" in row:
        yield row
        return
    cells = _table(row["input_text"]["table"], "column_header", "content")
    yield {**row, "meaning_representation": ", ".join(f"{name}[{value}]" for name, value in cells)}


def _table(table: Any, first: str, second: str) -> list[tuple[Any, Any]]:
    if isinstance(table, Mapping):
        return list(zip(table[first], table[second], strict=True))
    return [(cell[first], cell[second]) for cell in table]


ROWS: Mapping[str, Callable[[Row], Iterator[Row]]] = {
    function.__name__: function
    for function in (
        rounded,
        story_cloze,
        record,
        coqa,
        quac,
        fix_punct,
        true_case,
        word_segment,
        bytes_literal,
        ag_news,
        opinions,
        dart,
        e2e,
    )
}


def plain(value: Any) -> Any:
    """A value of a TFDS example as JSON would hold it: arrays become lists, bytes text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    for method in ("to_list", "tolist"):
        if hasattr(value, method):
            return plain(getattr(value, method)())
    return (
        [plain(item) for item in value]
        if isinstance(value, Sequence) and not isinstance(value, str)
        else value
    )
