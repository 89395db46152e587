"""Does the runs of a study: trains, evaluates, and leaves each result complete or not at all.

    python -m iml.studies.work PLAN [--run=NAME ...]

PLAN is what iml.study wrote. Any number of such processes may work on one plan, on one machine or on several that
share a file system: whoever holds the lock of a run's folder does it, and the kernel frees the lock of a process
that dies. A run that was cut off is gone on with by whoever takes it next; one that is finished is passed over. So
a job may be killed, requeued or started twice.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from iml import configuration
from iml import evaluate as evaluate_entry
from iml import train as train_entry
from iml.errors import InputError
from iml.studies import runs as runs_lib
from iml.studies.runs import RUNS, Evaluation, Run

TRAINED, FAILURE, LOG, SCORES = "trained.json", "failure.json", "log.txt", "scores.json"
#: Seconds of a run that was not cut off.
TIMES = "times.json"
#: Compiled programs, for runs that differ only in data and for later processes.
_PROGRAMS = "programs"

Say = Callable[[str], None]


def run_folder(directory: pathlib.Path, run: Run) -> pathlib.Path:
    return directory / RUNS / run.name


def results_folder(directory: pathlib.Path, run: str, evaluation: str) -> pathlib.Path:
    """Where the results of an evaluation of a run lie."""
    return directory / RUNS / run / "evaluation" / evaluation


def is_finished(directory: pathlib.Path, run: Run) -> bool:
    """Whether it is trained and has been asked everything."""
    folder = run_folder(directory, run)
    return (folder / TRAINED).exists() and all(
        (results_folder(directory, run.name, evaluation.name) / SCORES).exists()
        for evaluation in run.evaluations
    )


def read_failure(directory: pathlib.Path, run: Run) -> str | None:
    """Why its last try failed, or None."""
    record = read_json(run_folder(directory, run) / FAILURE)
    return record and record["error"]


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


def work(directory: pathlib.Path, plan: Sequence[Run], wanted: Sequence[str] | None, say: Say) -> None:
    """Does what is neither finished nor in other hands.

    Args:
      directory: folder of all studies and runs.
      plan: all runs of the study.
      wanted: names of the runs to do, which are waited for and tried even if they failed; None for all.
      say: told of each run that is done.

    Raises:
      SystemExit: as iml.train does where it is asked to end.
    """
    _keep_programs(directory)
    by_name = {run.name: run for run in plan}
    for run in plan:
        if wanted is not None and run.name not in wanted:
            continue
        if wanted is None and (is_finished(directory, run) or read_failure(directory, run)):
            continue
        _do(directory, run, by_name, say, waits=wanted is not None)


def _do(directory: pathlib.Path, run: Run, by_name: dict[str, Run], say: Say, waits: bool) -> None:
    """Does a run, after what it begins from; unless others have it, and it is not to be waited for."""
    folder = run_folder(directory, run)
    if run.begins_from is not None:
        _do(directory, by_name[run.begins_from], by_name, say, waits=True)
    with _locked(folder / ".lock", waits) as held:
        if not held or is_finished(directory, run):
            return
        (folder / FAILURE).unlink(missing_ok=True)
        began = time.monotonic()
        say(f"{run.title} ({run.name}): begins")
        try:
            with _logged(folder / LOG):
                _train(folder, run)
                trained = time.monotonic()
                for evaluation in run.evaluations:
                    _evaluate(directory, run, evaluation)
        except Exception as error:
            if isinstance(error, InputError):
                told = str(error).partition("\n  In call to")[0]
            else:
                told = f"{type(error).__name__}: {error}"
            write_json(folder / FAILURE, {"error": told, "traceback": traceback.format_exc()})
            say(f"{run.title} ({run.name}): failed: {told}")
        else:
            times = {"train": trained - began, "evaluate": time.monotonic() - trained}
            write_json(folder / TIMES, times)
            told = f"trained in {times['train']:.0f} s, evaluated in {times['evaluate']:.0f} s"
            say(f"{run.title} ({run.name}): {told}")


def _train(folder: pathlib.Path, run: Run) -> None:
    """Trains, or goes on training."""
    if (folder / TRAINED).exists():
        return
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
    if (output / SCORES).exists():
        return
    model = folder
    if evaluation.best:
        curve = _ask(evaluation, folder, output / "curve", ("Suite.split = 'validation'",), True)
        model = folder / "checkpoints" / str(curve["chosen"])
    _ask(evaluation, model, output, (), False)


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


@contextlib.contextmanager
def _locked(path: pathlib.Path, waits: bool) -> Iterator[bool]:
    """Holds a file's lock, if it can be had or is waited for; the kernel frees that of a process that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def _logged(path: pathlib.Path) -> Iterator[None]:
    """What is printed goes to a file, added to what is there."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("a", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(file))
        stack.enter_context(contextlib.redirect_stderr(file))
        yield


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of a worker."""
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
    arguments = parser.parse_args(argv)
    record = read_json(arguments.plan)
    if record is None:
        parser.error(f"{arguments.plan}: no such file; python -m iml.study --dry_run writes it")
    directory, plan = runs_lib.from_json(record)
    wanted = arguments.run
    if arguments.number is not None:
        if not 0 <= arguments.number < len(plan):
            parser.error(f"--number: the plan has {len(plan)} runs")
        wanted = [*(wanted or ()), plan[arguments.number].name]
    unknown = set(wanted or ()) - {run.name for run in plan}
    if unknown:
        parser.error(f"--run: not in the plan: {', '.join(sorted(unknown))}")
    work(directory, plan, wanted, lambda text: print(text, flush=True))
    failed = [run for run in plan if (wanted is None or run.name in wanted) and read_failure(directory, run)]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
