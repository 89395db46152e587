"""UnifiedSKG's data-to-text and dialogue sets: the target describes a structure, answers from it or tracks it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from etils import epath

from iml.errors import InputError
from tasks import files
from tasks.unified_skg.serialisation import (
    Record,
    fit_rows,
    history,
    linear_table,
    linear_triples,
    matrix,
    squeeze,
)

Options = Mapping[str, Any]
#: The domains of MultiWOZ whose state is tracked, as in UnifiedSKG.
_DOMAINS = ("hotel", "train", "restaurant", "attraction", "taxi")
#: A slot with more values than these has none listed: its values are names and times, not choices.
_LISTED_VALUES = 10
_ABSENT = frozenset(("", "not mentioned", "none"))
_INDIFFERENT = frozenset(("dont care", "dontcare", "don't care", "do not care", "do n't care"))


def dart(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """DART: each annotation's text is a reference; UnifiedSKG writes relations in lower case."""
    for number, record in enumerate(files.json_records(path), start=1):
        triples = []
        for triple in files.field(record, "tripleset", list, path):
            if not isinstance(triple, list) or len(triple) != 3:
                problem = f"record {number} has a triple that is none: {triple!r:.60}"
                raise InputError(problem, path=path, field="tripleset")
            subject, relation, value = triple
            triples.append((subject, relation if options.get("as_written") else relation.lower(), value))
        notes = files.field(record, "annotations", list, path)
        references = tuple(files.field(note, "text", str, path) for note in notes)
        if not references:
            raise InputError(f"record {number} has no annotation", path=path, field="annotations")
        yield Record(str(number), linear_triples(triples), "", references)


def e2e(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """E2E: rows of the same meaning representation are references of one example."""
    references: dict[str, list[str]] = {}
    for number, row in files.table(path):
        if not {"mr", "ref"} <= row.keys():
            raise InputError("lacks the columns mr and ref", path=path, line=1)
        if not row["mr"] or not row["ref"]:
            raise InputError("a row lacks mr or ref", path=path, line=number)
        references.setdefault(row["mr"], []).append(row["ref"])
    for number, (meaning, texts) in enumerate(references.items(), start=1):
        yield Record(str(number), meaning, "", tuple(texts))


def webnlg(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """WebNLG's XML: an entry's triples, in their revised form, and its texts."""
    try:
        root = ElementTree.fromstring(files.text(path))
    except ElementTree.ParseError as error:
        raise InputError(f"is not XML: {error}", path=path, line=error.position[0]) from error
    for number, entry in enumerate(root.iter("entry"), start=1):
        triples = [squeeze(triple.text or "").split(" | ") for triple in entry.iter("mtriple")]
        texts = [squeeze(lex.findtext("text") or lex.text or "") for lex in entry.iter("lex")]
        references = tuple(filter(None, texts))
        if not triples or not references:
            raise InputError(f"entry {number} lacks triples or texts", path=path)
        facts = [[part.replace("_", " ") for part in triple] for triple in triples]
        yield Record(str(number), linear_triples(facts), "", references)


def totto(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """ToTTo: the highlighted cells with their headers, in the tags of its own baseline."""
    for number, record in files.json_lines(path):
        table = files.field(record, "table", list, path, number)
        notes = files.field(record, "sentence_annotations", list, path, number)
        references = tuple(files.field(note, "final_sentence", str, path, number) for note in notes)
        if not references:
            raise InputError("has no sentence", path=path, line=number, field="sentence_annotations")
        titles = [
            f"<{tag}> {record[name]} </{tag}> "
            for tag, name in (("page_title", "table_page_title"), ("section_title", "table_section_title"))
            if record.get(name)
        ]
        try:
            shown = [_highlighted(table, row, cell) for row, cell in record["highlighted_cells"]]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                "names cells that the table lacks", path=path, line=number, field="highlighted_cells"
            ) from error
        structure = f"{''.join(titles)}<table> {''.join(shown)}</table>"
        yield Record(str(record.get("example_id", number)), squeeze(structure), "", references)


def logic2text(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """Logic2Text: a logical form, and the sentence that says it; of the table caption and header are shown."""
    for number, record in enumerate(files.json_records(path), start=1):
        header = files.strings(record, "table_header", path)
        caption = files.field(record, "topic", str, path)
        logic = files.field(record, "logic_str", str, path)
        name = "question" if "question" in record else "sent"
        target = files.field(record, name, str, path)
        yield Record(str(number), f"Caption: {caption} | {', '.join(header)}", logic, (target,))


def kvret(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """KVRET: every reply of the assistant is an example; a last turn without a reply is left out."""
    for number, record in enumerate(files.json_records(path), start=1):
        knowledge = files.field(files.field(record, "scenario", dict, path), "kb", dict, path)
        header = files.strings(knowledge, "column_names", path)
        rows = [[item.get(name, "-") for name in header] for item in knowledge.get("items") or ()]
        table = matrix(rows, "items", path)
        said: list[str] = []
        for turn in files.field(record, "dialogue", list, path):
            utterance = files.field(files.field(turn, "data", dict, path), "utterance", str, path)
            if turn.get("turn") == "assistant" and said:
                asked = history(said[-1], said[:-1])
                kept = fit_rows(header, table, asked, options.get("max_table_chars", 0))
                uid = f"{number}-{len(said) // 2}"
                yield Record(uid, linear_table(header, kept), asked, (squeeze(utterance),))
            said.append(utterance)


def multiwoz(home: epath.Path, path: epath.Path, options: Options) -> Iterator[Record]:
    """MultiWOZ 2.1: the state of the dialogue after each of the user's turns, all slots, "none" for most.

    Reads one file a split, or `data.json` with the lists of its validation and test dialogues beside it.
    """
    slots = _slots(home / "ontology.json")
    structure = "; ".join(f"{slot}: {', '.join(values) or 'none'}" for slot, values in slots.items()) + ";"
    dialogues = files.json_value(path)
    if not isinstance(dialogues, dict):
        raise InputError("must hold a JSON object, dialogues by name", path=path)
    for name, dialogue in _of_split(home, path, dialogues, options.get("split", "")):
        said: list[str] = []
        for place, turn in enumerate(files.field(dialogue, "log", list, path)):
            utterance = files.field(turn, "text", str, path)
            state = files.field(turn, "metadata", dict, path)
            if place % 2 and said:
                values = _state(state, name, path)
                target = ", ".join(f"{slot} {values.get(slot, 'none')}".replace("-", " ") for slot in slots)
                uid = f"{name.removesuffix('.json')}-{place // 2}"
                yield Record(uid, structure, history(said[-1], said[:-1]), (target,))
            said.append(utterance)


def _highlighted(table: Sequence[Sequence[Mapping[str, Any]]], row: int, place: int) -> str:
    """A cell with the headers above it and left of it."""
    start = sum(cell["column_span"] for cell in table[row][:place])
    end = start + table[row][place]["column_span"]
    above = []
    for earlier in table[:row]:
        at = 0
        for cell in earlier:
            if cell["is_header"] and at < end and at + cell["column_span"] > start:
                above.append(cell["value"])
            at += cell["column_span"]
    left = [cell["value"] for cell in table[row][:place] if cell["is_header"]]
    headers = [f"<col_header> {value} </col_header> " for value in above]
    headers += [f"<row_header> {value} </row_header> " for value in left]
    return f"<cell> {table[row][place]['value']} {''.join(headers)}</cell> "


def _slots(path: epath.Path) -> Mapping[str, Sequence[str]]:
    """The values to choose from by slot, `hotel-pricerange` and the like."""
    ontology = files.json_value(path)
    if not isinstance(ontology, dict):
        raise InputError("must hold a JSON object, values by slot", path=path)
    slots = {}
    for name, values in ontology.items():
        if name.partition("-")[0] in _DOMAINS:
            slot = name.lower() if "book" in name else name.replace(" ", "").lower()
            slots[slot] = values if len(values) <= _LISTED_VALUES else ()
    return slots


def _state(metadata: Mapping[str, Any], dialogue: str, path: epath.Path) -> Mapping[str, str]:
    """The slots that are filled, named as in `_slots`."""
    state = {}
    try:
        for domain, fields in metadata.items():
            booked = {f"book {name}": value for name, value in fields["book"].items() if name != "booked"}
            for name, value in {**fields["semi"], **booked}.items():
                value = value[0] if isinstance(value, list) and value else value
                value = squeeze(str(value)).lower().partition("|")[0]
                if value not in _ABSENT:
                    state[f"{domain}-{name.lower()}"] = "dontcare" if value in _INDIFFERENT else value
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"dialogue {dialogue} has no state of domains", path=path, field="metadata"
        ) from error
    return state


def _of_split(
    home: epath.Path, path: epath.Path, dialogues: Mapping[str, Any], split: str
) -> Iterator[tuple[str, Any]]:
    if not re.fullmatch(r"data\.json(\.gz)?", path.name):
        return iter(dialogues.items())
    lists = {}
    for name, stem in (("validation", "valListFile"), ("test", "testListFile")):
        found = next(
            (home / f"{stem}{end}" for end in (".txt", ".json") if (home / f"{stem}{end}").exists()), None
        )
        if found is None:
            raise InputError(
                "is missing", path=home / f"{stem}.txt", remedy="It lists the dialogues of a split"
            )
        lists[name] = {line.strip() for _, line in files.lines(found)}
    held_out = lists["validation"] | lists["test"]
    return (
        (name, dialogue)
        for name, dialogue in dialogues.items()
        if (name in lists[split] if split in lists else name not in held_out)
    )
