"""N-grams that training and evaluation tasks have in common (OPT-IML, section 2.3).

The paper inspects every pair of a training and an evaluation task of which more than 1 % of the evaluation
examples share a 13-gram with the training task, on instantiated sequences. Here a sequence is an example's
source and target as prompts show them; a task-level instruction is a sequence of its own. An evaluation
example counts as overlapping if an n-gram of its own stands anywhere in the training task's sequences, the
instruction included. No n-gram is an example's own that has a word of a template: of a run of (five) words
that most rows of the evaluation task's template have, or its instruction. What those would add is told beside,
as the share of whole sequences.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from iml.bench.card import Example
from iml.bench.contamination_index import Index, body, hashed
from iml.bench.contamination_text import ragged_arange, spans

#: Evaluation examples of a pair that are kept as evidence.
EVIDENCE = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """An evaluation row and the training row that it shares most with.

    Attributes:
      grams: n-grams that the evaluation row shares with the training task.
      example: number of the evaluation example within its task.
      split: 0 for validation, 1 for test.
      row: the evaluation row.
      train_row: the training row.
      words: one of the n-grams.
    """

    grams: int
    example: int
    split: int
    row: int
    train_row: int
    words: str


@dataclasses.dataclass(frozen=True, slots=True)
class Overlap:
    """What a training task, or a piece of it, shares with one evaluation task.

    Attributes:
      examples: numbers of the evaluation examples with an n-gram of their own in common.
      whole: those with any n-gram in common, instruction and template included.
      train_uids: training examples that hold an evaluation example's own n-gram.
      evidence: the evaluation examples with the most n-grams in common, at most `EVIDENCE`.
    """

    examples: frozenset[int] = frozenset()
    whole: frozenset[int] = frozenset()
    train_uids: frozenset[str] = frozenset()
    evidence: tuple[Evidence, ...] = ()

    def join(self, other: Overlap) -> Overlap:
        """The overlap of two pieces together; the order does not matter."""
        best: dict[int, Evidence] = {}
        for one in sorted((*self.evidence, *other.evidence), key=_order):
            best.setdefault(one.example, one)
        return Overlap(
            self.examples | other.examples,
            self.whole | other.whole,
            self.train_uids | other.train_uids,
            tuple(best.values())[:EVIDENCE],
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "examples": sorted(self.examples),
            "whole": sorted(self.whole),
            "train_uids": sorted(self.train_uids),
            "evidence": [dataclasses.astuple(one) for one in self.evidence],
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        sets = (frozenset(record[name]) for name in ("examples", "whole", "train_uids"))
        return cls(*sets, tuple(Evidence(*one) for one in record["evidence"]))


def scan(index: Index, examples: Sequence[Example], first_row: int = 0) -> dict[str, Overlap]:
    """What some rows of a training task share with each evaluation task; tasks that share nothing are absent.

    Args:
      index: the evaluation side.
      examples: rows of one training task, in order.
      first_row: the row that the first of them is.
    """
    rows_of: list[Sequence[int]] = [(row,) for row in range(len(examples))]
    instructions: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        if example.instruction:
            instructions.setdefault(example.instruction, []).append(row)
    rows_of += instructions.values()
    texts = [*map(body, examples), *instructions]
    found = [
        (distinct, batch.text_ids[numbers] + start)
        for start, batch in hashed(texts, index.n, index.bits)
        for numbers, distinct in [index.find(batch)]
        if len(numbers)
    ]
    if not found:
        return {}
    distinct, text = (np.concatenate(column) for column in zip(*found, strict=True))
    return _by_task(index, examples, first_row, rows_of, distinct, text)


def _by_task(index, examples, first_row, rows_of, distinct, text) -> dict[str, Overlap]:
    """Splits n-grams found, and the texts that hold them, by evaluation task."""
    # Every n-gram with the first text that holds it, then the entries and the places that it stands for.
    grams, firsts = np.unique(distinct, return_index=True)
    gram_of, entries = _expand(index.entry_bounds, grams)
    entry_of, positions = _expand(index.place_bounds, entries)
    sequences = index.places[positions]
    own = index.place_own[positions]
    gram_of = gram_of[entry_of]

    place_of, numbers = _expand(index.example_bounds, np.unique(sequences))
    members = _Pairs.of(index.sequence_row[np.unique(sequences)[place_of], 0], index.examples[numbers])
    trained = dict(_training_rows(index, distinct, text).groups())
    evidence = _evidence(
        index, sequences[own], text[firsts][gram_of[own]], grams[gram_of[own]], rows_of, first_row
    )
    overlaps = {}
    for task, whole in members.groups():
        mine = evidence.get(task, [])
        uids = {examples[row].uid for one in trained.get(task, ()) for row in rows_of[one]}
        overlaps[index.tasks[task]] = Overlap(
            frozenset(one.example for one in mine), frozenset(whole), frozenset(uids), tuple(mine)
        ).join(Overlap())
    return overlaps


def _training_rows(index: Index, distinct: np.ndarray, text: np.ndarray) -> _Pairs:
    """Evaluation tasks, and the training texts that hold an n-gram of their examples' own."""
    found = _Pairs.of(distinct, text)
    pair_of, entries = _expand(index.entry_bounds, found.left)
    distinct_entries, back = np.unique(entries, return_inverse=True)
    entry_of, positions = _expand(index.place_bounds, distinct_entries)
    own = np.zeros(len(distinct_entries), bool)
    own[entry_of[index.place_own[positions]]] = True
    own = own[back]
    return _Pairs.of(index.entry_task[entries[own]], found.right[pair_of[own]])


def _evidence(index, sequences, holders, grams, rows_of, first_row) -> dict[int, list[Evidence]]:
    """By evaluation task, every example with n-grams of its own, its row with the most of them first."""
    if not len(sequences):
        return {}
    order = np.lexsort((grams, holders, sequences))
    sequences, holders, grams = sequences[order], holders[order], grams[order]
    edges = np.flatnonzero(np.diff(sequences, prepend=-1))
    chosen = sequences[edges]
    examples = index.examples[
        index.example_bounds[chosen]
    ].tolist()  # An example's own text is one example's.
    places = zip(index.sequence_row[chosen].tolist(), examples, edges.tolist(), strict=True)
    found: dict[int, dict[int, Evidence]] = {}
    for ((task, split, row), example, low), high in zip(places, [*edges[1:], len(sequences)], strict=True):
        holder, firsts, counts = np.unique(holders[low:high], return_index=True, return_counts=True)
        most = np.argmax(counts)
        best = rows_of[int(holder[most])][0]
        gram = grams[low + firsts[most]]
        words = bytes(index.data[index.starts[gram] : index.starts[gram] + index.lengths[gram]]).decode()
        one = Evidence(int(high) - low, example, split, row, first_row + best, words)
        known = found.setdefault(task, {}).get(example)
        if known is None or _order(one) < _order(known):
            found[task][example] = one
    return {task: list(examples.values()) for task, examples in found.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class _Pairs:
    """Distinct pairs of numbers, sorted; int64 [pairs] each."""

    left: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, left: np.ndarray, right: np.ndarray) -> Self:
        width = int(right.max()) + 1 if len(right) else 1
        keys = np.unique(left.astype(np.int64) * width + right)
        return cls(keys // width, keys % width)

    def groups(self) -> Iterator[tuple[int, list[int]]]:
        """Each left number with its right ones."""
        edges = np.flatnonzero(np.diff(self.left, prepend=-1)).tolist()
        for low, high in zip(edges, [*edges[1:], len(self.left)][: len(edges)], strict=True):
            yield int(self.left[low]), self.right[low:high].tolist()


def _order(one: Evidence) -> tuple[Any, ...]:
    """Most n-grams first; then by rows, so that the pieces may come in any order."""
    return (-one.grams, one.split, one.row, one.train_row, one.words)


def _expand(bounds: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The members of some groups: (which of `keys` each belongs to, its number)."""
    counts = bounds[keys + 1] - bounds[keys]
    return np.repeat(np.arange(len(keys)), counts), ragged_arange(bounds[keys], counts)


def join(parts: Iterable[dict[str, Overlap]]) -> dict[str, Overlap]:
    """The overlaps of a task out of those of its pieces."""
    joined: dict[str, Overlap] = {}
    for part in parts:
        for task, overlap in part.items():
            joined[task] = joined[task].join(overlap) if task in joined else overlap
    return joined


def common_text(
    left: str, right: str, words: str, context: int = 20, longest: int = 80
) -> tuple[Any, Any, int]:
    """The longest run of words around an n-gram that two texts share, with some words on either side of it.

    Args:
      words: the n-gram, its words parted by spaces.
      context: words before and after.
      longest: words of the run that are shown; the middle of a longer one is left out.

    Returns:
      For either text (before, run, after), and the length of the run in words; three empty texts and 0 if
      one of them lacks the n-gram.
    """
    sides = [spans(left), spans(right)]
    gram = words.split(" ")
    tokens = [[word for word, _, _ in found] for _, found in sides]
    starts = [[at for at in range(len(side)) if side[at : at + len(gram)] == gram] for side in tokens]
    best, begin = 0, (0, 0)
    for start, other in itertools.product(*starts):
        before = _alike(tokens[0][:start][::-1], tokens[1][:other][::-1])
        size = before + _alike(tokens[0][start:], tokens[1][other:])
        if size > best:
            best, begin = size, (start - before, other - before)
    if not best:
        return ("", "", ""), ("", "", ""), 0
    shown = (_show(*side, start, best, context, longest) for side, start in zip(sides, begin, strict=True))
    return (*shown, best)


def _alike(left: Sequence[str], right: Sequence[str]) -> int:
    """How many words two lists have in common at their beginnings."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right)))


def _show(text, found, start: int, size: int, context: int, longest: int) -> tuple[str, str, str]:
    begin, end = found[start][1], found[start + size - 1][2]
    low = found[max(0, start - context)][1] if start > context else 0
    last = start + size - 1 + context
    high = found[last][2] if last < len(found) - 1 else len(text)
    run = text[begin:end]
    if size > longest:
        head, tail = found[start + longest // 2 - 1][2], found[start + size - longest // 2][1]
        run = f"{text[begin:head]} […] {text[tail:end]}"
    return ("…" if low else "") + text[low:begin], run, text[end:high] + ("…" if high < len(text) else "")
