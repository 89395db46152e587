"""The data engine beside SeqIO and metaseq's packing, on the same store: start, growth, speed, density, resume.

    python benchmarks/data_engine.py --store=DIR --vocabulary=DIR [--split_scheme=NAME] [--peer_tasks=300]

Every figure of start and memory is taken in a process of its own. SeqIO reads the same examples from the same
files, tokenises them with the same BPE through `numpy_function` and packs them with its own converter; it needs
the packages that preparing a store needs, and is left out with --peer_tasks=0.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

CONSOLE = Console(width=110)


# ------------------------------------------------------------------ what runs in a process of its own


def _stream(arguments: argparse.Namespace, **settings):
    """A stream over every `stride`-th supervised task."""
    from iml.bench.levels import load_split_scheme
    from iml.bench.mixing import Mixture
    from iml.data.prompts import PromptFormat
    from iml.data.store import ExampleStore
    from iml.data.stream import TrainStream
    from iml.data.vocabulary import Vocabulary

    store, tasks = ExampleStore(arguments.store), ("*",)
    if arguments.stride > 1:
        level = load_split_scheme(arguments.split_scheme).level
        names = sorted(
            name
            for name, entry in store.tasks.items()
            if "train" in entry.splits and level(entry.card) == "supervised"
        )
        tasks = tuple(names[:: arguments.stride])
    return TrainStream(
        store,
        Vocabulary(arguments.vocabulary),
        Mixture(split_scheme=arguments.split_scheme, tasks=tasks),
        PromptFormat(),
        arguments.batch_size,
        arguments.length,
        **settings,
    )


def start_iml(arguments: argparse.Namespace) -> dict[str, float]:
    """The first packed batch of the mixture of the first tasks."""
    stream = _stream(arguments)
    batches = stream.batches(stream.initial_state(), threads=arguments.threads)
    next(batches)
    seconds, memory = _since_start(arguments), _memory()
    batches.close()
    return {"tasks": len(stream.tasks), "seconds": seconds, "MB": memory}


def run_seqio(arguments: argparse.Namespace) -> dict[str, float]:
    """The first packed batch of SeqIO's mixture of the same tasks, then its speed and density."""
    import numpy as np

    from iml import seqio_bridge
    from iml.bench.card import TaskCard
    from iml.data.store import ExampleStore
    from iml.seqio_bridge import seqio

    seqio_bridge.set_vocabulary(arguments.vocabulary)
    store, names = ExampleStore(arguments.store), _stream(arguments).tasks

    def read(name: str, split: str):
        examples = store.read_many(name, split, range(rows[name]))
        return ({"source": ""} | example.to_json() for example in examples)

    # SeqIO reads the same store, so that reading files is no part of the comparison.
    rows = {name: store.tasks[name].splits["train"].rows for name in names}
    for name in names:
        seqio_bridge.add_task(
            TaskCard(name, "benchmark", "Misc."),
            source=seqio_bridge.PythonSource(functools.partial(read, name), ("train",)),
        )
    seqio.MixtureRegistry.add("all", [(name, float(rows[name])) for name in names])
    length = arguments.length
    dataset = seqio.get_dataset(
        "all",
        {"inputs": length - length // 4, "targets": length // 4},
        feature_converter=seqio.PrefixLMFeatureConverter(pack=True),
        dataset_split="train",
        shuffle=True,
        num_epochs=None,
        seed=0,
    )
    batches = dataset.batch(arguments.batch_size).as_numpy_iterator()
    next(batches)
    found = {"tasks": len(names), "seconds": _since_start(arguments), "MB": _memory()}
    tokens = places = 0
    began = time.perf_counter()
    for _ in range(arguments.steps):
        segments = next(batches)["decoder_segment_ids"]
        tokens += int(np.count_nonzero(segments))
        places += segments.size
    return found | {"tokens/s": tokens / (time.perf_counter() - began), "fill": tokens / places}


def run_iml(arguments: argparse.Namespace) -> dict[str, float]:
    """Speed and density of packed batches, made on the fly or from kept token ids."""
    stream = _stream(
        arguments,
        target_budget=arguments.target_budget or None,
        cache_dir=arguments.cache or None,
    )
    batches = stream.batches(stream.initial_state(), threads=arguments.threads)
    next(batches)
    tokens = learnt = places = 0
    began = time.perf_counter()
    for _ in range(arguments.steps):
        batch, _ = next(batches)
        tokens += int((batch["segment_ids"] > 0).sum())
        learnt += int(batch["loss_weights"].sum())
        places += batch["tokens"].size
    seconds = time.perf_counter() - began
    batches.close()
    return {"tokens/s": tokens / seconds, "fill": tokens / places, "targets": learnt / places}


def build_cache(arguments: argparse.Namespace) -> dict[str, float]:
    """Keeps token ids for as many batches as are measured, and times that."""
    from iml.data import token_cache

    stream = _stream(arguments)
    draws = 2 * arguments.steps * arguments.batch_size * 24
    began = time.perf_counter()
    kept = token_cache.build(stream, arguments.cache, draws)
    return {"draws": kept, "seconds": time.perf_counter() - began}


def resume(arguments: argparse.Namespace) -> dict[str, float]:
    """From a state at step 1,000,000 to the next batch, and 1,000 batches from it and from its middle."""
    import numpy as np

    from iml.data.stream import LaneState, StreamState

    stream, step = _stream(arguments, cache_dir=arguments.cache or None), 1_000_000
    size = stream.batch_size
    draws = 11 * step
    lanes = {
        lane: LaneState(lane + size * draws, tuple(lane + size * (draws - back) for back in range(30, 0, -1)))
        for lane in range(size)
    }
    text = json.dumps(StreamState(step, lanes).to_json())
    began = time.perf_counter()
    batches = stream.batches(StreamState.from_json(json.loads(text)), threads=2)
    first = next(batches)
    seconds = time.perf_counter() - began
    half = arguments.far_steps // 2
    for _ in range(half - 1):
        middle = next(batches)[1]
    again = stream.batches(StreamState.from_json(json.loads(json.dumps(middle.to_json()))), threads=1)
    same = all(
        all(np.array_equal(one[name], other[name]) for name in one)
        for (one, _), (other, _) in ((next(batches), next(again)) for _ in range(arguments.far_steps - half))
    )
    batches.close()
    again.close()
    assert first[1].step == step + 1
    return {"seconds": seconds, "state, bytes": len(text), "same batches": float(same)}


def _since_start(arguments: argparse.Namespace) -> float:
    return time.time() - arguments.began


def _memory() -> float:
    # Not getrusage: its peak is inherited from the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


# ----------------------------------------------------------------------------------- the comparison


def _measure(function: str, arguments: argparse.Namespace, runs: int = 1, **changes) -> dict[str, float]:
    """Medians over runs of one of the functions above, each run a process of its own."""
    given = {**vars(arguments), "only": function} | changes
    found = []
    for _ in range(runs):
        command = [sys.executable, __file__, f"--began={time.time()}"]
        command += [f"--{name}={value}" for name, value in given.items() if name != "began"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: statistics.median(run[name] for run in found) for name in found[0]}


def next_fit_fill(sizes: Sequence[int], length: int) -> float:
    """Density of metaseq's packing: a document that does not fit ends the row (`yield_src_tgt_blocks`)."""
    rows, used = 1, 0
    for size in sizes:
        if used + size > length:
            rows, used = rows + 1, 0
        used += size
    return sum(sizes) / (rows * length)


def _row(table: Table, what: str, figures: Mapping[str, float], *names: str) -> None:
    table.add_row(what, *(f"{figures[name]:,.2f}" if name in figures else "" for name in names))


def compare(arguments: argparse.Namespace) -> None:
    """Measures and prints the tables."""
    stream = _stream(arguments)
    documents = stream.make_documents(range(min(20_000, stream.plan.epoch_size)))
    sizes = [placed.document.positions for placed in documents]
    CONSOLE.print(
        f"{len(stream.tasks)} tasks, mean document {statistics.mean(sizes):.0f} tokens "
        f"(sd {statistics.stdev(sizes):.0f}), batches of {arguments.batch_size} x {arguments.length}"
    )
    CONSOLE.print(
        f"fill of metaseq's next-fit on the same draws: {next_fit_fill(sizes, arguments.length):.2%}"
    )

    start = Table(title="process start to the first packed batch")
    for heading in ("", "tasks", "seconds", "MB"):
        start.add_column(heading, justify="right")
    columns = ("tasks", "seconds", "MB")
    for count in (100, len(stream.tasks)):
        stride = max(1, len(stream.tasks) // count)
        _row(start, "iml", _measure("start_iml", arguments, arguments.runs, stride=stride), *columns)
    speed = Table(title="packed tokens a second")
    for heading in ("", "tokens/s", "fill", "targets"):
        speed.add_column(heading, justify="right")
    columns = ("tokens/s", "fill", "targets")
    if arguments.peer_tasks:
        stride = max(1, len(stream.tasks) // arguments.peer_tasks)
        peer = _measure("run_seqio", arguments, stride=stride)
        ours = _measure("start_iml", arguments, arguments.runs, stride=stride)
        _row(start, "iml", ours, "tasks", "seconds", "MB")
        _row(start, "SeqIO, the same", peer, "tasks", "seconds", "MB")
        ours = _measure("run_iml", arguments, arguments.runs, stride=stride)
        _row(speed, f"SeqIO, {peer['tasks']:.0f} tasks", peer, *columns)
        _row(speed, f"iml, {peer['tasks']:.0f} tasks", ours, *columns)
        CONSOLE.print(
            f"iml makes {ours['tokens/s'] / peer['tokens/s']:.1f} times SeqIO's packed tokens a second"
        )
    for threads in (0, 1, 2):
        figures = _measure("run_iml", arguments, arguments.runs, threads=threads)
        _row(speed, f"on the fly, {threads} threads", figures, *columns)
    with tempfile.TemporaryDirectory() as folder:
        cache = {"cache": folder}
        built = _measure("build_cache", arguments, **cache)
        for budget in (0, 1024, 768, 512, 384):
            figures = _measure("run_iml", arguments, arguments.runs, target_budget=budget, **cache)
            _row(speed, f"kept ids, {f'{budget} targets' if budget else 'any targets'}", figures, *columns)
    CONSOLE.print(start)
    CONSOLE.print(speed)
    CONSOLE.print(f"token ids of {built['draws']:,.0f} draws kept in {built['seconds']:.1f} s")
    far = _measure("resume", arguments)
    same = "equal" if far["same batches"] else "NOT EQUAL"
    CONSOLE.print(
        f"from a state at step 1,000,000 of {far['state, bytes']:,.0f} bytes to the next batch: "
        f"{far['seconds']:.2f} s; {arguments.far_steps} batches on: {same} when resumed half-way"
    )


_FUNCTIONS = {
    function.__name__: function for function in (start_iml, run_seqio, run_iml, build_cache, resume)
}


def main() -> None:
    """Parses the command line; `--only` and what follows it are for the processes that this one starts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True, type=pathlib.Path)
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--split_scheme", default="opt_iml")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=100, help="batches timed")
    parser.add_argument("--far_steps", type=int, default=1000, help="batches made from step 1,000,000")
    parser.add_argument("--runs", type=int, default=3, help="runs of which the median is shown")
    parser.add_argument("--peer_tasks", type=int, default=300, help="tasks of the comparison with SeqIO")
    for name, default in (("only", ""), ("cache", "")):
        parser.add_argument(f"--{name}", default=default, help=argparse.SUPPRESS)
    for name, default in (("threads", 2), ("target_budget", 0), ("stride", 1)):
        parser.add_argument(f"--{name}", type=int, default=default, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, default=time.time(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        CONSOLE.print(json.dumps(_FUNCTIONS[arguments.only](arguments)), soft_wrap=True, highlight=False)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
