"""How far an evaluation is, and how long it will yet take.

Requests differ in cost by orders of magnitude: a 32-shot prompt is thirty times as long as a 0-shot one, and an
answer is generated token by token where candidates are read at once. So work is measured in characters read and
written, and the time that a character takes is measured for each kind of request on its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from iml.data.store import ExampleStore
from iml.evaluation.requests import Request, Selected, make_requests
from iml.evaluation.suites import Suite

if TYPE_CHECKING:
    from rich.console import Console

#: Characters that a generated token weighs as much as.
_CHARACTERS = 4
#: Seconds between the lines that a log gets, where there is no terminal.
_PERIOD = 60.0


def weight(request: Request, suite: Suite) -> int:
    """The work of a request, comparable with that of others of its kind."""
    answer = (
        sum(map(len, request.candidates))
        if request.candidates
        else _CHARACTERS * suite.decoding.max_new_tokens
    )
    return len(request.prompt.source) + answer


def estimate(
    store: ExampleStore, selected: Mapping[str, Selected], suite: Suite, seed: int
) -> dict[str, dict[str, float]]:
    """By task and kind of request, the work ahead, as the first row at each number of shots lets expect it."""
    found: dict[str, dict[str, float]] = {}
    for name, task in selected.items():
        work: dict[str, float] = defaultdict(float)
        # A task that cannot be read fails when its turn comes, and is told of then.
        with contextlib.suppress(Exception):
            for request in make_requests(store, dataclasses.replace(task, rows=task.rows[:1]), suite, seed):
                work[request.kind] += weight(request, suite) * len(task.rows)
        found[name] = dict(work)
    return found


class Forecast:
    """The time left, from the work left and what work has taken so far."""

    def __init__(self, work: Mapping[str, float]):
        """
        Args:
          work: by kind of request, what is to be done.
        """
        self._left = defaultdict(float, work)
        self._seconds: dict[str, float] = defaultdict(float)
        self._done: dict[str, float] = defaultdict(float)

    def add(self, kind: str, work: float, seconds: float) -> None:
        """Work of a kind was done, and took so long."""
        self._left[kind] = max(0.0, self._left[kind] - work)
        self._done[kind] += work
        self._seconds[kind] += seconds

    def correct(self, kind: str, more: float) -> None:
        """There is more work of a kind than was thought, or less."""
        self._left[kind] = max(0.0, self._left[kind] + more)

    @property
    def seconds(self) -> float | None:
        """Seconds left; None while a kind that is still to be done was never measured."""
        kinds = [kind for kind, work in self._left.items() if work]
        if any(not self._done[kind] for kind in kinds):
            return None
        return sum(self._left[kind] * self._seconds[kind] / self._done[kind] for kind in kinds)


class Watch:
    """Follows an evaluation; tells nobody. `watched` gives one that does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._since = clock()
        self.forecast = Forecast({})
        self.done = 0
        self.total = 0

    def begin(self, work: Mapping[str, float], total: int, done: int) -> None:
        """Of `total` requests, `done` are answered; `work` is ahead."""
        self.forecast, self.total, self.done = Forecast(work), total, done
        self._since = self._clock()

    def correct(self, thought: Mapping[str, float], found: Mapping[str, float]) -> None:
        """Work that was thought to be so much is found to be so much."""
        for kind in {*thought, *found}:
            self.forecast.correct(kind, found.get(kind, 0.0) - thought.get(kind, 0.0))

    def start(self) -> None:
        """What follows is work."""
        self._since = self._clock()

    def answered(self, kind: str, work: float, count: int) -> None:
        """So many requests of a kind were answered since the last call."""
        now = self._clock()
        self.forecast.add(kind, work, now - self._since)
        self._since = now
        self.done += count


class _Told(Watch):
    """Tells somebody whenever something happens, and the console what a run before has answered."""

    def __init__(self, tell: Callable[[Watch], None], console: Console):
        super().__init__()
        self._tell = tell
        self._console = console

    def begin(self, work: Mapping[str, float], total: int, done: int) -> None:
        super().begin(work, total, done)
        if done:
            self._console.print(f"goes on: {done:,} of {total:,} requests are answered", highlight=False)
        self._tell(self)

    def answered(self, kind: str, work: float, count: int) -> None:
        super().answered(kind, work, count)
        self._tell(self)


@contextlib.contextmanager
def watched(console: Console, heed: Callable[[], None] = lambda: None) -> Iterator[Watch]:
    """A watch with a bar on the console, or where that is no terminal, with a line a minute.

    Args:
      heed: called whenever something happens; what it raises ends the evaluation.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    if not console.is_terminal:
        told = time.monotonic()

        def line(watch: Watch) -> None:
            nonlocal told
            heed()
            if time.monotonic() - told >= _PERIOD:
                told = time.monotonic()
                text = f"{watch.done:,} of {watch.total:,} requests, {left(watch.forecast.seconds)}"
                console.print(text, markup=False, highlight=False)

        yield _Told(line, console)
        return
    columns = (
        TextColumn("requests"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)

        def update(watch: Watch) -> None:
            heed()
            described = left(watch.forecast.seconds)
            bar.update(task, total=watch.total, completed=watch.done, description=described)

        yield _Told(update, console)


def left(seconds: float | None) -> str:
    """A time as people read it."""
    if seconds is None:
        return "time left: not known yet"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"
