"""Speed and memory of the 13-gram pass, beside the plain way with Python's sets of tuples.

    python benchmarks/contamination.py [--store=DIR] [--rows=200000] [--words=180] [--processes=2]

Without `--store` the texts are made up: Zipf-distributed words, lengths like those of OPT-IML's Table 1, some
training rows with a piece of an evaluation row in them. Prints rows/s of either way on the same rows, whether they
agree, the peak memory, and what the paper's 17.9 million examples would take.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pathlib
import resource
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table

from iml.bench.card import Example, TaskCard
from iml.bench.contamination_index import body
from iml.bench.contamination_text import words
from iml.contaminate import PAPER_EXAMPLES, contaminate
from iml.data.store import ExampleStore, write_index, write_task

CONSOLE = Console()


def made_up(rng: np.random.Generator, rows: int, length: int, vocabulary: np.ndarray) -> Iterator[Example]:
    """Rows of made-up words; every hundredth begins with the same words in every call."""
    shared = np.random.default_rng(1)
    for row in range(rows):
        size = int(min(2000, 5 + rng.lognormal(np.log(length) - 0.6, 1.1)))
        ranks = np.minimum(rng.zipf(1.3, size), len(vocabulary)) - 1
        text = " ".join(vocabulary[ranks])
        if row % 100 == 0:
            text = f"{' '.join(vocabulary[shared.integers(0, len(vocabulary), 20)])}, {text}"
        yield Example(str(row), text, "yes")


def make_store(folder: pathlib.Path, rows: int, length: int) -> None:
    """A store of 20 training tasks, `rows` together, and 10 evaluation tasks of 1,000 rows."""
    rng = np.random.default_rng(0)
    vocabulary = np.asarray([f"w{number:x}" for number in range(50_000)])
    entries = {}
    for number in range(20):
        card = TaskCard(f"train.t{number}", "train", "Question Answering")
        examples = made_up(rng, rows // 20, length, vocabulary)
        entries[card.name] = write_task(folder, card, {"train": examples}, "0" * 32)
    for number in range(10):
        card = TaskCard(f"eval.t{number}", "eval", "Textual Entailment")
        examples = made_up(rng, 1000, length, vocabulary)
        entries[card.name] = write_task(folder, card, {"test": examples}, "0" * 32)
    write_index(folder, entries, {})


def plain_way(store: ExampleStore, rows: int) -> tuple[float, int]:
    """Rows/s with sets of tuples, and how many pairs of tasks share an n-gram; on the first rows of each task."""
    evaluated: dict[tuple[str, ...], set[str]] = {}
    for name, entry in store.tasks.items():
        for split in {"validation", "test"} & set(entry.splits):
            for example in store.read_many(name, split, range(entry.splits[split].rows)):
                tokens = words(body(example))
                for start in range(len(tokens) - 12):
                    evaluated.setdefault(tuple(tokens[start : start + 13]), set()).add(name)
    began, seen, pairs = time.perf_counter(), 0, set()
    for name, entry in store.tasks.items():
        if "train" not in entry.splits:
            continue
        for example in store.read_many(name, "train", range(min(rows, entry.splits["train"].rows))):
            tokens = words(body(example))
            seen += 1
            for start in range(len(tokens) - 12):
                for other in evaluated.get(tuple(tokens[start : start + 13]), ()):
                    pairs.add((name, other))
    return seen / (time.perf_counter() - began), len(pairs)


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--words", type=int, default=180)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plain_rows", type=int, default=100, help="rows a task for the plain way")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.store or pathlib.Path(folder) / "store"
        if not arguments.store:
            make_store(path, arguments.rows, arguments.words)
        with contextlib.redirect_stdout(io.StringIO()):
            began = time.process_time()
            alone = contaminate(str(path), f"{folder}/out", processes=1)
            cpu = time.process_time() - began - alone["seconds"]["index"]
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            result = contaminate(str(path), f"{folder}/out", processes=arguments.processes)
        plain, pairs = plain_way(ExampleStore(path), arguments.plain_rows)
    seconds, rows = result["seconds"], result["training"]["rows"]
    table = Table("measure", "value", title="13-gram pass")
    facts = {
        "training rows": f"{rows:,}",
        "evaluation examples": f"{result['evaluation']['examples']:,}",
        "distinct evaluation 13-grams": f"{result['evaluation']['ngrams']:,}",
        "index on disk, shared by the processes": f"{result['evaluation']['index_bytes'] / 1e6:,.0f} MB",
        "making the index": f"{seconds['index']:.1f} s",
        f"scanning, {arguments.processes} processes": f"{result['rows_per_second']:,.0f} rows/s",
        "scanning, one process": f"{alone['rows_per_second']:,.0f} rows/s",
        "all but the index, by CPU time": f"{rows / cpu:,.0f} rows/s a core",
        "sets of tuples, one process": f"{plain:,.0f} rows/s",
        "pairs of tasks that share a 13-gram, by sets of tuples": f"{pairs:,} (part of the rows)",
        "pairs listed, below the threshold, templates only": ", ".join(
            f"{len(result[name]):,}" for name in ("listed", "below", "shared_instructions")
        ),
        "peak memory of a process that does everything": f"{memory / 1e3:,.0f} MB",
        "the paper's 17.9 million": f"{PAPER_EXAMPLES / result['rows_per_second'] / 60:,.0f} minutes",
    }
    for name, value in facts.items():
        table.add_row(name, value)
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
