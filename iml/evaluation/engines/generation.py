"""Answers of an OPT model: greedy, drawn or by beam search, in batches that are never idle while prompts wait."""

from __future__ import annotations

import collections
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from iml.errors import InputError
from iml.evaluation.engines import trees
from iml.evaluation.engines.beams import Beams
from iml.evaluation.engines.engine import (
    Decoding,
    Generated,
    Tell,
    stop_place,
    tell_nobody,
    until_stop,
    without_demonstrations,
)
from iml.evaluation.engines.loading import LoadedModel
from iml.evaluation.engines.slots import Programs, Slots
from iml.training import partition


class Generator:
    """Generates with one model, in one way."""

    def __init__(self, model: LoadedModel, decoding: Decoding):
        """
        Raises:
          InputError: there is no room for a prompt.
        """
        if decoding.max_new_tokens >= model.max_length:
            raise InputError(
                f"must be below the {model.max_length} positions, to leave room for a prompt",
                field="Decoding.max_new_tokens",
            )
        self._model, self._decoding = model, decoding
        self._programs = Programs(model, decoding)
        self._known: set[int] = set()

    def load(self, model: LoadedModel) -> None:
        """Takes the same model with other parameters; what was compiled stays."""
        self._model = model
        self._programs.load(model.params)

    def generate(
        self,
        sources: Sequence[str],
        parts: Sequence[Sequence[int]] | None = None,
        tell: Tell = tell_nobody,
    ) -> list[Generated]:
        """See `engine.Engine.generate`.

        The answer's first token brings the space that follows the prompt, as in training.
        """
        limit, decoding, model = self._decoding.max_new_tokens, self._decoding, self._model
        prompts = self._encode(sources, parts or [()] * len(sources))
        sizes = [len(ids) + limit for ids, _ in prompts]
        widths = trees.choose_widths(sizes, self._known, model.max_length, model.shape_price)
        self._known.update(widths)
        results: list[Generated | None] = [None] * len(sources)
        queues: dict[int, list[int]] = collections.defaultdict(list)
        for i, size in enumerate(sizes):
            queues[trees.width_of(widths, size)].append(i)

        def finish(index: int, ids: list[int]) -> None:
            results[index] = self._answer(ids, prompts[index][1])
            tell(index, results[index])

        run = self._search if decoding.beams > 1 else self._decode
        for width, members in sorted(queues.items()):
            # Prompts of like length are read together.
            queue = collections.deque(sorted(members, key=lambda i: len(prompts[i][0])))
            run(width, queue, [ids for ids, _ in prompts], [zlib.crc32(s.encode()) for s in sources], finish)
        return results

    def _encode(self, sources: Sequence[str], parts: Sequence[Sequence[int]]) -> list[tuple[list[int], int]]:
        """Prompts that leave room for an answer, and how many tokens each has lost."""
        model, head, encode = self._model, self._model.head, self._model.vocabulary.encode_batch
        room = model.max_length - self._decoding.max_new_tokens - len(head)
        prompts = []
        texts = [source.rstrip(" ") for source in sources]
        for text, starts, ids in zip(texts, parts, encode(texts), strict=True):
            kept = ids
            if len(ids) > room:
                fitting = without_demonstrations(text, starts, lambda text: len(encode([text])[0]) <= room)
                [kept] = encode([fitting])
            kept = kept[max(0, len(kept) - room) :]
            # A prompt of no tokens begins a document, as text that follows </s> does.
            prompts.append(([*head, *kept] or [model.vocabulary.EOS], len(ids) - len(kept)))
        return prompts

    def _decode(
        self,
        width: int,
        queue: collections.deque[int],
        prompts: Sequence[list[int]],
        salts: Sequence[int],
        finish: Callable[[int, list[int]], None],
    ) -> None:
        slots = Slots(self._model, self._programs, width, self._rows(width, len(queue), 1))
        owners = [-1] * slots.rows
        answers: dict[int, list[int]] = {}
        while queue or slots.active.any():
            free = [row for row in range(slots.rows) if not slots.active[row]]
            taken = {(row,): queue.popleft() for row in free[: len(queue)]}
            if taken:
                for (row,), index in taken.items():
                    owners[row], answers[index] = index, []
                slots.fill(
                    {rows: prompts[i] for rows, i in taken.items()},
                    {rows: salts[i] for rows, i in taken.items()},
                )
            before = slots.active.copy()
            tokens = slots.advance(max(1, slots.rows // 8) if queue else slots.rows + 1)
            for row in np.flatnonzero(before):
                index = owners[row]
                answers[index] += [int(token) for token in tokens[row] if token >= 0]
                if self._ended(answers[index]) or len(answers[index]) >= self._decoding.max_new_tokens:
                    slots.active[row] = False
                    finish(index, answers.pop(index))

    def _search(
        self,
        width: int,
        queue: collections.deque[int],
        prompts: Sequence[list[int]],
        salts: Sequence[int],
        finish: Callable[[int, list[int]], None],
    ) -> None:
        count = self._decoding.beams
        slots = Slots(self._model, self._programs, width, self._rows(width, len(queue), count))
        groups = slots.rows // count
        owners: list[tuple[int, Beams] | None] = [None] * groups
        parents = np.arange(slots.rows)
        while queue or any(owners):
            taken = {}
            for group in range(groups):
                if owners[group] is None and queue:
                    owners[group] = (queue.popleft(), Beams(self._decoding, self._ended))
                    rows = tuple(range(group * count, (group + 1) * count))
                    taken[rows] = owners[group][0]
                    parents[list(rows)] = rows
            if taken:
                slots.fill(
                    {rows: prompts[i] for rows, i in taken.items()},
                    {rows: salts[i] for rows, i in taken.items()},
                )
            scores = np.zeros((groups, count), np.float32)
            for group, owner in enumerate(owners):
                if owner is not None:
                    scores[group] = owner[1].scores
            found = slots.widen(parents, scores)
            for group, owner in enumerate(owners):
                if owner is None:
                    continue
                index, beams = owner
                rows = np.arange(group * count, (group + 1) * count)
                parents[rows] = group * count + beams.advance(*(part[group] for part in found))
                slots.last[rows] = [ids[-1] for ids in beams.running]
                if beams.done:
                    slots.active[rows], owners[group] = False, None
                    parents[rows] = rows
                    finish(index, beams.ended[0])

    def _rows(self, width: int, waiting: int, beams: int) -> int:
        """Rows of a batch: as many as wait, in few sizes and whole groups of beams on each part of the mesh."""
        shards = partition.batch_shards(self._model.mesh)
        groups = max(1, self._model.rows(width) // beams // shards)  # On each part.
        while groups > 1 and groups // 2 * shards >= waiting:
            groups //= 2
        return groups * shards * beams

    def _ended(self, ids: list[int]) -> bool:
        vocabulary, stops = self._model.vocabulary, self._decoding.stop
        return ids[-1:] == [vocabulary.EOS] or (
            bool(stops) and stop_place(vocabulary.decode(ids), stops) is not None
        )

    def _answer(self, ids: list[int], truncated: int) -> Generated:
        vocabulary = self._model.vocabulary
        finished = ids[-1:] == [vocabulary.EOS]
        ids = ids[:-1] if finished else ids
        ids, text, stopped = until_stop(ids, self._decoding.stop, vocabulary.decode)
        return Generated(text.strip(), tuple(ids), finished or stopped, truncated)
