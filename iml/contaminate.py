"""Finds the n-grams that training and evaluation tasks have in common.

    python -m iml.contaminate --gin_file=runs/real_data/contaminate.gin --gin.STORE_DIR=store/real

Reads a prepared example store. Writes into the output folder contamination.json, report.html with the pairs'
texts side by side, and decisions.jsonl: a line a pair, `keep` until a person writes something else, never
overwritten. `iml.prepare` honours it (`prepare.decisions`).
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iml import configuration
from iml.beam import Beam, map_items
from iml.bench import contamination, contamination_decisions
from iml.bench.contamination import Evidence, Overlap
from iml.bench.contamination_decisions import Decision
from iml.bench.contamination_index import Index, IndexBuilder, body
from iml.bench.levels import LEVELS, load_split_scheme
from iml.console import print_table
from iml.data.store import ExampleStore
from iml.errors import InputError
from iml.evaluation.reports import contamination_page
from iml.evaluation.requests import SPLITS

if TYPE_CHECKING:
    from rich.console import Console

#: Rows that are scanned at once; fewer where there would be less than some jobs for each process.
_PIECE, _JOBS = 4096, 8
#: What worker processes need, imported once for all of them.
_PRELOAD = ("iml.bench.contamination", "iml.configuration", "iml.data.store", "iml.evaluation.requests")
#: Training examples of the paper's bench (Table 1), for the projection.
PAPER_EXAMPLES = 17_900_000
#: Pairs that the summary on the screen lists.
_SHOWN = 15

#: Some rows of a task: (name, first row, one past the last).
Piece = tuple[str, int, int]


def contaminate(
    store_dir: str,
    output_dir: str,
    split_scheme: str = "opt_iml",
    levels: Sequence[str] = LEVELS,
    ngram: int = 13,
    threshold: float = 0.01,
    template_share: float = 0.5,
    template_words: int = 5,
    decisions: str = "",
    processes: int = 0,
    beam: Beam | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Compares every training task with every evaluation task.

    Args:
      store_dir: the example store that iml.prepare wrote.
      output_dir: folder of the results; every machine of a Beam runner must see it and the store.
      split_scheme: name or path of the scheme that says what is trained on.
      levels: levels of the evaluation tasks; all splits but train count as evaluated.
      ngram: words of an n-gram (paper, section 2.3: 13).
      threshold: a pair is listed if more than this share of the evaluation examples overlap (paper: 0.01).
      template_share: words in more than this share of the rows of a template belong to the template.
      template_words: how many of them must stand in a row.
      decisions: the decision file; by default decisions.jsonl in the output folder.
      processes: how many scan at the same time; 0 for one a processor.
      beam: scan as a pipeline of Apache Beam instead.
      dry_run: print what would be compared.

    Returns:
      What contamination.json holds.

    Raises:
      InputError: a setting, the store or the decision file is wrong, or there is nothing to compare.
    """
    from rich.console import Console

    began, console = time.monotonic(), Console()
    store, scheme = ExampleStore(store_dir), load_split_scheme(split_scheme)
    level = {name: scheme.level(entry.card) for name, entry in store.tasks.items()}
    trained = [name for name in store.tasks if level[name] == "supervised" and _rows(store, name, "train")]
    evaluated = [
        name for name in store.tasks if level[name] in levels and any(_rows(store, name, x) for x in SPLITS)
    ]
    for what, names in (("trained on", trained), ("evaluated", evaluated)):
        if not names:
            raise InputError(f"no task of the store is {what} under {split_scheme}", path=store_dir)
    rows = sum(_rows(store, name, "train") for name in trained)
    told = f"{len(trained)} training tasks, {rows:,} rows; {len(evaluated)} evaluation tasks"
    console.print(told, highlight=False)
    if dry_run:
        console.print(configuration.operative(), markup=False, highlight=False)
        return {}
    output = pathlib.Path(output_dir)
    decided_path = pathlib.Path(decisions) if decisions else output / "decisions.jsonl"
    if decided_path.exists():
        contamination_decisions.load(decided_path)  # A mistake in it shows before the work, not after.

    # A name of its own: workers that outlive a run keep what they have opened.
    index_dir = output / f".index-{uuid.uuid4().hex[:12]}"
    try:
        index = build_index(store, evaluated, IndexBuilder(ngram, template_share, template_words))
        index.save(index_dir)
        indexed = time.monotonic()
        found = _scan_all(store, trained, index_dir, processes, beam)
        seconds = time.monotonic() - indexed
        pairs = [
            _pair(store, index, level, train, name, overlap)
            for train, overlaps in found.items()
            for name, overlap in overlaps.items()
        ]
        pairs.sort(key=lambda pair: (LEVELS.index(pair["level"]), -pair["share"], -pair["whole_share"]))
        listed = [pair for pair in pairs if pair["share"] > threshold]
        for pair in listed:
            evidence = found[pair["train"]][pair["eval"]].evidence
            pair["excerpts"] = _excerpts(store, pair["train"], pair["eval"], evidence)
        result = {
            "settings": {
                "store": store.fingerprint,
                "split_scheme": str(split_scheme),
                "levels": list(levels),
                "ngram": ngram,
                "threshold": threshold,
                "template_share": template_share,
                "template_words": template_words,
            },
            "training": {"tasks": len(trained), "rows": rows},
            "evaluation": {
                "tasks": len(evaluated),
                "examples": sum(map(len, index.uids)),
                "without_own_ngrams": int(index.without.sum()),
                "ngrams": len(index.hashes),
                "index_bytes": index.nbytes,
            },
            "seconds": {"index": indexed - began, "scan": seconds},
            "rows_per_second": rows / seconds,
            "projected_seconds": PAPER_EXAMPLES * seconds / rows,
            "listed": listed,
            "below": [_brief(pair) for pair in pairs if 0 < pair["share"] <= threshold],
            "shared_instructions": [
                _brief(pair) for pair in pairs if not pair["share"] and pair["whole_share"] > threshold
            ],
        }
        uids = {
            (pair["train"], pair["eval"]): found[pair["train"]][pair["eval"]].train_uids for pair in listed
        }
        file = contamination_decisions.add(
            decided_path,
            [
                Decision(pair["train"], pair["eval"], pair["level"], round(pair["share"], 4))
                for pair in listed
            ],
        )
        contamination_decisions.add_train_examples(decided_path, uids)
        (output / "contamination.json").write_text(
            json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8", errors="replace"
        )
        page = contamination_page.page(result, {one.pair: one for one in file})
        (output / "report.html").write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"the results cannot be written ({error})", path=output_dir) from error
    finally:
        shutil.rmtree(index_dir, ignore_errors=True)
    _summarise(console, result, output, decided_path)
    return result


def build_index(store: ExampleStore, tasks: Sequence[str], builder: IndexBuilder) -> Index:
    """The index of some tasks' validation and test splits.

    Raises:
      InputError: a file of the store is damaged.
    """
    for name in tasks:
        builder.add(
            name, [store.read_many(name, split, range(_rows(store, name, split))) for split in SPLITS]
        )
    return builder.build()


def scan_pieces(pieces: Sequence[Piece], store_dir: str, index_dir: str) -> list[tuple[str, dict[str, Any]]]:
    """What some pieces of training tasks share with each evaluation task, JSON-able: (task, overlaps)."""
    store, index = _open(store_dir, index_dir)
    results = []
    for name, first, stop in pieces:
        found = contamination.scan(index, store.read_many(name, "train", range(first, stop)), first)
        results.append((name, {task: overlap.to_json() for task, overlap in found.items()}))
    return results


@functools.lru_cache(maxsize=1)
def _open(store_dir: str, index_dir: str) -> tuple[ExampleStore, Index]:
    return ExampleStore(store_dir), Index.open(pathlib.Path(index_dir))


def _scan_all(
    store: ExampleStore, tasks: Sequence[str], index_dir: pathlib.Path, processes: int, beam: Beam | None
) -> dict[str, dict[str, Overlap]]:
    """By training task, by evaluation task, what they share."""
    processes = processes or os.cpu_count() or 1
    jobs = list(_jobs({name: _rows(store, name, "train") for name in tasks}, _JOBS * processes))
    arguments = {"store_dir": os.fspath(store.path), "index_dir": os.fspath(index_dir)}
    parts: dict[str, dict[str, Overlap]] = {}
    for result in _run(jobs, arguments, processes, beam, index_dir.parent):
        for name, records in result:
            part = {task: Overlap.from_json(record) for task, record in records.items()}
            parts[name] = contamination.join([parts.get(name, {}), part])
    return {name: parts[name] for name in tasks}


def _run(
    jobs: Sequence[list[Piece]],
    arguments: Mapping[str, str],
    processes: int,
    beam: Beam | None,
    folder: pathlib.Path,
) -> Iterator[Any]:
    """What `scan_pieces` makes of each job, in any order."""
    processes = min(processes, len(jobs))
    if beam is not None:
        yield from map_items(beam, "iml.contaminate:scan_pieces", jobs, arguments, folder)
    elif processes == 1:
        yield from (scan_pieces(job, **arguments) for job in jobs)
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_PRELOAD))
        with concurrent.futures.ProcessPoolExecutor(processes, context) as pool:
            futures = [pool.submit(scan_pieces, job, **arguments) for job in jobs]
            try:
                for future in concurrent.futures.as_completed(futures):
                    yield future.result()
            except concurrent.futures.process.BrokenProcessPool as error:
                remedy = "Is there too little memory? Fewer processes need less"
                raise InputError("a process that compares was killed", remedy=remedy) from error
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    _open.cache_clear()


def _jobs(rows: Mapping[str, int], fewest: int) -> Iterator[list[Piece]]:
    """All rows of all tasks in pieces, small tasks together in one job."""
    size = max(1, min(_PIECE, sum(rows.values()) // fewest))
    job: list[Piece] = []
    room = size
    for name, count in rows.items():
        for first in range(0, count, size):
            stop = min(count, first + size)
            job.append((name, first, stop))
            room -= stop - first
            if room <= 0:
                yield job
                job, room = [], size
    if job:
        yield job


def _rows(store: ExampleStore, task: str, split: str) -> int:
    info = store.tasks[task].splits.get(split)
    return info.rows if info else 0


def _pair(
    store: ExampleStore, index: Index, level: Mapping[str, str], train: str, name: str, overlap: Overlap
) -> dict[str, Any]:
    of = len(index.uids[index.tasks.index(name)])
    cards = {"train": store.tasks[train].card, "eval": store.tasks[name].card}
    return {
        "train": train,
        "eval": name,
        "level": level[name],
        "share": len(overlap.examples) / of,
        "whole_share": len(overlap.whole) / of,
        "examples": len(overlap.examples),
        "of": of,
        "train_examples": len(overlap.train_uids),
        "categories": {side: card.category for side, card in cards.items()},
        "sources": {side: card.source for side, card in cards.items()},
    }


def _brief(pair: Mapping[str, Any]) -> dict[str, Any]:
    return {name: pair[name] for name in ("train", "eval", "level", "share", "whole_share")}


def _excerpts(
    store: ExampleStore, train: str, name: str, evidence: Sequence[Evidence]
) -> list[dict[str, Any]]:
    """The common text of the rows that share most: before, run and after, for either side."""
    excerpts = []
    for one in evidence:
        asked = store.read(name, SPLITS[one.split], one.row)
        learnt = store.read(train, "train", one.train_row)
        left, right, size = contamination.common_text(body(asked), body(learnt), one.words)
        if not size:  # It stands in the training task's instruction.
            left, right, size = contamination.common_text(body(asked), learnt.instruction, one.words)
        sides = {
            "eval": {"split": SPLITS[one.split], "uid": asked.uid, "text": list(left)},
            "train": {"split": "train", "uid": learnt.uid, "text": list(right)},
        }
        excerpts.append({"words": size, "ngrams": one.grams, **sides})
    return excerpts


def _summarise(
    console: Console, result: Mapping[str, Any], output: pathlib.Path, decided: pathlib.Path
) -> None:
    from rich.table import Table

    table = Table("evaluation task", "level", "training task", "examples", title="overlapping pairs")
    for pair in result["listed"][:_SHOWN]:
        share = f"{pair['share']:.1%} of {pair['of']:,}"
        table.add_row(pair["eval"], pair["level"].replace("_", " "), pair["train"], share)
    print_table(console, table)
    console.print(
        f"{len(result['listed'])} pairs over {result['settings']['threshold']:.0%}; "
        f"{result['rows_per_second']:,.0f} training rows/s, the paper's 17.9 million would take "
        f"{result['projected_seconds'] / 60:,.0f} minutes",
        highlight=False,
    )
    for path in (output / "report.html", decided):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    configuration.run(contaminate, doc=__doc__, configurables=(Beam,))
