"""Does the runs of a study: trains, evaluates, and leaves each result complete or not at all.

    python -m iml.studies.work PLAN [--run=NAME ...]

PLAN is what iml.study wrote. Any number of such processes may work on one plan, on one machine or on several that
share a file system: whoever holds the lock of a run's folder does it, and the kernel frees the lock of a process
that dies. A run that was cut off is gone on with by whoever takes it next; one that is finished is passed over. So
a job may be killed, requeued or started twice.

Ends with status 0 when nothing is left to do, 1 where a run failed, 2 after a mistake of the user's, and 75 where
it was asked to end (SIGTERM) and wants another start.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from iml import configuration
from iml import evaluate as evaluate_entry
from iml import train as train_entry
from iml.errors import InputError
from iml.studies import process
from iml.studies import runs as runs_lib
from iml.studies.answers import CURVE, read_failures
from iml.studies.locks import locked
from iml.studies.runs import RUNS, Evaluation, Run

TRAINED, FAILURE, LOG = "trained.json", "failure.json", "log.txt"
#: Seconds of a run that was not cut off.
TIMES = "times.json"
#: Held by whoever does the run.
_LOCK = ".lock"
#: Compiled programs, for runs that differ only in data and for later processes.
_PROGRAMS = "programs"
_CHECKPOINTS, _EVALUATIONS = "checkpoints", "evaluation"

Say = Callable[[str], None]


def run_folder(directory: pathlib.Path, run: Run) -> pathlib.Path:
    return directory / RUNS / run.name


def results_folder(directory: pathlib.Path, run: str, evaluation: str) -> pathlib.Path:
    """Where the results of an evaluation of a run lie."""
    return directory / RUNS / run / _EVALUATIONS / evaluation


def is_finished(directory: pathlib.Path, run: Run) -> bool:
    """Whether it is trained and has been asked everything, and no task has failed."""
    folder = run_folder(directory, run)
    return (folder / TRAINED).exists() and all(
        _is_answered(directory, run, evaluation) for evaluation in run.evaluations
    )


def _is_answered(directory: pathlib.Path, run: Run, evaluation: Evaluation) -> bool:
    return read_failures(results_folder(directory, run.name, evaluation.name)) == {}


def read_failure(directory: pathlib.Path, run: Run) -> str | None:
    """Why its last try failed, or None."""
    record = read_json(run_folder(directory, run) / FAILURE)
    return record and record["error"]


def is_settled(directory: pathlib.Path, run: Run) -> bool:
    """Whether nobody is to do it: it is finished, or has failed."""
    return is_finished(directory, run) or read_failure(directory, run) is not None


def read_json(path: pathlib.Path) -> Any:
    """What a file holds; None where it is missing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def write_json(path: pathlib.Path, record: Any) -> None:
    """Replaces the file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def work(
    directory: pathlib.Path,
    plan: Sequence[Run],
    wanted: Sequence[str] | None,
    say: Say,
    waits: bool = False,
    note: pathlib.Path | None = None,
) -> None:
    """Does what is not finished.

    Args:
      directory: folder of all studies and runs.
      plan: all runs of the study.
      wanted: names of the runs to do, tried even if they have failed before; None for all that have not.
      say: told of each run that begins or ends.
      waits: whether to wait for runs that others are doing, and do what these leave; else they are passed over.
      note: a file that holds the name of the run at hand, and outlives this process if it dies; None for none.

    Raises:
      SystemExit: with status 75, where the process was asked to end.
      InputError: the file system has no locks.
    """
    _keep_programs(directory)
    by_name = {run.name: run for run in plan}
    for name in wanted or ():
        clear_failure(directory, by_name[name])
    with process.ends_when_asked():
        # Others' runs last: what nobody does comes first.
        for waiting in (False, True) if waits else (False,):
            for run in plan:
                if wanted is None or run.name in wanted:
                    _do(directory, run, by_name, say, waiting, note)


def write_failure(directory: pathlib.Path, run: Run, told: str, details: str = "") -> None:
    """Notes why a run failed; nobody tries it again until the note is gone."""
    write_json(run_folder(directory, run) / FAILURE, {"error": told, "traceback": details})


def clear_failure(directory: pathlib.Path, run: Run) -> None:
    (run_folder(directory, run) / FAILURE).unlink(missing_ok=True)


def _do(
    directory: pathlib.Path,
    run: Run,
    by_name: dict[str, Run],
    say: Say,
    waits: bool,
    note: pathlib.Path | None,
) -> None:
    """Does a run, after what it begins from."""
    if is_settled(directory, run):
        return
    if run.begins_from is not None:
        first = by_name[run.begins_from]
        _do(directory, first, by_name, say, waits, note)
        if told := read_failure(directory, first):
            write_failure(directory, run, f"begins from {first.title} ({first.name}), which failed: {told}")
            return
        if not is_finished(directory, first):
            return
    title = f"{run.title} ({run.name})"
    tell = functools.partial(say, f"{title}: waits for the process that does it") if waits else None
    with locked(run_folder(directory, run) / _LOCK, tell) as held:
        if held and not is_settled(directory, run):
            with process.noted(note, run.name):
                _do_held(directory, run, say)


def _do_held(directory: pathlib.Path, run: Run, say: Say) -> None:
    folder = run_folder(directory, run)
    anew = not any((folder / name).exists() for name in (_CHECKPOINTS, TRAINED, _EVALUATIONS))
    began = time.monotonic()
    say(f"{run.title} ({run.name}): begins")
    try:
        with process.logged(folder / LOG):
            _train(folder, run)
            trained = time.monotonic()
            for evaluation in run.evaluations:
                _evaluate(directory, run, evaluation)
            _check_answers(directory, run)
    except Exception as error:
        if isinstance(error, InputError):
            told = str(error).partition("\n  In call to")[0]
        else:
            told = f"{type(error).__name__}: {error}"
        write_failure(directory, run, told, traceback.format_exc())
        say(f"{run.title} ({run.name}): failed: {told}")
    else:
        times = {"train": trained - began, "evaluate": time.monotonic() - trained}
        # It may have been given up meanwhile, after other workers had died at it.
        clear_failure(directory, run)
        if anew:
            write_json(folder / TIMES, times)
        told = f"trained in {times['train']:.0f} s, evaluated in {times['evaluate']:.0f} s"
        say(f"{run.title} ({run.name}): {told}")


def _train(folder: pathlib.Path, run: Run) -> None:
    """Trains, or goes on training; again where the parameters were removed and something is left to ask them."""
    from iml.training.checkpoints import complete_steps

    if (folder / TRAINED).exists() and complete_steps(folder):
        return
    runs_lib.check_training(run)
    train = configuration.configure(
        train_entry.train,
        train_entry.CONFIGURABLES,
        run.files,
        [*run.bindings, f"RUN_DIR = {str(folder)!r}"],
        flags=train_entry.FLAGS,
    )
    write_json(folder / TRAINED, train())


def _evaluate(directory: pathlib.Path, run: Run, evaluation: Evaluation) -> None:
    folder = run_folder(directory, run)
    output = results_folder(directory, run.name, evaluation.name)
    if _is_answered(directory, run, evaluation):
        return
    runs_lib.check_evaluation(evaluation)
    model = folder
    if evaluation.best:
        curve = _ask(evaluation, folder, output / CURVE, ("Suite.split = 'validation'",), True)
        model = folder / _CHECKPOINTS / str(curve["chosen"])
    _ask(evaluation, model, output, (), False)


def _check_answers(directory: pathlib.Path, run: Run) -> None:
    """What a task's failure may come from, such as a file that could not be read, may be gone at the next try."""
    for evaluation in run.evaluations:
        output = results_folder(directory, run.name, evaluation.name)
        if failures := read_failures(output):
            name, told = next(iter(failures.items()))
            problem = f"{len(failures)} tasks failed, {name} for one: {told}"
            raise InputError(problem, path=output, remedy="The next start tries them again")


def _ask(
    evaluation: Evaluation,
    model: pathlib.Path,
    output: pathlib.Path,
    bindings: Sequence[str],
    all_checkpoints: bool,
) -> dict[str, Any]:
    folders = (f"MODEL = {str(model)!r}", f"OUTPUT_DIR = {str(output)!r}")
    ask = configuration.configure(
        evaluate_entry.evaluate,
        evaluate_entry.CONFIGURABLES,
        evaluation.files,
        [*evaluation.bindings, *bindings, *folders],
        flags=evaluate_entry.FLAGS,
    )
    return ask(all_checkpoints=all_checkpoints)


def _keep_programs(directory: pathlib.Path) -> None:
    """Shares compiled programs between runs and processes."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str((directory / _PROGRAMS).resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of a worker.

    Returns:
      The status to end with.
    """
    parser = argparse.ArgumentParser(
        "python -m iml.studies.work",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("plan", type=pathlib.Path, help="plan.json of a study")
    parser.add_argument(
        "--run", action="append", metavar="NAME", help="do this run only; may be repeated; default: all"
    )
    parser.add_argument("--number", type=int, help="do the run of this number, counted from 0, only")
    parser.add_argument(
        "--wait", action="store_true", help="wait for runs that others are doing, and do what these leave"
    )
    parser.add_argument(
        "--attached", action="store_true", help="end as after SIGTERM when standard input is closed"
    )
    parser.add_argument(
        "--note", type=pathlib.Path, metavar="FILE", help="keep the name of the run at hand in this file"
    )
    arguments = parser.parse_args(argv)
    if arguments.attached:
        process.end_with(sys.stdin.fileno())
    try:
        directory, plan = runs_lib.read_plan(arguments.plan)
        wanted = arguments.run
        if arguments.number is not None:
            if not 0 <= arguments.number < len(plan):
                raise InputError(f"the plan has {len(plan)} runs", field="--number")
            wanted = [*(wanted or ()), plan[arguments.number].name]
        unknown = set(wanted or ()) - {run.name for run in plan}
        if unknown:
            raise InputError(f"not in the plan: {', '.join(sorted(unknown))}", field="--run")
        # One that is named is waited for: its job is not to end well before it is done.
        waits = arguments.wait or wanted is not None
        work(directory, plan, wanted, lambda text: print(text, flush=True), waits, arguments.note)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    mine = [run for run in plan if wanted is None or run.name in wanted]
    return 1 if any(read_failure(directory, run) for run in mine) else 0


if __name__ == "__main__":
    sys.exit(main())
