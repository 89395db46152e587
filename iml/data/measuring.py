"""Lengths of stored prompts in tokens: one pass over a task's files, kept in its card for the next time."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator

from array_record.python.array_record_module import ArrayRecordReader

from iml.bench.card import Example
from iml.bench.statistics import Lengths
from iml.data import store
from iml.data.vocabulary import Vocabulary
from iml.errors import InputError

#: Rows read and encoded together.
_CHUNK = 1024


def token_unit(vocabulary: Vocabulary) -> str:
    """What lengths in this vocabulary's tokens are kept under."""
    return f"tokens {vocabulary.fingerprint[:16]}"


def measure(
    store_dir: str | os.PathLike[str], entry: store.TaskEntry, vocabulary: Vocabulary
) -> store.TaskEntry:
    """The entry of a written task with its lengths in tokens; nothing is read if it has them.

    Raises:
      InputError: a file of the task is damaged.
      OSError: the card cannot be replaced.
    """
    unit = token_unit(vocabulary)
    if all(unit in info.lengths for info in entry.splits.values()):
        return entry
    splits = {}
    for split, info in entry.splits.items():
        prompts = total = squares = 0
        for texts in _texts(store_dir, entry, split):
            sizes = [len(ids) for ids in vocabulary.encode_batch(texts)]
            prompts += len(sizes)
            total += sum(sizes)
            squares += sum(size * size for size in sizes)
        lengths = {**info.lengths, unit: Lengths(prompts, total, squares)}
        splits[split] = dataclasses.replace(info, lengths=lengths)
    entry = dataclasses.replace(entry, splits=splits)
    card = store.task_folder(store_dir, entry.card.name, entry.fingerprint) / store.CARD
    temporary = card.with_name(f".{store.CARD}.{os.getpid()}")
    temporary.write_text(json.dumps(entry.to_json(), indent=1), encoding="utf-8")
    temporary.replace(card)
    return entry


def _texts(store_dir: str | os.PathLike[str], entry: store.TaskEntry, split: str) -> Iterator[list[str]]:
    """The prompts of a split, chunk by chunk: instruction, line break, source."""
    file = store.task_folder(store_dir, entry.card.name, entry.fingerprint) / f"{split}.array_record"
    rows = entry.splits[split].rows
    try:
        reader = ArrayRecordReader(os.fspath(file))
        for start in range(0, rows, _CHUNK):
            records = reader.read(list(range(start, min(rows, start + _CHUNK))))
            examples = (Example.decode(record) for record in records)
            yield ["\n".join(filter(None, (shown.instruction, shown.source))) for shown in examples]
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"the store's file is damaged: {error}", path=file, remedy=store.REMEDY) from error
