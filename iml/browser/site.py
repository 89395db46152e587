"""The whole site: which page an address names, and what a reader may choose on it."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from collections.abc import Iterator, Mapping, Sequence

from iml.bench.mixing import Mixture
from iml.browser import pages
from iml.browser.catalogue import Catalogue
from iml.browser.instances import asked_instances, drawn_instances, first_draws
from iml.browser.packed import PackedRow, read_rows
from iml.browser.parts import choice, format_form, number
from iml.data.packing import RowLimits
from iml.data.prompts import PromptFormat
from iml.data.stream import TrainStream
from iml.data.vocabulary import Vocabulary
from iml.errors import InputError
from iml.markup import Markup

#: Files that pages need, with their types.
ASSETS = {"style.css": "text/css; charset=utf-8", "tasks.js": "text/javascript; charset=utf-8"}

_MOST_SHOTS, _MOST_INSTANCES, _MOST_STEPS, _MOST_SEED = 32, 50, 512, 2**63 - 1
#: Draws of the stream that are looked through for those of a task.
_MOST_DRAWS = 1 << 18


class NotFound(Exception):
    """There is no such page."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """The training stream whose rows are shown, as `TrainStream` takes it.

    Attributes:
      mixture: which tasks are trained on, and how much of each.
      batch_size: rows of the global batch.
      length: positions of a row; what is longer loses its head, on a task's page too.
      segments: documents that a row may hold.
      target_budget: tokens to be learnt that a row may hold; None for any number.
    """

    mixture: Mixture = Mixture()  # noqa: RUF009 (frozen)
    batch_size: int = 8
    length: int = 2048
    segments: int = 64
    target_budget: int | None = None

    @property
    def limits(self) -> RowLimits:
        return RowLimits(self.length, self.segments, self.target_budget)


@dataclasses.dataclass(frozen=True)
class Site:
    """What the browser shows.

    Attributes:
      catalogue: the tasks.
      prompt_format: how examples become prompts.
      vocabulary: makes tokens of prompts; None for text alone.
      stream_settings: the training stream.
      shots: numbers of demonstrations that the export shows side by side, the first being the server's own.
      seed: draws delimiters and demonstrations.
      instances: rows of a task on its page.
      packed_rows: packed rows on their page.
      most_characters: characters of a prompt that are shown; the middle of a longer one is left out.
    """

    catalogue: Catalogue
    prompt_format: PromptFormat
    vocabulary: Vocabulary | None
    stream_settings: Stream
    shots: Sequence[int] = (0,)
    seed: int = 1234
    instances: int = 3
    packed_rows: int = 2
    most_characters: int = 8_000

    @functools.cached_property
    def stream(self) -> TrainStream | None:
        """The training stream; None without a vocabulary.

        Raises:
          InputError: nothing is trained on, or a setting is wrong.
        """
        if self.vocabulary is None:
            return None
        settings = self.stream_settings
        return TrainStream(
            self.catalogue.store,
            self.vocabulary,
            settings.mixture,
            self.prompt_format,
            settings.batch_size,
            settings.length,
            self.seed,
            segments=settings.segments,
            target_budget=settings.target_budget,
        )

    def addresses(self) -> Iterator[str]:
        """Every page, by its path below the site's root."""
        yield from ("index.html", "tasks.html", "packing.html")
        yield from (f"categories/{scheme}.html" for scheme in self.catalogue.schemes)
        yield from (f"task/{name}.html" for name in self.catalogue.tasks)

    def page(self, path: str, query: Mapping[str, str] | None) -> str:
        """A page.

        Args:
          path: its path below the site's root, as text.
          query: what the reader chose, by name; None for a page that offers no choice.

        Raises:
          NotFound: there is no such page.
          InputError: the query asks for what there is not, or the store's files are damaged.
        """
        folder, _, name = path.removesuffix(".html").rpartition("/")
        if not path.endswith(".html"):
            raise NotFound(path)
        if not folder and name in ("index", "tasks", "packing"):
            if name == "packing":
                return self._packed(query)
            return (pages.overview_page if name == "index" else pages.tasks_page)(self.catalogue)
        if folder == "categories" and name in self.catalogue.schemes:
            return pages.categories_page(self.catalogue, name)
        if folder == "task" and name in self.catalogue.tasks:
            return self._task(name, query)
        raise NotFound(path)

    def _task(self, name: str, query: Mapping[str, str] | None) -> str:
        splits = self.catalogue.tasks[name].splits
        split = (query or {}).get("split", self.catalogue.tasks[name].default_split)
        if split not in splits:
            raise InputError(f"{name} has no split {split!r}", field="split")
        rows = splits[split].rows
        if query is None:
            views = [self._view(name, split, 0, self.instances, k, self.seed, "") for k in self.shots]
            form = None
        else:
            shots = _whole(query, "shots", self.shots[0], 0, _MOST_SHOTS)
            first = _whole(query, "first", 0, 0, rows - 1)
            count = _whole(query, "count", self.instances, 1, _MOST_INSTANCES)
            seed = _whole(query, "seed", self.seed, 0, _MOST_SEED)
            delimiter = query.get("delimiter", "")
            views = [self._view(name, split, first, count, shots, seed, delimiter)]
            delimiters = {str(i): repr(text) for i, text in enumerate(self.prompt_format.delimiters)}
            form = format_form(
                [
                    choice("split", "split", {key: key for key in splits}, split),
                    number("first row", "first", first, 0, rows - 1),
                    number("rows", "count", count, 1, _MOST_INSTANCES),
                    number("shots", "shots", shots, 0, _MOST_SHOTS),
                    choice("delimiter", "delimiter", {"": "drawn"} | delimiters, delimiter),
                    number("seed", "seed", seed, 0, _MOST_SEED),
                ],
            )
        views += self._drawn(name)
        return pages.task_page(
            self.catalogue, name, views, form, self.vocabulary is not None, self.most_characters
        )

    def _view(
        self, name: str, split: str, first: int, count: int, shots: int, seed: int, delimiter: str
    ) -> pages.View:
        prompt_format = self.prompt_format
        if delimiter:
            place = _whole({"delimiter": delimiter}, "delimiter", 0, 0, len(prompt_format.delimiters) - 1)
            prompt_format = dataclasses.replace(prompt_format, delimiters=(prompt_format.delimiters[place],))
        store = self.catalogue.store
        rows = range(first, min(first + count, store.tasks[name].splits[split].rows))
        title = f"Evaluation: {split}, {f'{shots}-shot' if shots else 'zero-shot'}"
        try:
            instances = asked_instances(
                store, name, split, rows, prompt_format, shots, seed, self.vocabulary,
                self.stream_settings.limits,
            )  # fmt: skip
        except InputError as error:
            return pages.View(title, (), str(error))
        return pages.View(title, instances)

    def _drawn(self, name: str) -> list[pages.View]:
        """The first draws of a task in the training stream, if it is trained on."""
        numbers = self._first_draws.get(name)
        if not numbers:
            return []
        title = "Training: the first draws"
        try:
            return [pages.View(title, drawn_instances(self.stream, numbers))]
        except InputError as error:
            return [pages.View(title, (), str(error))]

    @functools.cached_property
    def _first_draws(self) -> Mapping[str, Sequence[int]]:
        try:
            return first_draws(self.stream, self.instances, _MOST_DRAWS) if self.stream else {}
        except InputError:
            # The page of packed rows says why there is no stream.
            return {}

    def _packed(self, query: Mapping[str, str] | None) -> str:
        rows: list[PackedRow] = []
        note, form = "", None
        try:
            if self.stream is None:
                note = "Rows are made of tokens: name the folder of a vocabulary with --gin.VOCABULARY_DIR=FOLDER."
            else:
                lanes = self.stream.batch_size
                step = _whole(query or {}, "step", 0, 0, _MOST_STEPS)
                lane = _whole(query or {}, "lane", 0, 0, lanes - 1)
                form = None if query is None else _packed_form(step, lane, lanes)
                rows = read_rows(self.stream, lane, step, self.packed_rows)
        except InputError as error:
            note = str(error)
        return pages.packed_page(self.catalogue, rows, form, self.most_characters, note)


def asset(name: str) -> bytes:
    """A file that pages need, one of `ASSETS`."""
    return (importlib.resources.files("iml.browser") / "static" / name).read_bytes()


def _packed_form(step: int, lane: int, lanes: int) -> Markup:
    fields = [
        number("step", "step", step, 0, _MOST_STEPS),
        number("lane", "lane", lane, 0, lanes - 1),
    ]
    return format_form(fields)


def _whole(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """A whole number of the query, within bounds."""
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise InputError(f"must be a whole number from {low} to {high}, not {text[:40]!r}", field=name)
    return int(text)
