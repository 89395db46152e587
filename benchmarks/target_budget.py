"""A training step with its loss at all positions beside one with its loss at a budget of targets a row.

    python benchmarks/target_budget.py --store=DIR --vocabulary=DIR [--layers=4] [--width=256] [--length=1024]

Both take the same rows' worth of real packed batches; the vocabulary is OPT's. Shown are the median step, the fill
that the budget costs, and what a target token costs in the end.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
from rich.console import Console
from rich.table import Table

from iml.bench.mixing import Mixture
from iml.data.prompts import PromptFormat
from iml.data.store import ExampleStore
from iml.data.stream import TrainStream
from iml.data.vocabulary import Vocabulary
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training import feed, mesh, optimizer, step
from iml.training.rules import PartitionRules


def measure(arguments: argparse.Namespace, budget: int | None) -> dict[str, float]:
    """Median seconds a step, fill, and tokens and targets a second."""
    vocabulary = Vocabulary(arguments.vocabulary)
    stream = TrainStream(
        ExampleStore(arguments.store),
        vocabulary,
        Mixture(split_scheme=arguments.split_scheme),
        PromptFormat(),
        arguments.batch_size,
        arguments.length,
        target_budget=budget,
    )
    config = OPTConfig(
        vocab_size=vocabulary.padded_size,
        num_layers=arguments.layers,
        embed_dim=arguments.width,
        num_heads=max(1, arguments.width // 64),
        ffn_dim=4 * arguments.width,
        max_positions=arguments.length,
        dtype=arguments.dtype,
        dropout=0.0,
    )
    devices, network, adam = mesh.make_mesh(mesh.MeshConfig()), OPT(config), optimizer.AdamConfig()
    update = optimizer.make_optimizer(adam, 100, network.logical_axes())
    layout = step.lay_out(network, update, PartitionRules(), devices)
    schedule = optimizer.make_schedule(adam, 100)
    train_step = step.make_train_step(network, update, schedule, layout, devices)
    params = jax.jit(network.init, out_shardings=layout.shardings.params)(jax.random.key(0))
    state = step.begin(layout, update, params)
    seconds, tokens, targets = [], [], []
    fed = feed.feed(stream, stream.initial_state(), devices, threads=1)
    for number in range(arguments.steps + 1):
        batch = next(fed).batch
        began = time.perf_counter()
        state, metrics = jax.block_until_ready(train_step(state, {}, batch, jax.random.key(0)))
        if number:  # the first one compiles
            seconds.append(time.perf_counter() - began)
            tokens.append(float(metrics["tokens"]))
            targets.append(float(metrics["target_tokens"]))
    fed.close()
    median = statistics.median(seconds)
    return {
        "seconds a step": median,
        "fill": statistics.mean(tokens) / (arguments.batch_size * arguments.length),
        "tokens/s": statistics.mean(tokens) / median,
        "targets/s": statistics.mean(targets) / median,
    }


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True)
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--split_scheme", default="opt_iml")
    parser.add_argument("--dtype", default="float32")
    for name, default in (("layers", 4), ("width", 256), ("length", 1024), ("batch_size", 4), ("steps", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--budgets", default="0.5,0.375,0.25", help="shares of the length")
    arguments = parser.parse_args()
    found = {"all positions": measure(arguments, None)}
    for share in arguments.budgets.split(","):
        budget = int(float(share) * arguments.length)
        found[f"{budget} targets"] = measure(arguments, budget)
    table = Table("loss at", *next(iter(found.values())))
    for name, figures in found.items():
        table.add_row(name, *(f"{figure:,.3f}" for figure in figures.values()))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
