"""Reads tasks in their genuine formats and writes the example store that training and evaluation read.

    python -m iml.prepare --gin_file=runs/quickstart/prepare.gin

Every task is prepared once: a second run redoes only those whose files, reader or card changed. A task that
cannot be read is reported with file, line and reason, and left out; the others are not kept waiting.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import fnmatch
import functools
import importlib
import itertools
import json
import multiprocessing
import os
import pathlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from iml import configuration
from iml.beam import Beam, map_items
from iml.bench import contamination_decisions, registry
from iml.bench.card import Example
from iml.bench.contamination_decisions import LeaveOut, Without
from iml.bench.levels import load_split_scheme
from iml.bench.statistics import WORDS, statistics
from iml.data import store
from iml.data.measuring import measure, token_unit
from iml.data.taking import MAX_EXAMPLES, Take, caps_by_benchmark, take_split
from iml.data.vocabulary import Vocabulary
from iml.errors import InputError
from iml.fingerprints import hash_file, hash_reader
from iml.statistics_page import print_statistics, write_statistics

if TYPE_CHECKING:
    from rich.console import Console

#: Changes whenever the same files would be written differently.
_VERSION = 2
#: Tasks handed to a process at once.
_CHUNK = 8
#: Failures that the summary tells of one by one.
_SHOWN = 20
#: Names that a list of removed tasks shows.
_NAMED = 5
#: Seconds between two lines on progress where there is no terminal.
_PERIOD = 60
#: All of a task.
_ALL = Take()
#: Held while a worker registers its tasks; a runner may call from several threads.
_LOADING = threading.Lock()


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task: its entry, or why it was left out."""

    name: str
    entry: store.TaskEntry | None = None
    failure: str = ""
    reused: bool = False

    def to_json(self) -> dict[str, Any]:
        entry = self.entry and self.entry.to_json()
        return {"name": self.name, "entry": entry, "failure": self.failure, "reused": self.reused}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        entry = record["entry"] and store.TaskEntry.from_json(record["entry"])
        return cls(record["name"], entry, record["failure"], record["reused"])


def prepare(
    task_modules: Sequence[str],
    data_dir: str,
    store_dir: str,
    tasks: Sequence[str] = ("*",),
    processes: int = 0,
    strict: bool = False,
    max_examples: Mapping[str, int] | int | None = MAX_EXAMPLES,
    train_prompts: str = "all",
    seed: int = 1234,
    decisions: str = "",
    split_scheme: str = "opt_iml",
    vocabulary_dir: str = "",
    beam: Beam | None = None,
    dry_run: bool = False,
) -> Mapping[str, store.TaskEntry]:
    """Prepares every task that the modules register.

    Args:
      task_modules: names of modules with a function `register(data_dir)`, which registers tasks.
      data_dir: the folder of the task files, handed to every module; "" for what a module brings itself.
      store_dir: the store to write; tasks that it holds and that are not prepared this time are removed.
      tasks: patterns of the names of the tasks to prepare.
      processes: how many prepare at the same time; 0 for one a processor.
      strict: end with an error if any task had to be left out.
      max_examples: training examples of a task that are kept, at most: by benchmark, "*" for those not named,
        or one number for all; None for no cap. The default is the paper's.
      train_prompts: "all" stores every rendering of a training example; "pooled" only as many as there are
        examples, drawn from the pool of all.
      seed: seed of both choices.
      decisions: a decision file of iml.contaminate; what it drops is left out.
      split_scheme: name or path of the scheme whose sets the closing table counts.
      vocabulary_dir: a vocabulary's folder; then the table counts prompt lengths in its tokens, else in words.
      beam: prepare as a pipeline of Apache Beam instead of in processes of this machine.
      dry_run: print what would be prepared.

    Returns:
      The store's tasks by name. The store also holds the closing table as statistics.json and
      statistics.html.

    Raises:
      InputError: a module cannot be imported, none finds files, no task is left, or the disk is full; under
        `strict` also where one module finds no files or a task cannot be read.
    """
    from rich.console import Console

    began, console = time.monotonic(), Console()
    absent = load_tasks(task_modules, data_dir, strict)
    names = _chosen(tasks)
    leave_out = contamination_decisions.leave_out(decisions) if decisions else LeaveOut()
    dropped = {name: leave_out.tasks[name] for name in names if name in leave_out.tasks}
    names = [name for name in names if name not in dropped]
    if not names:
        raise InputError("the decisions leave out every task", path=decisions)
    scheme = load_split_scheme(split_scheme)
    caps = caps_by_benchmark(max_examples, map(_benchmark, registry.names()))
    takes = {
        name: Take(caps(_benchmark(name)), train_prompts, seed, leave_out.parts.get(name, Without()))
        for name in names
    }
    processes = max(1, min(processes or os.cpu_count() or 1, -(-len(names) // _CHUNK)))
    if dry_run:
        console.print(configuration.operative(), markup=False, highlight=False)
        counts = collections.Counter(map(_benchmark, names))
        for benchmark, count in counts.items():
            console.print(f"would prepare {count} tasks of {benchmark}, in {processes} processes")
        _tell_removed(console, _held(store_dir) - set(names) - set(dropped), "would remove")
        return {}
    outcomes: dict[str, Outcome] = {}
    try:
        prepared = _prepare_all(takes, store_dir, task_modules, data_dir, processes, beam)
        for outcome in _watched(prepared, len(names), console):
            outcomes[outcome.name] = outcome
        entries = {name: outcome.entry for name, outcome in outcomes.items() if outcome.entry}
        failures = absent | {name: outcome.failure for name, outcome in outcomes.items() if outcome.failure}
        if not entries:
            name, reason = next(iter(failures.items()))
            raise InputError(f"every task failed, {name} for one: {reason}")
        if strict and failures:
            name, reason = next(iter(sorted(failures.items())))
            raise InputError(
                f"{len(failures)} tasks failed, {name} for one: {reason}",
                remedy="Without prepare.strict they would be left out",
            )
        unit = WORDS
        if vocabulary_dir:
            vocabulary = Vocabulary(vocabulary_dir)
            unit = token_unit(vocabulary)
            entries = {name: measure(store_dir, entry, vocabulary) for name, entry in entries.items()}
        failures = {**failures, **dropped}
        removed = _held(store_dir) - set(entries) - set(failures)
        store.write_index(store_dir, entries, failures)
        found = statistics(entries.values(), scheme, unit)
        write_statistics(store_dir, found)
    except OSError as error:
        raise InputError(
            f"the store cannot be written ({error})", path=store_dir, remedy="Is the disk full?"
        ) from error
    reused = sum(outcome.reused for outcome in outcomes.values())
    print_statistics(console, found)
    _tell_failures(console, failures)
    _tell_removed(console, removed, "removed")
    console.print(
        f"{len(entries)} tasks in {store_dir}, {reused} of them unchanged; {time.monotonic() - began:.0f} s",
        highlight=False,
        soft_wrap=True,
    )
    return entries


def load_tasks(task_modules: Sequence[str], data_dir: str, strict: bool = False) -> dict[str, str]:
    """Imports task modules and lets them register their tasks.

    Returns:
      By name, the modules that registered nothing, and why: their family's data is not there.

    Raises:
      InputError: there is no such module, it has no `register`, or no module registers anything, under
        `strict` not even one.
    """
    absent: dict[str, InputError] = {}
    for name in task_modules:
        register = _import_register(name)
        from iml import seqio_bridge  # after what tells that SeqIO is not installed

        before = set(registry.names())
        try:
            register(os.fspath(data_dir))
            registered = set(registry.names()) - before
            if not registered:
                raise InputError(f"{name} registered no task", path=data_dir or None)
            seqio_bridge.registered_by(name, registered)
        except InputError as error:
            if strict:
                raise
            absent[name] = error
    if absent and len(absent) == len(task_modules):
        raise next(iter(absent.values()))
    return {name: str(error) for name, error in absent.items()}


def _import_register(name: str) -> Callable[[str], None]:
    """A task module's function `register`."""
    try:
        # First of all, since it silences TensorFlow's import.
        importlib.import_module("iml.seqio_bridge")
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{name}.".startswith(f"{error.name}."):
            raise InputError(
                f"{name} needs {error.name}",
                remedy='Install what prepares data: pip install -e ".[data]"',
            ) from error
        raise InputError(
            f"there is no module {name!r}",
            field="prepare.task_modules",
            remedy="It must be importable from the working directory",
        ) from error
    register = getattr(module, "register", None)
    if not callable(register):
        raise InputError(f"{name} has no function register(data_dir)", field="prepare.task_modules")
    return register


def prepare_task(name: str, store_dir: str, take: Take = _ALL) -> Outcome:
    """Prepares one registered task, unless the store holds it already; a task that cannot be read is told of.

    Args:
      take: what of it is prepared.

    Raises:
      OSError: the disk is full or not writable.
    """
    return find_prepared(name, store_dir, take) or _told_if_failed(name, _write, store_dir, take)


def find_prepared(name: str, store_dir: str, take: Take = _ALL) -> Outcome | None:
    """What the store holds of a task already, or why it cannot be prepared; None if it is to be prepared."""

    def find(name: str, store_dir: str, take: Take) -> Outcome | None:
        with _reading():
            fingerprint = _fingerprint(name, take)
        entry = store.find_task(store_dir, name, fingerprint)
        return entry and Outcome(name, entry, reused=True)

    return _told_if_failed(name, find, store_dir, take)


def prepare_chunk(
    names: Sequence[str],
    store_dir: str,
    task_modules: Sequence[str],
    data_dir: str,
    takes: Mapping[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    """`prepare_task` for several tasks on whatever machine this is; all that comes and goes is JSON-able.

    Args:
      takes: by task, what of it is prepared, as `Take.to_json` tells it.
    """
    with _LOADING:
        if not set(names) <= set(registry.names()):
            load_tasks(task_modules, data_dir)
    outcomes = (prepare_task(name, store_dir, Take.from_json(takes[name])) for name in names)
    return [outcome.to_json() for outcome in outcomes]


def _write(name: str, store_dir: str, take: Take) -> Outcome:
    from iml import seqio_bridge

    splits, files, _ = seqio_bridge.describe_source(name)
    examples: dict[str, Iterator[Example]] = {}
    underlying: dict[str, int] = {}
    for split in splits:
        read = functools.partial(_examples, name, split, files)
        examples[split], count = take_split(read, name, split, take)
        if count is not None:
            underlying[split] = count
    with _reading():
        card, fingerprint = registry.card(name), _fingerprint(name, take)
    return Outcome(name, store.write_task(store_dir, card, examples, fingerprint, underlying))


def _told_if_failed(name: str, act: Callable[..., Outcome | None], *arguments: Any) -> Outcome | None:
    try:
        return act(name, *arguments)
    except OSError:
        raise
    except InputError as error:
        return Outcome(name, failure=str(error))
    except Exception as error:  # Whatever a reader or a data set does must not end the others.
        first = (str(error).strip().splitlines() or [""])[0]
        return Outcome(name, failure=f"{type(error).__name__}: {first[:300]}{_place(name, error)}")


def _place(name: str, error: Exception) -> str:
    """Where in the module that reads a task an error arose; "" where it arose in none of its lines."""
    from iml import seqio_bridge

    files = {getattr(sys.modules.get(module), "__file__", "") for module in seqio_bridge.reader_modules(name)}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f" ({pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def _fingerprint(name: str, take: Take) -> str:
    """Hash over all that a task's prepared examples depend on."""
    from iml import seqio_bridge

    splits, files, told = seqio_bridge.describe_source(name)
    content = [hash_file(file) for file in (*files, *seqio_bridge.files_beside(name))]
    readers = [hash_reader(module) for module in seqio_bridge.reader_modules(name)]
    card = str(registry.card(name).to_json())
    taken = json.dumps(take.to_json())
    return store.hash_strings(str(_VERSION), card, taken, *splits, told, *content, *readers)


def _examples(name: str, split: str, files: Sequence[str]) -> Iterator[Example]:
    from iml import seqio_bridge

    with _reading():
        for number, fields in enumerate(seqio_bridge.read_fields(name, split)):
            try:
                yield Example.from_json(fields)
            except InputError as error:
                raise InputError(
                    f"example {number} of {split}: {error.problem}",
                    path=files[0] if len(files) == 1 else None,
                    field=error.field,
                    remedy=error.remedy,
                ) from error


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Tells an `OSError` of a task's own files apart from one of the store, which ends the run."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", path=error.filename) from error


def _prepare_all(
    takes: Mapping[str, Take],
    store_dir: str,
    task_modules: Sequence[str],
    data_dir: str,
    processes: int,
    beam: Beam | None,
) -> Iterator[Outcome]:
    """Outcomes of the tasks as they come; first those of the tasks that the store holds."""
    names = list(takes)
    if beam is not None:
        arguments = {
            "store_dir": os.fspath(store_dir),
            "task_modules": list(task_modules),
            "data_dir": os.fspath(data_dir),
            "takes": {name: take.to_json() for name, take in takes.items()},
        }
        chunks = _in_chunks(names)
        for found in map_items(beam, "iml.prepare:prepare_chunk", chunks, arguments, store_dir):
            yield from map(Outcome.from_json, found)
        return
    with concurrent.futures.ThreadPoolExecutor(processes) as threads:  # hashing files lets others run
        found = threads.map(find_prepared, names, itertools.repeat(store_dir), takes.values())
        standing = dict(zip(names, found, strict=True))
    yield from (outcome for outcome in standing.values() if outcome)
    names = [name for name, outcome in standing.items() if not outcome]
    processes = min(processes, -(-len(names) // _CHUNK))
    if processes <= 1:
        yield from (prepare_task(name, store_dir, takes[name]) for name in names)
        return
    # The server imports TensorFlow once and forks the workers, before any thread of ours exists.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["iml.seqio_bridge", *task_modules])
    start = functools.partial(
        concurrent.futures.ProcessPoolExecutor,
        mp_context=context,
        initializer=_start_worker,
        initargs=(tuple(task_modules), data_dir),
    )
    chunks = [{name: takes[name] for name in chunk} for chunk in _in_chunks(names)]
    unfinished = []
    with start(processes) as pool:
        futures = {pool.submit(_prepare_chunk, chunk, store_dir): chunk for chunk in chunks}
        try:
            for future in concurrent.futures.as_completed(futures):
                try:
                    yield from future.result()
                except concurrent.futures.process.BrokenProcessPool:
                    unfinished.append(futures[future])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    # One task has taken its process with it, and that all the others.
    with concurrent.futures.ThreadPoolExecutor(processes) as threads:
        for outcomes in threads.map(functools.partial(_prepare_apart, start, store_dir), unfinished):
            yield from outcomes


def _prepare_apart(
    start: Callable[[int], concurrent.futures.ProcessPoolExecutor], store_dir: str, takes: Mapping[str, Take]
) -> list[Outcome]:
    """Outcomes of some tasks from a process that is theirs alone; from one for each if one of them ends it."""
    try:
        with start(1) as pool:
            return pool.submit(_prepare_chunk, takes, store_dir).result()
    except concurrent.futures.process.BrokenProcessPool:
        if len(takes) > 1:
            parts = ({name: take} for name, take in takes.items())
            return [outcome for part in parts for outcome in _prepare_apart(start, store_dir, part)]
        [name] = takes
        return [Outcome(name, failure="its process was killed: is there too little memory?")]


def _start_worker(task_modules: Sequence[str], data_dir: str) -> None:
    load_tasks(task_modules, data_dir)


def _prepare_chunk(takes: Mapping[str, Take], store_dir: str) -> list[Outcome]:
    return [prepare_task(name, store_dir, take) for name, take in takes.items()]


def _in_chunks(names: Sequence[str]) -> list[list[str]]:
    return [list(names[start : start + _CHUNK]) for start in range(0, len(names), _CHUNK)]


def _benchmark(name: str) -> str:
    return name.partition(".")[0]


def _chosen(patterns: Sequence[str]) -> list[str]:
    names = registry.names()
    chosen = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        raise InputError(
            f"none of {len(names)} registered tasks matches {', '.join(patterns)}", field="prepare.tasks"
        )
    return chosen


def _watched(outcomes: Iterator[Outcome], total: int, console: Console) -> Iterator[Outcome]:
    """The outcomes, with a bar on the console, or where that is no terminal, with a line a minute."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if console.is_terminal:
        columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            yield from bar.track(outcomes, total=total)
        return
    told = time.monotonic()
    for number, outcome in enumerate(outcomes, 1):
        yield outcome
        if time.monotonic() - told >= _PERIOD:
            told = time.monotonic()
            console.print(f"{number:,} of {total:,} tasks", highlight=False)


def _tell_failures(console: Console, failures: Mapping[str, str]) -> None:
    for name, reason in sorted(failures.items())[:_SHOWN]:
        console.print(
            f"left out {name}: {reason}", markup=False, highlight=False, style="yellow", soft_wrap=True
        )
    if len(failures) > _SHOWN:
        console.print(f"and {len(failures) - _SHOWN} more, all told in {store.INDEX}", style="yellow")


def _held(store_dir: str) -> set[str]:
    """Names of the tasks that the store holds already."""
    try:
        return set(store.read_index(store_dir)[0])
    except InputError:
        return set()


def _tell_removed(console: Console, names: set[str], verb: str) -> None:
    if names:
        some = ", ".join(sorted(names)[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        text = f"{verb} {len(names)} tasks of the store that are not among those prepared: {some}"
        console.print(text, markup=False, highlight=False, style="yellow", soft_wrap=True)


if __name__ == "__main__":
    configuration.run(prepare, doc=__doc__, configurables=(Beam,))
