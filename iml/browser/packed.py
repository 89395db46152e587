"""A packed row of the training stream, and pictures of its documents, positions and mask."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from iml.browser.instances import Piece, learnt_tokens, token_pieces
from iml.data.batches import make_batch
from iml.data.prompts import Prompt
from iml.data.stream import TrainStream
from iml.errors import InputError
from iml.markup import Markup, tag

#: Colours of documents; further ones begin anew.
COLOURS = 8
_BAR, _GAP, _SAW = 26, 6, 34


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A document of a row.

    Attributes:
      start: its first position.
      end: one past its last position.
      task: name of its task.
      draw: number of its draw.
      prompt: what it was made of.
      pieces: its tokens, the last one too, which is only ever a target.
      read: tokens that are only read.
      learnt: tokens that are learnt.
      truncated: tokens that were cut off its head.
    """

    start: int
    end: int
    task: str
    draw: int
    prompt: Prompt
    pieces: tuple[Piece, ...]
    read: int
    learnt: int
    truncated: int


@dataclasses.dataclass(frozen=True, slots=True)
class PackedRow:
    """One row of the global batch at one step.

    Attributes:
      step: steps before it.
      lane: its number in the global batch.
      segments: its documents, in order.
      segment_ids: int [L]; as the batch has them.
      positions: int [L]; as the batch has them.
      loss_weights: float [L]; as the batch has them.
    """

    step: int
    lane: int
    segments: tuple[Segment, ...]
    segment_ids: np.ndarray
    positions: np.ndarray
    loss_weights: np.ndarray

    @property
    def length(self) -> int:
        return len(self.segment_ids)

    @property
    def used(self) -> int:
        """Positions that documents take."""
        return int((self.segment_ids > 0).sum())

    @property
    def learnt(self) -> int:
        """Positions where the loss is taken."""
        return int((self.loss_weights > 0).sum())


def read_rows(stream: TrainStream, lane: int, first: int, count: int) -> list[PackedRow]:
    """Rows of a lane at consecutive steps, packed from the beginning of the stream on.

    Raises:
      InputError: no such lane, or nothing can be read.
    """
    if not 0 <= lane < stream.batch_size:
        raise InputError(f"no lane {lane}; they are numbered from 0 to {stream.batch_size - 1}", field="lane")
    rows = stream.rows(stream.initial_state().lanes[lane])
    for _ in range(first):
        next(rows)
    return [_row(stream, step, lane, next(rows)[0]) for step in range(first, first + count)]


def _row(stream: TrainStream, step: int, lane: int, placed) -> PackedRow:
    batch = make_batch([placed], stream.limits)
    ids, weights = batch["segment_ids"][0], batch["loss_weights"][0]
    segments = []
    for number, item in enumerate(placed, start=1):
        places = np.flatnonzero(ids == number)
        start, end = int(places[0]), int(places[-1]) + 1
        tokens = item.document.tokens
        learnt = learnt_tokens(weights[start:end], len(tokens))
        # Documents from a cache of token ids come without their prompts.
        prompt = item.document.prompt or stream.prompts([item.number])[0][1]
        segments.append(
            Segment(
                start,
                end,
                stream.tasks[item.task],
                item.number,
                prompt,
                tuple(token_pieces(stream.vocabulary, tokens, learnt)),
                int((~learnt).sum()),
                int(learnt.sum()),
                item.document.truncated,
            )
        )
    return PackedRow(step, lane, tuple(segments), ids, batch["positions"][0], weights)


def bar_picture(row: PackedRow) -> Markup:
    """Documents side by side, the learnt positions darker, and below them the positions that each counts."""
    parts = [_rect(0, 0, row.length, _BAR, "empty")]
    for value, start, end in _runs(row.segment_ids):
        if value:
            parts.append(_rect(start, 0, end - start, _BAR, f"c{(value - 1) % COLOURS}"))
    for value, start, end in _runs((row.loss_weights > 0).astype(int)):
        if value:
            parts.append(_rect(start, _BAR * 2 // 3, end - start, _BAR // 3, "learnt"))
    top = max(1, int(row.positions.max()))
    base = _BAR + _GAP + _SAW
    for value, start, end in _runs(row.segment_ids):
        if value:
            first, last = (base - _SAW * int(row.positions[i]) / top for i in (start, end - 1))
            points = f"{start},{base} {start},{first:.1f} {end},{last:.1f} {end},{base}"
            parts.append(tag("polygon", points=points, class_=f"saw c{(value - 1) % COLOURS}"))
    label = (
        f"Row of {row.length} positions with {len(row.segments)} documents; "
        f"positions start from 0 in each, {row.learnt} are learnt"
    )
    view = f"0 0 {row.length} {base}"
    return tag("svg", *parts, viewBox=view, preserveAspectRatio="none", class_="bar", role="img",
               aria_label=label)  # fmt: skip


def mask_picture(row: PackedRow) -> Markup:
    """Which positions (down) may look at which (across): causal within a document, nothing between them."""
    size = row.length
    parts = [_rect(0, 0, size, size, "empty")]
    for value, start, end in _runs(row.segment_ids):
        if value:
            points = f"{start},{start} {end},{end} {start},{end}"
            parts.append(tag("polygon", points=points, class_=f"c{(value - 1) % COLOURS}"))
    label = f"Attention mask: {len(row.segments)} triangles along the diagonal, nothing else"
    return tag("svg", *parts, viewBox=f"0 0 {size} {size}", class_="mask", role="img", aria_label=label)


def _runs(values: np.ndarray) -> list[tuple[int, int, int]]:
    """(value, start, end) of every stretch of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(int(values[a]), a, b) for a, b in itertools.pairwise(edges)]


def _rect(x: int, y: int, width: int, height: int, class_: str) -> Markup:
    return tag("rect", x=str(x), y=str(y), width=str(width), height=str(height), class_=class_)
