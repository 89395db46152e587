"""A batch: a plain dict of arrays, all that training sees of the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from iml.data.packing import RowLimits
from iml.data.tokens import Document
from iml.data.vocabulary import Vocabulary

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """A document in a row: the number of its draw and of its task, and its tokens."""

    number: int
    task: int
    document: Document


def make_batch(rows: Sequence[Sequence[Placed]], limits: RowLimits) -> dict[str, np.ndarray]:
    """Packs rows of documents into arrays.

    Args:
      rows: the documents of each row, in order, within the limits.
      limits: positions of a row, L, documents that it may hold, S, and targets, T.

    Returns:
      tokens, targets: int32 [B, L]; PAD where there is no document.
      segment_ids: int32 [B, L]; 1, 2, ... by document, 0 where there is none.
      positions: int32 [B, L]; from 0 in every document.
      loss_weights: float32 [B, L]; 1 where the target is to be learnt.
      task_ids: int32 [B, S]; number of the task of each segment, -1 where there is none.
      example_ids: int64 [B, S]; number of the draw of each segment, -1 where there is none.
      target_positions: int32 [B, T], only with a limit of targets; the positions where `loss_weights` is 1,
        ascending, then -1.
    """
    shape, segments = (len(rows), limits.positions), limits.segments
    tokens = np.full(shape, Vocabulary.PAD, np.int32)
    targets = np.full(shape, Vocabulary.PAD, np.int32)
    segment_ids, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    loss_weights = np.zeros(shape, np.float32)
    task_ids = np.full((len(rows), segments), -1, np.int32)
    example_ids = np.full((len(rows), segments), -1, np.int64)
    for b, row in enumerate(rows):
        start = 0
        for s, placed in enumerate(row):
            ids = placed.document.tokens
            end = start + len(ids) - 1
            tokens[b, start:end] = ids[:-1]
            targets[b, start:end] = ids[1:]
            segment_ids[b, start:end] = s + 1
            positions[b, start:end] = np.arange(end - start)
            loss_weights[b, start + max(0, placed.document.target_start - 1) : end] = 1.0
            task_ids[b, s], example_ids[b, s] = placed.task, placed.number
            start = end
    batch = {
        "tokens": tokens,
        "targets": targets,
        "segment_ids": segment_ids,
        "positions": positions,
        "loss_weights": loss_weights,
        "task_ids": task_ids,
        "example_ids": example_ids,
    }
    if limits.targets is not None:
        batch["target_positions"] = np.full((len(rows), limits.targets), -1, np.int32)
        for b in range(len(rows)):
            learnt = np.flatnonzero(loss_weights[b])
            batch["target_positions"][b, : len(learnt)] = learnt
    return batch
