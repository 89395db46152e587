"""The training stream: batches that depend on the plan alone, not on who computes them.

Every row of the global batch is a lane of its own. Lane b takes the draws b, b + B, b + 2B, ... of the plan
(B rows in a batch), keeps some of them waiting and packs its next row from those. What a lane gives next
follows from the number of its next draw and of those that wait, so a stream goes on from a few integers, on
any number of threads and processes.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import logging
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from iml.bench.mixing import Mixture
from iml.data import restricting
from iml.data.batches import Batch, Placed, make_batch
from iml.data.packing import RowLimits, choose, pool_is_full
from iml.data.plan import Draw, StreamPlan
from iml.data.prompts import Prompt, PromptFormat, compose, find_demonstrations
from iml.data.random import Draws
from iml.data.settings import plain
from iml.data.store import ExampleStore
from iml.data.token_cache import TokenCache
from iml.data.tokens import encode_prompts
from iml.data.vocabulary import Vocabulary
from iml.errors import InputError

#: Changes whenever the same settings give other batches than before.
VERSION = 2
#: Draws that a lane reads and encodes together.
_CHUNK = 32
#: Draws of a lane that may fail one after the other before the run ends.
_PATIENCE = 1024

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class LaneState:
    """Where a lane stands: the number of its next draw, and of those that wait in its pool, oldest first."""

    next: int
    pending: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class StreamState:
    """Where a stream stands before a step: the lanes that a process holds, by number."""

    step: int
    lanes: Mapping[int, LaneState]

    def to_json(self) -> dict[str, Any]:
        lanes = {str(lane): [state.next, *state.pending] for lane, state in sorted(self.lanes.items())}
        return {"step": self.step, "lanes": lanes}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`.

        Raises:
          InputError: the record is not one of a stream's state.
        """
        try:
            lanes = {
                int(lane): LaneState(int(numbers[0]), tuple(int(number) for number in numbers[1:]))
                for lane, numbers in record["lanes"].items()
            }
            return cls(int(record["step"]), lanes)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(f"not the state of a stream ({type(error).__name__}: {error})") from error

    @classmethod
    def merge(cls, states: Sequence[Self]) -> Self:
        """One state of the states that several processes hold.

        Raises:
          InputError: they stand at different steps, or two hold the same lane.
        """
        lanes: dict[int, LaneState] = {}
        for state in states:
            if state.step != states[0].step:
                raise InputError(f"states of different steps: {states[0].step} and {state.step}")
            if both := lanes.keys() & state.lanes.keys():
                raise InputError(f"two states hold lane {min(both)}")
            lanes |= state.lanes
        return cls(states[0].step, dict(sorted(lanes.items())))


class TrainStream:
    """Packed batches of a mixture over a store's train splits.

    Attributes:
      tasks: task names, in the order of `task_ids`.
      plan: which example is the n-th draw.
      examples: by task, how many of its examples may be drawn.
      limits: what a row holds.
      cache: documents that were made at an earlier time, or None.
    """

    def __init__(
        self,
        store: ExampleStore,
        vocabulary: Vocabulary,
        mixture: Mixture,
        prompt_format: PromptFormat,
        batch_size: int,
        length: int,
        seed: int = 1234,
        segments: int = 64,
        target_budget: int | None = None,
        strict: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
    ):
        """Plans the stream; reads nothing but the store's index.

        Args:
          batch_size: rows of the global batch.
          length: positions of a row.
          seed: seed of the order and of every choice.
          segments: documents that a row may hold.
          target_budget: tokens to be learnt that a row may hold, so that the loss can be taken at a fixed
            number of positions; None for any number. Of a document with more only the last are learnt.
          strict: raise where an example cannot be read, instead of leaving it out.
          cache_dir: where `iml.data.token_cache.build` kept documents; what it lacks is made when drawn.

        Raises:
          InputError: no task to train on, or a number below 1.
        """
        if batch_size < 1:
            raise InputError(f"must be at least 1, not {batch_size}", field="batch_size")
        self.limits = RowLimits(length, segments, target_budget)
        self.store, self.vocabulary, self.mixture, self.prompt_format = (
            store,
            vocabulary,
            mixture,
            prompt_format,
        )
        self.batch_size, self.length = batch_size, length
        self.seed, self.strict = seed, strict
        train = {
            name: entry
            for name, entry in store.tasks.items()
            if "train" in entry.splits and entry.splits["train"].rows
        }
        chosen = mixture.select({name: entry.card for name, entry in train.items()})
        sizes = {name: (train[name].card.benchmark, train[name].splits["train"].examples) for name in chosen}
        self.examples = mixture.sizes(sizes)
        counts = mixture.counts({name: (sizes[name][0], number) for name, number in self.examples.items()})
        within = {
            name: restricting.rows_within(store, name, self.examples[name], mixture.examples.seed)
            for name in counts
            if self.examples[name] < sizes[name][1]
        }
        rows = {name: len(within.get(name, range(train[name].splits["train"].rows))) for name in counts}
        self.plan = StreamPlan(counts, rows, seed, within)
        self.tasks = self.plan.tasks
        self._reported: set[str] = set()
        self.cache = None if cache_dir is None else TokenCache(cache_dir, self.documents_fingerprint)

    @functools.cached_property
    def documents_fingerprint(self) -> str:
        """Hash over all that the documents of draws depend on."""
        parts = {
            "version": VERSION,
            "seed": self.seed,
            "length": self.length,
            "counts": dict(self.plan.counts),
            "tasks": {name: self.store.tasks[name].fingerprint for name in self.tasks},
            "format": plain(self.prompt_format),
            "vocabulary": self.vocabulary.fingerprint,
        }
        if self.plan.within:
            parts["within"] = restricting.fingerprint(self.plan.within)
        return _hash(parts)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash over all that the batches depend on."""
        return _hash([self.documents_fingerprint, self.batch_size, dataclasses.asdict(self.limits)])

    def initial_state(self) -> StreamState:
        """Where every lane stands before the first step."""
        return StreamState(0, {lane: LaneState(lane) for lane in range(self.batch_size)})

    def batches(
        self, state: StreamState, lanes: Iterable[int] | None = None, threads: int = 2, prefetch: int = 4
    ) -> Iterator[tuple[Batch, StreamState]]:
        """Batches from a state on, for ever, each with the state after it.

        Args:
          state: must hold the lanes; from `initial_state` or an earlier batch.
          lanes: the rows of the global batch to make; None for all.
          threads: threads that make rows, each its own lanes; 0 for none, which makes them when asked.
          prefetch: rows of each lane made ahead.

        Returns:
          A generator; closing it ends its threads.

        Raises:
          InputError: the state does not hold the lanes; or, from the generator, an example cannot be read and
            the stream is strict, or none can be read.
        """
        wanted = sorted(set(range(self.batch_size) if lanes is None else lanes))
        for lane in wanted:
            if lane not in state.lanes or not 0 <= lane < self.batch_size:
                raise InputError(f"the stream's state does not hold lane {lane} of {self.batch_size}")
        return self._batches(state, wanted, min(threads, len(wanted)), max(1, prefetch))

    def rows(self, state: LaneState) -> Iterator[tuple[list[Placed], LaneState]]:
        """Rows of one lane from a state on, each with the lane's state after it."""
        pool = collections.deque(self._place(state.pending))
        ahead: collections.deque[tuple[Placed, int]] = collections.deque()
        following = state.next
        fetched = state.next
        failed = 0
        while True:
            sizes = [placed.document.positions for placed in pool]
            while not pool_is_full(sizes, self.limits):
                while not ahead:
                    numbers = range(fetched, fetched + _CHUNK * self.batch_size, self.batch_size)
                    fetched = numbers.stop
                    ahead.extend((placed, placed.number + self.batch_size) for placed in self._place(numbers))
                    failed = 0 if ahead else failed + _CHUNK
                    if failed >= _PATIENCE:
                        raise InputError(f"the last {failed} examples of a lane could not be read")
                placed, following = ahead.popleft()
                pool.append(placed)
                sizes.append(placed.document.positions)
            targets = [placed.document.targets for placed in pool]
            taken = set(choose(sizes, targets, self.limits))
            row = [placed for i, placed in enumerate(pool) if i in taken]
            pool = collections.deque(placed for i, placed in enumerate(pool) if i not in taken)
            yield row, LaneState(following, tuple(placed.number for placed in pool))

    def prompts(self, numbers: Sequence[int]) -> list[tuple[Draw, Prompt]]:
        """Draws and their prompts; what cannot be read is left out."""
        rendered = []
        for draw in self.plan.draws(numbers):
            task, form = self.tasks[draw.task], self.prompt_format
            within, draws = self.plan.within.get(task), Draws(self.seed, draw.number)
            try:
                example = self.store.read(task, "train", draw.row)
                shots = form.draw_shots(draws)
                shown = find_demonstrations(self.store, task, "train", example, shots, draws, within)
                prompt = compose(self.store, task, "train", example, shown, form, draws, within)
            except InputError as error:
                if self.strict:
                    raise
                if task not in self._reported:
                    self._reported.add(task)
                    _LOG.warning("left out what cannot be read of %s: %s", task, error)
                continue
            rendered.append((draw, prompt))
        return rendered

    def make_documents(self, numbers: Sequence[int]) -> list[Placed]:
        """Documents of draws; what cannot be read is left out."""
        rendered = self.prompts(numbers)
        documents = encode_prompts(self.vocabulary, [prompt for _, prompt in rendered], self.length)
        return [
            Placed(draw.number, draw.task, document)
            for (draw, _), document in zip(rendered, documents, strict=True)
        ]

    def _place(self, numbers: Sequence[int]) -> list[Placed]:
        """Documents of draws as they go into rows, from the cache where it has them."""
        if not len(numbers):
            return []
        found, missing = self.cache.find(numbers) if self.cache else ([], numbers)
        if missing:
            kept, found = found, found + self.make_documents(missing)
            if kept:
                order = {number: place for place, number in enumerate(numbers)}
                found.sort(key=lambda placed: order[placed.number])
        if self.limits.targets is None:
            return found
        return [
            dataclasses.replace(placed, document=placed.document.learn_at_most(self.limits.targets))
            for placed in found
        ]

    def _batches(
        self, state: StreamState, lanes: list[int], threads: int, prefetch: int
    ) -> Iterator[tuple[Batch, StreamState]]:
        if threads:
            sources = _Workers(self, state, lanes, threads, prefetch)
        else:
            sources = _Inline({lane: self.rows(state.lanes[lane]) for lane in lanes})
        try:
            step = state.step
            while True:
                made = [sources.next_row(lane) for lane in lanes]
                step += 1
                after = StreamState(step, {lane: made[i][1] for i, lane in enumerate(lanes)})
                yield make_batch([row for row, _ in made], self.limits), after
        finally:
            sources.close()


def _hash(parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


class _Inline:
    """Makes rows when they are asked for."""

    def __init__(self, rows: Mapping[int, Iterator[tuple[list[Placed], LaneState]]]):
        self._rows = rows

    def next_row(self, lane: int) -> tuple[list[Placed], LaneState]:
        return next(self._rows[lane])

    def close(self) -> None:
        pass


class _Workers:
    """Threads that make rows ahead; every lane has one thread and one queue, so nothing depends on timing."""

    def __init__(
        self, stream: TrainStream, state: StreamState, lanes: list[int], threads: int, prefetch: int
    ):
        self._stop = threading.Event()
        self._queues = {lane: queue.Queue(maxsize=prefetch) for lane in lanes}
        self._threads = [
            threading.Thread(
                target=self._work,
                args=({lane: stream.rows(state.lanes[lane]) for lane in lanes[number::threads]},),
                name=f"iml-stream-{number}",
                daemon=True,
            )
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, rows: Mapping[int, Iterator[tuple[list[Placed], LaneState]]]) -> None:
        while not self._stop.is_set():
            for lane, iterator in rows.items():
                try:
                    made = next(iterator)
                except BaseException as error:  # Raised again where the row is asked for.
                    made = error
                if not self._put(lane, made) or isinstance(made, BaseException):
                    return

    def _put(self, lane: int, made: Any) -> bool:
        """Waits for room; False once the stream is closed."""
        while not self._stop.is_set():
            try:
                self._queues[lane].put(made, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def next_row(self, lane: int) -> tuple[list[Placed], LaneState]:
        made = self._queues[lane].get()
        if isinstance(made, BaseException):
            raise made
        return made

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
