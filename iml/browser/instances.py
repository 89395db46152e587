"""Prompts in pieces: which text is read, which is learnt, and where the tokens end.

Rendering, encoding and batching are those of training and evaluation; nothing of it is done again here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from iml.bench.card import Example
from iml.data.batches import Placed, make_batch
from iml.data.packing import RowLimits
from iml.data.prompts import Prompt, PromptFormat, render_request
from iml.data.store import ExampleStore
from iml.data.stream import TrainStream
from iml.data.tokens import Document, encode_prompts
from iml.data.vocabulary import Vocabulary

#: Tokens that a character may be spread over: its UTF-8 has four bytes at most, but tokens may overlap it.
_SPREAD = 6
#: Draws that are looked at together.
_SCAN = 8192
#: What decoding puts for bytes that are no character.
_TORN = "\N{REPLACEMENT CHARACTER}"
_SPECIAL = {Vocabulary.BOS: "<s>", Vocabulary.PAD: "<pad>", Vocabulary.EOS: "</s>", Vocabulary.UNK: "<unk>"}


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text.

    Attributes:
      text: what it says; of a gap, how much is left out.
      learnt: whether the loss counts it.
      tokens: its ids; several where a character is spread over them, () without a vocabulary.
      kind: "text", "special" for a special token, or "gap" for text that is not shown.
    """

    text: str
    learnt: bool
    tokens: tuple[int, ...] = ()
    kind: str = "text"


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """A row of a task as a model would see it.

    Attributes:
      row: its number in the split.
      prompt: what is asked, and how it came about.
      pieces: prompt and target.
      references: every right answer.
      candidates: the answers to choose between; () for generation.
      rationale: reasoning that leads to the target, "" if there is none.
      draw: number of the draw of the training stream, None if it is not one.
      read: tokens that are only read; None without a vocabulary.
      learnt: tokens that are learnt; None without a vocabulary.
      truncated: tokens that are cut off the head.
    """

    row: int
    prompt: Prompt
    pieces: tuple[Piece, ...]
    references: tuple[str, ...]
    candidates: tuple[str, ...]
    rationale: str
    draw: int | None = None
    read: int | None = None
    learnt: int | None = None
    truncated: int = 0


def asked_instances(
    store: ExampleStore,
    task: str,
    split: str,
    rows: Sequence[int],
    prompt_format: PromptFormat,
    shots: int,
    seed: int,
    vocabulary: Vocabulary | None,
    limits: RowLimits,
) -> list[Instance]:
    """Rows of a split as evaluation asks them, with the loss that training would take of them.

    Args:
      limits: of a row of training; what is longer loses its head.

    Raises:
      InputError: the store's files are damaged or gone.
      IndexError: no such row.
    """
    examples = store.read_many(task, split, rows)
    prompts = [render_request(store, task, split, row, prompt_format, shots=shots, seed=seed) for row in rows]
    instances = [_instance(*parts) for parts in zip(rows, examples, prompts, strict=True)]
    if vocabulary is None:
        return instances
    documents = encode_prompts(vocabulary, prompts, limits.positions)
    return [
        _with_tokens(instance, document, vocabulary, limits)
        for instance, document in zip(instances, documents, strict=True)
    ]


def drawn_instances(stream: TrainStream, numbers: Sequence[int]) -> list[Instance]:
    """Draws of the training stream, as they are learnt; what cannot be read is left out."""
    instances = []
    for placed in stream.make_documents(numbers):
        draw = stream.plan.draw(placed.number)
        example = stream.store.read(stream.tasks[draw.task], "train", draw.row)
        instance = _instance(draw.row, example, placed.document.prompt, draw.number)
        instances.append(_with_tokens(instance, placed.document, stream.vocabulary, stream.limits))
    return instances


def first_draws(stream: TrainStream, count: int, most: int) -> dict[str, list[int]]:
    """The first draws of every task, `count` of each at most, among the first `most` of the stream."""
    found: dict[str, list[int]] = {name: [] for name in stream.tasks}
    lacking = len(found)
    for start in range(0, most, _SCAN):
        for draw in stream.plan.draws(range(start, min(most, start + _SCAN))):
            numbers = found[stream.tasks[draw.task]]
            if len(numbers) < count:
                numbers.append(draw.number)
                lacking -= len(numbers) == count
        if not lacking:
            break
    return found


def _instance(row: int, example: Example, prompt: Prompt, draw: int | None = None) -> Instance:
    return Instance(
        row,
        prompt,
        plain_pieces(prompt),
        example.references,
        example.candidates,
        example.rationale,
        draw,
    )


def _with_tokens(
    instance: Instance, document: Document, vocabulary: Vocabulary, limits: RowLimits
) -> Instance:
    """The instance with the tokens of its document, and the loss of a row that holds it alone."""
    if limits.targets is not None:
        document = document.learn_at_most(limits.targets)
    weights = make_batch([[Placed(0, 0, document)]], limits)["loss_weights"][0]
    learnt = learnt_tokens(weights, len(document.tokens))
    return dataclasses.replace(
        instance,
        pieces=tuple(token_pieces(vocabulary, document.tokens, learnt)),
        read=int((~learnt).sum()),
        learnt=int(learnt.sum()),
        truncated=document.truncated,
    )


def learnt_tokens(weights: np.ndarray, tokens: int) -> np.ndarray:
    """Which tokens of a document are learnt.

    Args:
      weights: float [>= tokens - 1], loss weights of the document's positions; position i predicts token i + 1.
      tokens: number of tokens of the document.

    Returns:
      bool [tokens]; the first is False, nothing predicts it.
    """
    return np.concatenate([[False], weights[: tokens - 1] > 0])


def plain_pieces(prompt: Prompt) -> tuple[Piece, ...]:
    """Source and target, without tokens."""
    pieces = (Piece(prompt.source.rstrip(" "), False), Piece(f" {prompt.target.rstrip()}", True))
    return tuple(piece for piece in pieces if piece.text)


def token_pieces(vocabulary: Vocabulary, tokens: np.ndarray, learnt: np.ndarray) -> Iterator[Piece]:
    """A piece a token; tokens that share a character stand together.

    Args:
      tokens: int [n].
      learnt: bool [n].
    """
    ids, flags = tokens.tolist(), learnt.tolist()
    start = 0
    while start < len(ids):
        piece, end = _piece(vocabulary, ids[start], flags[start]), start + 1
        while _TORN in piece.text and end - start < _SPREAD and end < len(ids):
            if flags[end] != flags[start] or ids[end] in _SPECIAL:
                break
            end += 1
            piece = Piece(vocabulary.decode(ids[start:end]), flags[start], tuple(ids[start:end]))
        yield piece
        start = end


def shorten(pieces: Iterable[Piece], most: int) -> list[Piece]:
    """The pieces, without the middle of what has more than `most` characters; whole tokens stay whole."""
    pieces = list(pieces)
    total = sum(len(piece.text) for piece in pieces)
    if total <= most:
        return pieces
    head, tail = most * 3 // 5, total - most * 2 // 5
    kept: list[Piece] = []
    start, left_out = 0, 0
    for piece in pieces:
        end = start + len(piece.text)
        if piece.tokens:
            before = piece if start < head else None
            after = piece if before is None and end > tail else None
        else:
            before = _part(piece, 0, head - start)
            after = _part(piece, max(0, tail - start), len(piece.text))
        shown = [part for part in (before, after) if part]
        left_out += len(piece.text) - sum(len(part.text) for part in shown)
        if before:
            kept.append(before)
        if left_out and (after or end >= total):
            kept.append(Piece(f"{left_out:,} characters left out", False, (), "gap"))
            left_out = 0
        if after:
            kept.append(after)
        start = end
    return kept


def _part(piece: Piece, start: int, end: int) -> Piece | None:
    text = piece.text[start:end] if end > start else ""
    return dataclasses.replace(piece, text=text) if text else None


@functools.lru_cache(maxsize=1 << 17)
def _piece(vocabulary: Vocabulary, token: int, learnt: bool) -> Piece:
    """A token by itself; the same few thousand make up most of any text."""
    if token in _SPECIAL:
        return Piece(_SPECIAL[token], learnt, (token,), "special")
    return Piece(vocabulary.decode([token]), learnt, (token,))
