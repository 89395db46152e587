"""Speed and row density of the data engine, side by side with metaseq's next-fit packing on the same draws.

    python benchmarks/data_engine.py --vocabulary=DIR [--super_ni=DIR | --store=DIR] [--steps=100]

`--super_ni` is a folder of Super-NaturalInstructions task files, `--store` an example store that is ready;
without either the store is made of the project's own pages, cut to lengths like those of OPT-IML's Table 1.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from iml.bench.card import Example, TaskCard
from iml.bench.mixing import Mixture
from iml.data.prompts import PromptFormat
from iml.data.store import ExampleStore, write_index, write_task
from iml.data.stream import TrainStream
from iml.data.tokens import encode_prompts
from iml.data.vocabulary import Vocabulary

CONSOLE = Console()


def super_ni_tasks(folder: pathlib.Path) -> Iterator[tuple[str, list[Example]]]:
    """Every task file's instances."""
    for path in sorted(folder.glob("task*.json")):
        task = json.loads(path.read_text(encoding="utf-8"))
        definition = task["Definition"]
        instruction = definition if isinstance(definition, str) else definition[0]
        yield (
            path.stem,
            [
                Example(str(i), row["input"], row["output"][0], tuple(row["output"]), instruction=instruction)
                for i, row in enumerate(task["Instances"])
                if row["output"]
            ],
        )


def page_tasks(tasks: int = 100, rows: int = 100) -> Iterator[tuple[str, list[Example]]]:
    """Pieces of the project's own pages, with log-normal lengths of about 270 tokens in the mean."""
    rng = np.random.default_rng(0)
    root = pathlib.Path(__file__).resolve().parents[1]
    words = " ".join(path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.md"))).split(" ")
    for task in range(tasks):
        examples = []
        for row in range(rows):
            length = int(min(3000, 5 + rng.lognormal(4.3, 1.1)))
            start = int(rng.integers(0, max(1, len(words) - length)))
            source = " ".join(words[start : start + length])
            examples.append(Example(str(row), source, " ".join(words[start : start + 5]) or "yes"))
        yield f"pages{task}", examples


def make_store(folder: pathlib.Path, tasks: Iterator[tuple[str, list[Example]]]) -> None:
    """Writes tasks into a store."""
    entries = {}
    for name, examples in tasks:
        card = TaskCard(f"super_natural_instructions.{name}", "super_natural_instructions", "Other", "task")
        entries[card.name] = write_task(folder, card, {"train": examples}, "0" * 32)
    write_index(folder, entries, {})


def next_fit_fill(sizes: Sequence[int], length: int) -> float:
    """Density of metaseq's packing: a document that does not fit ends the row (`yield_src_tgt_blocks`)."""
    rows, used = 1, 0
    for size in sizes:
        if used + size > length:
            rows, used = rows + 1, 0
        used += size
    return sum(sizes) / (rows * length)


def measure(stream: TrainStream, threads: int, steps: int) -> dict[str, float]:
    """Seconds to the first batch, then packed tokens/s by wall clock and by CPU time, and the density."""
    start = time.perf_counter()
    batches = stream.batches(stream.initial_state(), threads=threads)
    next(batches)
    first = time.perf_counter() - start
    tokens = documents = rows = 0
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        batch, state = next(batches)
        tokens += int((batch["segment_ids"] > 0).sum())
        documents += int((batch["task_ids"] >= 0).sum())
        rows += len(batch["tokens"])
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    batches.close()
    start = time.perf_counter()
    resumed = stream.batches(state, threads=threads)
    next(resumed)
    resume = time.perf_counter() - start
    resumed.close()
    return {
        "first batch, s": first,
        "resume to next batch, s": resume,
        "tokens/s": tokens / seconds,
        "tokens per CPU second": tokens / cpu,
        "documents a row": documents / rows,
        "fill, %": 100 * tokens / (rows * stream.length),
    }


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--super_ni", type=pathlib.Path)
    parser.add_argument("--store", type=pathlib.Path)
    parser.add_argument("--split_scheme", default="opt_iml")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.store or pathlib.Path(folder)
        if not arguments.store:
            make_store(path, super_ni_tasks(arguments.super_ni) if arguments.super_ni else page_tasks())
        start = time.perf_counter()
        stream = TrainStream(
            ExampleStore(path),
            Vocabulary(arguments.vocabulary),
            Mixture(split_scheme=arguments.split_scheme),
            PromptFormat(),
            arguments.batch_size,
            arguments.length,
        )
        planned = time.perf_counter() - start
        columns = {f"{threads} threads": measure(stream, threads, arguments.steps) for threads in (0, 1, 2)}
        numbers = range(min(20_000, stream.plan.epoch_size))
        prompts = [prompt for _, prompt in stream.prompts(numbers)]
        documents = encode_prompts(stream.vocabulary, prompts, arguments.length)
        sizes = [document.positions for document in documents]
        table = Table(
            title=f"{len(stream.tasks)} tasks, {arguments.batch_size} x {arguments.length}, "
            f"mean document {np.mean(sizes):.0f} tokens (sd {np.std(sizes):.0f})"
        )
        for heading in ("", *columns):
            table.add_column(heading, justify="right")
        for name in next(iter(columns.values())):
            table.add_row(name, *(f"{figures[name]:,.2f}" for figures in columns.values()))
        CONSOLE.print(table)
        CONSOLE.print(f"open the store and plan: {planned:.2f} s")
        CONSOLE.print(
            f"next-fit (metaseq) on the same draws: {100 * next_fit_fill(sizes, arguments.length):.2f} % fill"
        )


if __name__ == "__main__":
    main()
