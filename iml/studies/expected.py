"""How long a run may take: as runs of its shape took here, or as the planner reckons for machines to be rented."""

from __future__ import annotations

import statistics

from iml import configuration, train
from iml.studies.runs import Plan, Run
from iml.studies.work import TIMES, read_json, run_folder


def expected_seconds(plan: Plan, run: Run, topology: str | None = None) -> float | None:
    """Seconds of training, and of evaluation where it is known; None where nothing tells.

    Args:
      topology: machines that each run gets, "v5p:2x2x2" or "h200:8": training as the analytic planner expects it,
        half-way between all exchanges hidden and none. None for the median of finished runs of the same shape.
    """
    if topology is not None:
        return _planned(run, topology)
    alike = [other for other in plan.runs if other.shape == run.shape]
    times = [
        (found, other) for other in alike if (found := read_json(run_folder(plan.directory, other) / TIMES))
    ]
    steps = [found["train"] / other.steps for found, other in times if other.steps]
    if not steps:
        return None
    return run.steps * statistics.median(steps) + statistics.median(found["evaluate"] for found, _ in times)


def _planned(run: Run, topology: str) -> float:
    from iml.training import planner
    from iml.training.job import Job

    given = configuration.arguments(
        train.train, train.CONFIGURABLES, run.files, [*run.bindings, "RUN_DIR = 'run'"], train.FLAGS
    )
    names = ("model", "optimizer", "mesh", "rules", "steps", "batch_size", "length", "microbatches")
    names += ("segments", "target_budget", "tuning", "loss_chunk", "loss_scale")
    reckoned = planner.reckon(Job(**{name: given[name] for name in names}), topology)
    return run.steps * (reckoned.seconds + reckoned.serial_seconds) / 2
