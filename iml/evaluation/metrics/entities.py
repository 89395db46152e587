"""Entities that an answer names, of a list of all there are (KVRET, arXiv 1705.05414; UnifiedSKG)."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from iml.evaluation.metrics.base import Answer, CorpusMetric, NotComputable, ratio

#: KVRET's list of entities by kind, which comes with its data.
FILE = "kvret_entities.json"
#: What UnifiedSKG adds to it, and what it takes for a word rather than a part of one.
_ADDED = (
    *("yoga", "tennis", "swimming", "football", " lab ", "doctor", "optometrist", "dentist", "Jill", "Jack"),
    *("1st", "2nd", "3rd", *(f"{day}th" for day in range(4, 21))),
)
_WORD = "HR"
_UNITS = {"distance": " miles", "temperature": "f"}
_HOUR = re.compile(r"([0-9]) (am|pm)")
_TENS = "20|30|40|50|60|70|80|90|100"
_DEGREES = re.compile(f"({_TENS})-({_TENS})f")


@dataclasses.dataclass(frozen=True)
class EntityF1(CorpusMetric):
    """Micro F1 of the entities in the replies; a reply whose reference has none does not count.

    UnifiedSKG, `metrics/kvret/response_entity_hit.py` ("all_micro"). Of several references the first counts.
    """

    reads_files: ClassVar[bool] = True

    def find_data(self, metric_data: str, databases: str) -> None:
        _entities(databases)

    def statistics(self, answers: Sequence[Answer]) -> np.ndarray:
        """[answers, 3]: entities that both name, the prediction alone, the reference alone."""
        rows = np.zeros((len(answers), 3))
        for row, answer in zip(rows, answers, strict=True):
            known = _entities(answer.databases)
            found, right = (_named(text, known) for text in (answer.prediction, answer.references[0]))
            if right:
                row[:] = len(found & right), len(found - right), len(right - found)
        return rows

    def combine(self, statistics: np.ndarray, weights: np.ndarray) -> np.ndarray:
        both, added, missed = (weights @ statistics).T
        return 100.0 * ratio(2.0 * both, 2.0 * both + added + missed, 0.0)


@functools.lru_cache(maxsize=4)
def _entities(folder: str) -> tuple[str, ...]:
    """What may be named, in lower case, the longest first."""
    path = pathlib.Path(folder, FILE)
    if not folder or not path.exists():
        raise NotComputable(
            "no list of entities here" if folder else "no list of entities",
            path=path if folder else None,
            field="Suite.databases",
            remedy=f"Name the folder that holds {FILE}",
        )
    try:
        kinds = json.loads(path.read_text(encoding="utf-8"))
        names = {*_ADDED, f" {_WORD} "}
        for kind, entries in kinds.items():
            if kind in _UNITS:
                names |= {f"{entry}{_UNITS[kind]}" for entry in entries}
                continue
            if kind == "poi":
                entries = [entry[part] for entry in entries for part in ("address", "poi", "type")]
            entries = {str(entry) for entry in entries} - {_WORD}
            names |= entries | {entry.replace(" ", "_") for entry in entries}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotComputable(f"not KVRET's list of entities ({error!r})", path=path) from error
    return tuple(sorted({name.lower() for name in names}, key=lambda name: (-len(name), name)))


def _named(text: str, known: Sequence[str]) -> frozenset[str]:
    """The entities in a text, of those that lie in each other the longest."""
    text = _HOUR.sub(r"\1\2", f" {text} ")
    text = _DEGREES.sub(r"\1f-\2f", text).lower()
    found: list[str] = []
    for entity in known:
        if entity in text and not any(entity in other for other in found):
            found.append(entity.replace(" ", "_"))
    return frozenset(found)
