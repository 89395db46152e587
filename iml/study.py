"""Runs a study: one run for each setting, all asked the same, and a table of what differs.

    python -m iml.study --gin_file=studies/eps.gin

A run that is finished is never repeated, and one that was cut off is gone on with: a study may be killed and
started again at any time. Results stand in <studies_dir>/<name>/: study.html, study.md, tables.tex, table.csv.
Runs are shared by all studies of one folder. On other machines, or by a scheduler, any number of
`python -m iml.studies.work <studies_dir>/<name>/plan.json` may work on the same folder; see docs/studies.md.
"""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from iml import configuration
from iml.console import print_table
from iml.errors import InputError
from iml.studies import design as design_lib
from iml.studies.design import Base, Design

if TYPE_CHECKING:
    from rich.console import Console

    from iml.studies.runs import Plan

PLAN = "plan.json"
FLAGS = {
    "report": "only collect the results that are there, and write the report",
    "topology": "with --dry_run: expect the time of these machines, given to each run: v5p:2x2x2, or h200:8",
    "compare": configuration.Flag(
        "two settings, runs or folders of results: compare the second with the first", 2
    ),
}


def study(
    design: Design,
    studies_dir: str = "studies",
    workers: int = 1,
    dry_run: bool = False,
    report: bool = False,
    topology: str | None = None,
    compare: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Runs a study.

    Args:
      design: the study.
      studies_dir: folder of all studies and of their runs.
      workers: runs at a time on this machine, each with a device of its own; 1 runs them in this process.
      dry_run: list the runs with their tokens, arithmetic and expected time, and write `plan.json`.
      report: only write the report.
      topology: of which machines a dry run tells the time; None for runs of the same shape that were made here.
      compare: two settings, runs or folders of results to compare.

    Returns:
      What `results.json` holds; {} for a dry run or a comparison.

    Raises:
      InputError: a setting or a file is wrong.
      SystemExit: with status 1 where a run failed or was given up; with 75 where it was asked to end and wants
        another start.
    """
    from rich.console import Console

    from iml.studies import pool, runs, work

    if workers < 1:
        raise InputError(f"must be at least 1, not {workers}", field="study.workers")
    console = Console()
    directory = pathlib.Path(studies_dir)
    _prepare(console, design.base, makes=not (dry_run or report or compare is not None))
    plan = runs.expand(design, directory)
    work.write_json(plan.folder / PLAN, plan.to_json())
    if compare is not None:
        _compare(console, plan, *compare)
        return {}
    if dry_run:
        _list(console, plan, topology)
        return {}
    if not report:
        progress = _Progress(console, plan)
        for run in plan.runs:
            work.clear_failure(directory, run)
        if workers == 1:
            work.work(directory, plan.runs, None, progress.tell, waits=True)
        else:
            pool.run_workers(plan.folder / PLAN, workers, progress.update, progress.tell)
        progress.update()
    return _report(console, plan, complete=not report)


def _prepare(console: Console, base: Base, makes: bool) -> None:
    """Makes the store by the base's own files where it is missing, or says how it is made."""
    from iml.data.store import INDEX

    if not base.prepare or (pathlib.Path(base.store_dir) / INDEX).exists():
        return
    command = ["-m", "iml.prepare", *(f"--gin_file={name}" for name in base.prepare)]
    command.append(f"--gin.STORE_DIR={base.store_dir}")
    if not makes:
        remedy = f"Make it: {shlex.join(['python', *command])}"
        raise InputError("there is no example store here", path=base.store_dir, remedy=remedy)
    console.print(f"preparing {base.store_dir}", markup=False, highlight=False)
    # A process of its own: TensorFlow is not to lie in memory while models are trained.
    made = subprocess.run([sys.executable, *command], check=False, capture_output=True, text=True)
    if made.returncode:
        last = (made.stderr.strip() or made.stdout.strip()).splitlines()[-1:]
        raise InputError(f"iml.prepare failed: {' '.join(last)}", path=base.store_dir, field="Base.prepare")


class _Progress:
    """Tells of each run that is done, how many are, and how long the others may take."""

    def __init__(self, console: Console, plan: Plan):
        self._console, self._plan = console, plan
        self._done = self._count()
        self._first, self._began = self._done, time.monotonic()
        if self._done:
            self.tell(f"{self._done} of {len(plan.runs)} runs are finished already")

    def tell(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self.update()

    def update(self) -> int:
        """How many runs are finished; tells of it where that is new."""
        done = self._count()
        if done > self._done:
            self._done = done
            left = len(self._plan.runs) - done
            minutes = (time.monotonic() - self._began) / (done - self._first) * left / 60
            told = f"{done} of {len(self._plan.runs)} runs finished"
            told += f", about {minutes:.0f} min left" if left else ""
            self._console.print(told, markup=False, highlight=False, style="bold")
        return done

    def _count(self) -> int:
        from iml.studies.work import is_finished

        return sum(is_finished(self._plan.directory, run) for run in self._plan.runs)


def _list(console: Console, plan: Plan, topology: str | None) -> None:
    """The runs: tokens, arithmetic, and how long they may take."""
    from rich.table import Table

    from iml.studies.expected import expected_seconds
    from iml.studies.work import is_finished, read_failure

    table = Table("run", "setting", "steps", "tokens", "FLOPs", "expected", "state", title=plan.design.title)
    left, unknown = 0.0, 0
    for run in plan.runs:
        finished = is_finished(plan.directory, run)
        seconds = expected_seconds(plan, run, topology)
        if not finished:
            left, unknown = left + (seconds or 0.0), unknown + (seconds is None)
        state = "finished" if finished else "failed" if read_failure(plan.directory, run) else "to do"
        table.add_row(
            run.name,
            run.title,
            f"{run.steps:,}",
            f"{run.tokens:,}",
            f"{run.flops:.2g}",
            "–" if seconds is None else _duration(seconds),
            state,
        )
    print_table(console, table)
    tokens, arithmetic = sum(run.tokens for run in plan.runs), sum(run.flops for run in plan.runs)
    console.print(f"{len(plan.runs)} runs, {tokens:,} tokens, {arithmetic:.3g} FLOPs", highlight=False)
    if unknown:
        console.print(
            f"no time is expected of {unknown} runs: none of their shape has been made here; with --topology the"
            " planner tells that of machines",
            highlight=False,
        )
    else:
        console.print(f"to do: {_duration(left)}, one after the other", highlight=False)
    console.print(f"plan: {plan.folder / PLAN}", markup=False, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else (
        f"{seconds / 3600:.1f} h"
    )  # fmt: skip


def _report(console: Console, plan: Plan, complete: bool) -> dict[str, Any]:
    from rich.table import Table
    from rich.text import Text

    from iml.studies import report
    from iml.studies.work import is_finished, read_failure

    every, path = report.write_report(plan)
    for results in every:
        grid = report.summary(results)
        table = Table(title=Text(grid.title))
        for name in grid.head:
            table.add_column(Text(name))
        for row in grid.rows:
            table.add_row(*map(Text, row))
        print_table(console, table)
        console.print(Text(report.selection(results)))
    console.print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)
    failed = [(run, told) for run in plan.runs if (told := read_failure(plan.directory, run))]
    for run, told in failed:
        console.print(f"failed: {run.title}: {told}", markup=False, highlight=False, soft_wrap=True)
    missing = [run for run in plan.runs if not is_finished(plan.directory, run)]
    if len(missing) > len(failed):
        console.print(f"{len(missing) - len(failed)} runs are not finished", highlight=False)
    if failed or (missing and complete):
        raise SystemExit(1)
    return {"study": plan.design.name, "suites": [results.to_json() for results in every]}


def _compare(console: Console, plan: Plan, first: str, second: str) -> None:
    """The second less the first, for each suite."""
    from rich.table import Table
    from rich.text import Text

    from iml.evaluation.scores.comparison import compare
    from iml.studies.results import asked_suites, find_result

    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    settings = {row.name for row in plan.rows}
    if len(plan.design.seeds) > 1 and settings & {first, second}:
        tell(
            f"settings are compared by their runs of seed {plan.design.seeds[0]}; others may be named as runs"
        )
    asked = [asked_suites(plan, name) for name in (first, second)]
    if not set(asked[0]) & set(asked[1]):
        raise InputError(f"{first!r} and {second!r} are asked no suite in common", field="--compare")
    for suite in plan.design.suites:
        if not all(suite in suites for suites in asked):
            tell(f"{suite}: not compared, since not both are asked it")
            continue
        one, other = (find_result(plan, name, suite) for name in (first, second))
        found = compare((one.scores, one.predictions), (other.scores, other.predictions))
        table = Table("", "shots", "difference", "interval", "p", "p over tasks",
                      title=Text(f"{second} less {first}, {suite}"))  # fmt: skip
        rows = [(level, cells) for level, cells in found["levels"].items()]
        rows += [
            (f"{level}/{name}", cells)
            for level, categories in found["categories"].items()
            for name, cells in categories.items()
        ]
        for name, cells in rows:
            for shots, cell in cells.items():
                wider = cell.get("over_tasks", {}).get("p")
                table.add_row(
                    Text(name.replace("_", " ")),
                    shots,
                    f"{cell['difference']:+.1f}",
                    f"{cell['low']:+.1f} to {cell['high']:+.1f}",
                    f"{cell['p']:.3f}",
                    "–" if wider is None else f"{wider:.3f}",
                )
        print_table(console, table)
        console.print(f"{found['prompts']:,} prompts", highlight=False)


if __name__ == "__main__":
    configuration.run(study, doc=__doc__, configurables=design_lib.CONFIGURABLES, flags=FLAGS)
