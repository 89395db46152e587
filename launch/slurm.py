"""Submits iml.train to SLURM: one process a GPU, saved before the time limit and requeued.

    python -m launch.slurm --nodes=8 --gpus=8 --time=24:00:00 --partition=gpu -- \\
        --gin_file=... --gin.RUN_DIR=/shared/runs/first

`--dry_run` prints the batch script. What it asks of SLURM is described in the manuals of sbatch, srun and scontrol.
"""

from __future__ import annotations

import argparse
import pathlib
import shlex
import shutil
import subprocess
import sys

from iml.errors import InputError
from launch.drive import PREEMPTED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "python -m launch.slurm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--nodes", type=int, required=True)
    made.add_argument("--gpus", type=int, required=True, help="GPUs a node, with one process each")
    made.add_argument("--time", required=True, help="time limit of one start, such as 24:00:00")
    made.add_argument("--name", default="iml")
    made.add_argument("--partition")
    made.add_argument("--account")
    made.add_argument("--cpus", type=int, help="CPUs a process")
    made.add_argument(
        "--notice", type=int, default=300, help="seconds before the time limit at which to save"
    )
    made.add_argument("--restarts", type=int, default=100, help="how often the job may be requeued")
    made.add_argument(
        "--setup", default="", help="shell line before the run, such as 'source .venv/bin/activate'"
    )
    made.add_argument(
        "--sbatch", action="append", default=[], help="a further #SBATCH option; may be repeated"
    )
    made.add_argument("--log_dir", default="logs", help="folder of the output")
    made.add_argument("--dry_run", action="store_true", help="print the script only")
    return made


def script(arguments: argparse.Namespace, words: list[str]) -> str:
    """The batch script.

    JAX reads addresses and numbers of processes from SLURM's variables (`--distributed`), and gives each process
    the one GPU of its local number; hence a task a GPU.
    """
    options = {
        "job-name": arguments.name,
        "nodes": arguments.nodes,
        "gpus-per-node": arguments.gpus,
        "ntasks-per-node": arguments.gpus,
        "time": arguments.time,
        "partition": arguments.partition,
        "account": arguments.account,
        "cpus-per-task": arguments.cpus,
        # Without B: the signal goes to the tasks, not to this script.
        "signal": f"TERM@{arguments.notice}",
        "output": f"{arguments.log_dir}/%x-%j.out",
        "open-mode": "append",
    }
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    lines += ["#SBATCH --requeue", *(f"#SBATCH {option}" for option in arguments.sbatch)]
    run = shlex.join(["python", "-u", "-m", "iml.train", "--distributed", *words])
    # The first that has saved must not end the others while they do; one that crashed ends them after a while.
    lines += steps(f"srun --kill-on-bad-exit=0 --wait=180 --label {run}", arguments.setup, arguments.restarts)
    return "\n".join(lines) + "\n"


def steps(command: str, setup: str, restarts: int) -> list[str]:
    """What a batch script does after its options: runs a command, and requeues the job where it wants that."""
    return [
        "set -u",
        # Where preemption signals this script too, it must outlive the tasks to requeue.
        "trap : TERM",
        *([setup] if setup else []),
        command,
        "status=$?",
        f"if [ $status -eq {PREEMPTED} ]; then",
        f"  if [ ${{SLURM_RESTART_COUNT:-0}} -lt {restarts} ]; then",
        '    echo "saved; requeueing"',
        # An element of an array by its number in it: the array's own number, which may be that of an element
        # too, means all of them.
        "    job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}}",
        '    scontrol requeue "${job:-$SLURM_JOB_ID}" && exit 0',
        "  fi",
        f'  echo "not requeued after ${{SLURM_RESTART_COUNT:-0}} restarts of {restarts}" >&2',
        "fi",
        "exit $status",
    ]


def main(argv: list[str] | None = None) -> int:
    """Submits the job.

    Returns:
      0, or 2 after a mistake.
    """
    given = sys.argv[1:] if argv is None else argv
    cut = given.index("--") if "--" in given else len(given)
    arguments = parser().parse_args(given[:cut])
    text = script(arguments, given[cut + 1 :])
    if arguments.dry_run:
        print(text, end="")
        return 0
    try:
        job = submit(text, arguments.log_dir)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"submitted job {job}; follow it: tail -F {arguments.log_dir}/*-{job}.out; end it: scancel {job}")
    return 0


def submit(text: str, log_dir: str) -> str:
    """Submits a batch script.

    Returns:
      The job's number.

    Raises:
      InputError: SLURM is not here, or refuses the script.
    """
    if shutil.which("sbatch") is None:
        raise InputError(
            "sbatch is not here", remedy="Run this on a login node, or see the script with --dry_run"
        )
    # SLURM loses a job's output, without a word, where the folder is missing.
    pathlib.Path(log_dir).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["sbatch", "--parsable"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"sbatch: {done.stderr.strip()}", remedy="See the script with --dry_run")
    return done.stdout.strip().split(";")[0]


if __name__ == "__main__":
    sys.exit(main())
