"""Submits the runs of a study that are not finished as jobs of a scheduler.

    python -m iml.study --gin_file=studies/eps.gin --dry_run
    python -m launch.studies studies/eps/plan.json --scheduler=slurm --time=4:00:00 --at_once=8
    python -m iml.study --gin_file=studies/eps.gin --report

Each job is `python -m iml.studies.work` for one run: what is finished is passed over, what was cut off is gone on
with, and a job that is started twice does no harm. All machines share a file system with locks, on which this is
called in the folder that iml.study was called in; but for Cloud TPU, where a bucket holds the runs.

`--dry_run` prints what would be submitted. What it asks of SLURM is described in the manual of sbatch (job arrays).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

from iml.errors import InputError
from iml.studies import work
from iml.studies.runs import RUNS, Run, read_plan
from launch import slurm

SCHEDULERS = {
    "slurm": "a job array",
    "ray": "tasks of a Ray cluster, waited for",
    "sky": "SkyPilot managed jobs (launch/sky/study.yaml)",
    "tpu": "commands of launch.tpu, to be run one by one: a slice of one worker each",
}
_SKY = pathlib.Path(__file__).with_name("sky") / "study.yaml"


@dataclasses.dataclass(frozen=True)
class Jobs:
    """What is to be submitted.

    Attributes:
      plan: what the jobs read.
      directory: folder of all studies and runs.
      runs: of the study.
      left: those that are not finished.
    """

    plan: pathlib.Path
    directory: pathlib.Path
    runs: tuple[Run, ...]
    left: tuple[Run, ...]

    def name(self, run: Run) -> str:
        """A job's name."""
        return f"iml-{self.plan.parent.name}-{run.name}"

    def command(self, python: str, *which: str) -> list[str]:
        return [python, "-u", "-m", "iml.studies.work", str(self.plan), *which]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "python -m launch.studies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("plan", type=pathlib.Path, help="plan.json of a study")
    told = "; ".join(f"{name}: {meaning}" for name, meaning in SCHEDULERS.items())
    made.add_argument("--scheduler", choices=SCHEDULERS, required=True, help=told)
    made.add_argument("--dry_run", action="store_true", help="print what would be submitted")
    made.add_argument("--gpus", type=int, default=1, help="GPUs of each run (SLURM and Ray; default: 1)")
    made.add_argument("--cpus", type=int, help="CPUs of each run (SLURM and Ray)")
    made.add_argument(
        "--restarts", type=int, default=100, help="how often a run may be started again (SLURM and Ray)"
    )
    array = made.add_argument_group("SLURM")
    array.add_argument("--time", help="time limit of one start, such as 4:00:00")
    array.add_argument("--at_once", type=int, help="how many runs may go on at a time")
    array.add_argument("--partition")
    array.add_argument("--account")
    array.add_argument(
        "--notice", type=int, default=300, help="seconds before the time limit at which to save"
    )
    array.add_argument("--setup", default="", help="shell line before the run")
    array.add_argument(
        "--sbatch", action="append", default=[], help="a further #SBATCH option; may be repeated"
    )
    array.add_argument("--log_dir", default="logs", help="folder of the output")
    ray = made.add_argument_group("Ray (needs the extra [ray])")
    ray.add_argument("--address", default="auto", help="of the cluster (default: the one of this machine)")
    ray.add_argument("--local", type=int, metavar="CPUS", help="start Ray on this machine, with so many CPUs")
    tpu = made.add_argument_group("Cloud TPU")
    tpu.add_argument("--bucket", help="gs://... that keeps plan and runs")
    tpu.add_argument(
        "--tpu", default="", metavar="FLAGS", help="flags of launch.tpu, such as '--project=... --zone=...'"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """Submits the jobs.

    Returns:
      0; 1 where a run failed, as far as the scheduler is waited for; or 2 after a mistake.
    """
    arguments = parser().parse_args(argv)
    try:
        jobs = _read(arguments.plan)
        print(
            f"{len(jobs.runs) - len(jobs.left)} of {len(jobs.runs)} runs are finished",
            file=sys.stderr,
            flush=True,
        )
        if not jobs.left:
            return 0
        if not arguments.dry_run:
            shutil.copyfile(arguments.plan, jobs.plan)
            for run in jobs.left:
                work.clear_failure(jobs.directory, run)
        submit = {"slurm": _slurm, "ray": _ray, "sky": _sky, "tpu": _tpu}[arguments.scheduler]
        return submit(arguments, jobs)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _read(path: pathlib.Path) -> Jobs:
    directory, runs = read_plan(path)
    left = tuple(run for run in runs if not work.is_finished(directory, run))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    # Jobs read a copy: a plan that is written anew must not change what those that wait are to do.
    return Jobs(path.with_name(f"plan-{digest}.json"), directory, runs, left)


# ------------------------------------------------------------------------------------------------- SLURM


def _slurm(arguments: argparse.Namespace, jobs: Jobs) -> int:
    if not arguments.time:
        raise InputError("must be given", field="--time")
    numbers = {run.name: number for number, run in enumerate(jobs.runs)}
    first = [run for run in jobs.left if run.begins_from is None]
    then = [run for run in jobs.left if run.begins_from is not None]
    bases = {run.begins_from for run in then} & {run.name for run in first}
    waits_for: list[str] = []
    for part in filter(None, (first, then)):
        text = array_script(arguments, jobs, [numbers[run.name] for run in part], waits_for)
        if arguments.dry_run:
            print(text, end="")
            job = "JOB"
        else:
            job = slurm.submit(text, arguments.log_dir)
            print(
                f"submitted job array {job}, {len(part)} runs; follow it: squeue -j {job}, "
                f"tail -F {arguments.log_dir}/*-{job}_*.out; end it: scancel {job}"
            )
        waits_for = [f"{job}_{numbers[name]}" for name in sorted(bases)]
    return 0


def array_script(
    arguments: argparse.Namespace, jobs: Jobs, numbers: Sequence[int], waits_for: Sequence[str]
) -> str:
    """The batch script of an array of runs.

    Args:
      arguments: of the command line.
      jobs: the study.
      numbers: of the runs, which are those of the array.
      waits_for: jobs that must have ended first.
    """
    at_once = f"%{arguments.at_once}" if arguments.at_once else ""
    options = {
        "job-name": f"iml-{jobs.plan.parent.name}",
        "array": f"{_ranges(numbers)}{at_once}",
        "dependency": f"afterany:{':'.join(waits_for)}" if waits_for else None,
        "nodes": 1,
        "ntasks": 1,
        "gpus-per-node": arguments.gpus or None,
        "cpus-per-task": arguments.cpus,
        "time": arguments.time,
        "partition": arguments.partition,
        "account": arguments.account,
        # Without B: the signal goes to the task, not to this script.
        "signal": f"TERM@{arguments.notice}",
        "output": f"{arguments.log_dir}/%x-%A_%a.out",
        "open-mode": "append",
    }
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    lines += ["#SBATCH --requeue", *(f"#SBATCH {option}" for option in arguments.sbatch)]
    run = f'srun {shlex.join(jobs.command("python"))} --number="$SLURM_ARRAY_TASK_ID"'
    return "\n".join([*lines, *slurm.steps(run, arguments.setup, arguments.restarts)]) + "\n"


def _ranges(numbers: Sequence[int]) -> str:
    """`0-3,7` for 0, 1, 2, 3, 7."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


# --------------------------------------------------------------------------------------------------- Ray


def _ray(arguments: argparse.Namespace, jobs: Jobs) -> int:
    commands = {
        run.name: jobs.command(sys.executable, f"--run={run.name}", "--attached") for run in jobs.left
    }
    if arguments.dry_run:
        print("\n".join(shlex.join(command) for command in commands.values()))
        return 0
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed", remedy="pip install -e '.[ray]'") from error
    _connect(ray, arguments)
    try:
        ask = ray.remote(_work).options(
            num_cpus=arguments.cpus or 1,
            num_gpus=arguments.gpus,
            max_retries=arguments.restarts,
            retry_exceptions=True,
        )
        folder = str(pathlib.Path.cwd())
        begun: dict[str, ray.ObjectRef] = {}
        for run in jobs.left:
            # Ray begins a task when what it is given is there: here, that its first run has ended.
            begun[run.name] = ask.remote(commands[run.name], folder, begun.get(run.begins_from or ""))
        return _wait(ray, {begun[run.name]: run for run in jobs.left}, jobs)
    finally:
        ray.shutdown()


def _connect(ray, arguments: argparse.Namespace) -> None:
    """Joins the cluster, or starts one.

    Raises:
      InputError: there is none, or it cannot hold a run.
    """
    quiet = {"log_to_driver": True, "logging_level": "warning"}
    if arguments.local:
        ray.init(num_cpus=arguments.local, include_dashboard=False, **quiet)
    else:
        try:
            ray.init(address=arguments.address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"no Ray cluster at {arguments.address!r}: {str(error).splitlines()[0].rstrip('.')}",
                field="--address",
                remedy="Start one (`ray start --head`), or use this machine alone: --local=CPUS",
            ) from error
    for resource, wanted, flag in (("CPU", arguments.cpus or 1, "--cpus"), ("GPU", arguments.gpus, "--gpus")):
        most = max((node["Resources"].get(resource, 0) for node in ray.nodes() if node["Alive"]), default=0)
        if wanted > most:
            raise InputError(f"no node has {wanted} {resource}s, the largest {most:.0f}", field=flag)


def _work(command: list[str], folder: str, first: int | None) -> int:
    """The task: does one run. A run that has failed is not begun again, one that was cut off is."""
    worker = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE)
    try:
        status = worker.wait()
    finally:
        # Where the task is cancelled: it saves and ends.
        worker.stdin.close()
        worker.wait()
    if status not in (0, 1, 2):
        raise RuntimeError(f"ended with status {status}")
    return status


def _wait(ray, tasks: dict, jobs: Jobs) -> int:
    """Tells of each run that ends: 1 if one failed."""
    pending, failed = list(tasks), 0
    while pending:
        ended, pending = ray.wait(pending, num_returns=1)
        for task in ended:
            run = tasks[task]
            try:
                status = ray.get(task)
                told = (
                    "finished" if not status else work.read_failure(jobs.directory, run) or f"status {status}"
                )
            except ray.exceptions.RayError as error:
                status, told = 1, " ".join(str(error).strip().splitlines()[-1:])
            failed += status != 0
            done = sum(work.is_finished(jobs.directory, each) for each in jobs.runs)
            print(
                f"{run.title} ({run.name}): {'failed: ' if status else ''}{told}; {done} of {len(jobs.runs)}",
                flush=True,
            )
    return 1 if failed else 0


# ------------------------------------------------------------------------------------ SkyPilot, Cloud TPU


def _sky(arguments: argparse.Namespace, jobs: Jobs) -> int:
    if not arguments.dry_run and shutil.which("sky") is None:
        raise InputError("sky is not here", remedy="pip install skypilot, or see the commands with --dry_run")
    for run in jobs.left:
        given = {"FOLDER": str(pathlib.Path.cwd()), "PLAN": str(jobs.plan), "RUN": run.name}
        variables = [word for name, value in given.items() for word in ("--env", f"{name}={value}")]
        command = ["sky", "jobs", "launch", "--yes", "--detach-run", "-n", jobs.name(run), *variables]
        command.append(str(_SKY))
        print(shlex.join(command), flush=True)
        if not arguments.dry_run and (status := subprocess.run(command, check=False).returncode):
            raise InputError(f"sky ended with status {status}", remedy="Given again, this submits the rest")
    return 0


def _tpu(arguments: argparse.Namespace, jobs: Jobs) -> int:
    if not (arguments.bucket or "").startswith("gs://"):
        raise InputError("must be given as gs://...", field="--bucket")
    bucket, plan = arguments.bucket.rstrip("/"), str(jobs.plan)
    kept = f"{bucket}/{jobs.plan.parent.name}/{jobs.plan.name}"
    sync = ["gcloud", "storage", "rsync", "--recursive"]
    print(shlex.join(["gcloud", "storage", "cp", plan, kept]))
    for run in jobs.left:
        # With the run that it begins from; what is not in the bucket yet is no error.
        folders = [f"{RUNS}/{name}" for name in (run.begins_from, run.name) if name]
        pairs = [(f"{bucket}/{folder}", str(jobs.directory / folder)) for folder in folders]
        lines = [shlex.join(["mkdir", "-p", str(jobs.plan.parent), *(here for _, here in pairs)])]
        lines.append(shlex.join(["gcloud", "storage", "cp", kept, plan]))
        lines += [f"{shlex.join([*sync, there, here])} || true" for there, here in pairs]
        lines.append(f"{shlex.join(jobs.command('python', f'--run={run.name}'))}; status=$?")
        lines += [shlex.join([*sync, here, there]) for there, here in pairs]
        script = "\n".join([*lines, "exit $status"])
        flags = [*shlex.split(arguments.tpu), "--delete=always"]
        words = ["python", "-m", "launch.tpu", "up", jobs.name(run), *flags, "--", "bash", "-c", script]
        print(shlex.join(words))
    return 0


if __name__ == "__main__":
    sys.exit(main())
