"""Plans a training run for a machine that is not at hand: does it fit, what does it send, how long does it take?

    python -m iml.precompile --topology=v5p:4x4x4 --gin_file=models/opt_30b.gin \\
        --gin_file=mixtures/opt_iml.gin --gin_file=runs/finetune.gin ...

It takes the gin files and bindings of `iml.train` and opens none of the folders they name. For TPUs it compiles the
run's own step ahead of time, which needs libtpu (`pip install -e ".[tpu]"`) and no TPU; for GPUs, `h200:8`, it
reckons from shapes.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from iml.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from iml.training.planner import Job, Plan

#: Suggestions shown.
_SHOWN = 8


def precompile(
    job: Job, topologies: Sequence[str], console: Console, suggest: bool = False, output: str | None = None
) -> list[Plan]:
    """Plans a job for machines one after the other, and prints the plans.

    Args:
      topologies: such as "v5p:4x4x4" or "h200:8".
      suggest: also rank meshes and remat policies by the analytic model.
      output: a file for the plans as JSON.

    Raises:
      InputError: an unknown machine, or a job whose mesh or batch does not go with one.
    """
    from iml.training import planner

    plans = []
    for topology in topologies:
        # A line, not a spinner: compilers take minutes, and output may go to a file.
        console.print(planner.announcement(job, topology), highlight=False)
        plans.append(planner.plan(job, topology))
        console.print(_described(plans[-1]))
        if suggest:
            console.print(_ranked(topology, planner.suggest(job, topology, _SHOWN)))
    if output:
        text = json.dumps([to_json(plan) for plan in plans], indent=1) + "\n"
        try:
            pathlib.Path(output).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot be written ({error.strerror})", path=output) from error
    return plans


def to_json(plan: Plan) -> dict[str, Any]:
    """A plan as plain values."""
    return {
        "topology": plan.topology,
        "chips": plan.chips,
        "mesh": dict(plan.mesh),
        "remat": plan.job.model.remat,
        "microbatches": plan.job.microbatches,
        "batch_size": plan.job.batch_size,
        "length": plan.job.length,
        "target_budget": plan.job.target_budget,
        "steps": plan.job.steps,
        "num_parameters": plan.job.model.num_parameters(),
        "by": "compiler" if plan.compiled else "analytic model",
        "fits": plan.fits,
        "memory": dict(plan.memory),
        "saved_activations": plan.saved,
        "exchanges": {each.kind: {"count": each.count, "bytes": each.sent} for each in plan.exchanges},
        "model_flops": plan.model_flops,
        "seconds_by_limit": plan.seconds_by_limit,
        "seconds": plan.seconds,
        "serial_seconds": plan.serial_seconds,
        "mfu": plan.mfu,
        "serial_mfu": plan.serial_mfu,
        "tokens_per_second": plan.tokens_per_second,
        "hours": plan.hours,
        "serial_hours": plan.serial_hours,
        "overflow": plan.overflow,
    }


def _described(plan: Plan) -> Table:
    from rich.table import Table

    shape = ", ".join(f"{name}={size}" for name, size in plan.mesh.items())
    by = "compiled for it" if plan.compiled else "by the analytic model, not compiled"
    table = Table(title=f"{plan.topology}: {plan.chips} chips, {by}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    job, used = plan.job, sum(plan.memory.values())
    table.add_row("parameters", f"{job.model.num_parameters():,}")
    table.add_row("batch", f"{job.batch_size} x {job.length}, {job.microbatches} microbatches")
    table.add_row("mesh, remat", f"{shape}, {job.model.remat}")
    for kind, size in plan.memory.items():
        table.add_row(f"  {kind}, a chip", f"{size / 2**30:,.2f} GiB")
    table.add_row("  of them saved activations, reckoned", f"{plan.saved / 2**30:,.2f} GiB")
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    table.add_row("memory", f"{used / 2**30:,.1f} of {plan.chip.memory / 2**30:,.1f} GiB: {verdict}")
    if plan.overflow:
        table.add_row("the compiler", plan.overflow)
    for exchange in plan.exchanges:
        told = f"{exchange.count:,} a step, {exchange.sent / 2**30:,.2f} GiB sent by a chip"
        table.add_row(f"  {exchange.kind}", told)
    table.add_row("arithmetic of a step", f"{plan.model_flops:.3g} FLOP")
    for limit, seconds in plan.seconds_by_limit.items():
        table.add_row(f"  bound by {limit}", f"{seconds:.3f} s")
    best, worst = (
        (plan.seconds, plan.mfu, plan.hours),
        (plan.serial_seconds, plan.serial_mfu, plan.serial_hours),
    )
    for meaning, (seconds, mfu, hours) in (("if all overlaps", best), ("if nothing overlaps", worst)):
        table.add_row(
            f"step {meaning}", f"{seconds:.3f} s, {mfu:.1%} MFU, {job.tokens / seconds:,.0f} tokens/s"
        )
        run = f"{hours:,.1f} hours, {hours * plan.chips:,.0f} chip-hours"
        table.add_row(f"{job.steps:,} steps {meaning}", run)
    return table


def _ranked(topology: str, plans: Sequence[Plan]) -> Table | str:
    from rich.table import Table

    if not plans:
        return f"no mesh of {topology} has room for this job: take more chips, or more microbatches"
    table = Table(title=f"{topology}: meshes that fit, by the analytic model")
    for heading in ("data", "fsdp", "tensor", "remat", "GiB a chip", "step, s", "MFU"):
        table.add_column(heading, justify="right")
    for plan in plans:
        sizes = [str(plan.mesh[axis]) for axis in ("data", "fsdp", "tensor")]
        memory = f"{sum(plan.memory.values()) / 2**30:,.1f}"
        seconds = f"{plan.seconds:.3f} to {plan.serial_seconds:.3f}"
        mfu = f"{plan.serial_mfu:.1%} to {plan.mfu:.1%}"
        table.add_row(*sizes, plan.job.model.remat, memory, seconds, mfu)
    return table


def main() -> None:
    """The command line: that of iml.train, of whose flags only those of planning are there."""
    from iml import configuration, train

    if not any(word.startswith(("--topology", "--help", "-h")) for word in sys.argv[1:]):
        sys.exit("error: field '--topology': must be given. Write --topology=v5p:4x4x4, or see --help")
    flags = {name: meaning for name, meaning in train.FLAGS.items() if name in train.PLANNING}
    configuration.run(train.train, doc=__doc__, configurables=train.CONFIGURABLES, flags=flags)


if __name__ == "__main__":
    main()
