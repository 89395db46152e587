"""Runs a command on all workers of a Cloud TPU slice, from the request to the end of the job.

    python -m launch.tpu up NAME --project=... --zone=us-east5-a --accelerator_type=v5p-128 --tier=spot \\
        --fetch=gs://bucket/store=store -- python -m iml.train --distributed --gin_file=... ...

`up` asks for the slice, waits, installs this checkout, runs the command and passes its output on. Given again it
goes on wherever things stand. A slice that is preempted, or whose job ends with status 75, is replaced or the job
started again. The other actions are its parts: create, install, run, status, logs, stop, delete.

`--dry_run` prints every command of gcloud instead of running it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import pathlib
import shlex
import sys
import tempfile
import time

from iml.errors import InputError
from launch import source as source_lib
from launch.drive import Driver, Job, Lost, Patience, say
from launch.gcloud import DryRun, Gcloud, Slice
from launch.source import Source

ROOT = pathlib.Path(__file__).resolve().parents[1]
ACTIONS = {
    "up": "everything, from the request to the end of the job",
    "create": "ask for the slice and wait until it is ready",
    "install": "install the project on all workers",
    "run": "run the command on all workers of a slice that is ready",
    "status": "say how the slice and the job are",
    "logs": "pass the output of a worker on (--worker)",
    "stop": "end the job: SIGTERM, so that it saves",
    "delete": "give the slice back",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "python -m launch.tpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("action", choices=ACTIONS, help="; ".join(f"{k}: {v}" for k, v in ACTIONS.items()))
    made.add_argument("name", help="name of the slice")
    made.add_argument("--project", required=True)
    made.add_argument("--zone", required=True)
    made.add_argument("--accelerator_type", help="such as v5p-128: a v5p's number counts cores, two a chip")
    made.add_argument("--runtime_version", help="the workers' image (default: the one for the type)")
    made.add_argument("--tier", choices=("on_demand", "spot", "reserved"), default="on_demand")
    made.add_argument("--valid_until_duration", help="give the request up after so long, such as 12h")
    made.add_argument(
        "--service_account", help="what the workers may do (default: the project's default account)"
    )
    made.add_argument("--git", help="URL@REF to install (default: this checkout as it is, changes too)")
    made.add_argument(
        "--setup", default=source_lib.SETUP, help="shell command that installs, in the new folder"
    )
    made.add_argument(
        "--fetch", action="append", default=[], metavar="gs://FROM=TO", help="copy a folder to every worker"
    )
    made.add_argument(
        "--delete",
        choices=("never", "success", "always"),
        default="never",
        help="when `up` gives the slice back by itself",
    )
    made.add_argument("--worker", default="0", help="whose output `logs` shows")
    for field in dataclasses.fields(Patience):
        made.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    made.add_argument("--dry_run", action="store_true", help="print the commands only")
    return made


def main(argv: list[str] | None = None) -> int:
    """Runs one action.

    Returns:
      The job's exit status; 2 after a mistake of the user's, told in one line; 130 after Ctrl-C.
    """
    words = sys.argv[1:] if argv is None else argv
    cut = words.index("--") if "--" in words else len(words)
    arguments = parser().parse_args(words[:cut])
    with tempfile.TemporaryDirectory() as folder:
        launch = None
        try:
            launch = Launch(arguments, words[cut + 1 :], pathlib.Path(folder))
            return launch.act()
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
        except KeyboardInterrupt:
            status = 130
        if launch is not None:
            launch.remind(words)
        return status


class Launch:
    """One call of the program."""

    def __init__(self, arguments: argparse.Namespace, command: list[str], folder: pathlib.Path):
        self.arguments, self.command = arguments, command
        self.fetch = _fetch(arguments.fetch)
        wanted = Slice(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Slice)})
        if arguments.action in ("up", "create") and not wanted.accelerator_type:
            raise InputError("must be given", field="--accelerator_type")
        if arguments.action in ("up", "run", "status", "logs", "stop") and not command:
            raise InputError("needs the job's command after --", field=arguments.action)
        _check_run_dir(command)
        patience = Patience(**{f.name: getattr(arguments, f.name) for f in dataclasses.fields(Patience)})
        if arguments.dry_run:
            patience = dataclasses.replace(patience, poll=0.0)
            cloud: Gcloud = DryRun(wanted)
        else:
            cloud = Gcloud(wanted)
        self.driver = Driver(cloud, patience)
        name = hashlib.sha256(shlex.join(command).encode()).hexdigest()[:12]
        self.job = Job(name, shlex.join(command))
        if arguments.action in ("up", "install", "run"):
            self.source: Source = (
                source_lib.from_git(arguments.git)
                if arguments.git
                else source_lib.from_checkout(ROOT, folder)
            )

    def act(self) -> int:
        """Does what was asked for; gives the exit status."""
        driver = self.driver
        match self.arguments.action:
            case "up":
                return self._up()
            case "create":
                driver.ensure()
            case "install":
                self._once(lambda: driver.install(self.source, self.arguments.setup, self.fetch))
            case "run":
                return self._once(lambda: driver.run(self.job, self.source))
            case "status":
                state, message = driver.cloud.describe()
                print(f"{driver.name}: {state or 'there is none'} {message}".rstrip())
                if state == "ACTIVE":
                    for report in sorted(self._once(lambda: driver.probe(self.job)), key=lambda r: r.host):
                        print(report)
            case "logs":
                attempt = max(report.attempt for report in self._once(lambda: driver.probe(self.job)))
                driver.follow(self.job, attempt, 0, self.arguments.worker)
            case "stop":
                self._once(lambda: driver.stop(self.job))
            case "delete":
                driver.delete()
        return 0

    def _up(self) -> int:
        driver, pauses = self.driver, self.driver.patience.pauses()
        for _ in range(driver.patience.restarts + 1):
            driver.ensure()
            try:
                driver.install(self.source, self.arguments.setup, self.fetch)
                status = driver.run(self.job, self.source)
            except Lost:
                say(f"{driver.name} was preempted; asking for another")
                driver.delete()
                time.sleep(next(pauses))
                continue
            if self.arguments.dry_run:
                say("after a preemption: this, and then all of the above again")
                driver.delete()
                return 0
            say(f"the job ended with status {status}")
            if self.arguments.delete == "always" or (self.arguments.delete == "success" and not status):
                driver.delete()
            else:
                self.remind(None)
            return status
        raise InputError(f"preempted more than {driver.patience.restarts} times")

    def _once(self, action):
        try:
            return action()
        except Lost:
            raise InputError(
                f"{self.driver.name} is not there (any more)", remedy="`up` asks for another and goes on"
            ) from None

    def remind(self, words: list[str] | None) -> None:
        """Says that the slice is left and what it takes to go on, or to give it back."""
        if self.arguments.action == "delete" or self.arguments.dry_run:
            return
        wanted = self.driver.cloud.slice
        say(
            f"{wanted.name} is left as it is: what was granted runs on, and is CHARGED for, until it is deleted"
        )
        if words:
            say(f"go on:  python -m launch.tpu {shlex.join(words)}")
        say(f"delete: python -m launch.tpu delete {wanted.name} {shlex.join(wanted.place)}")


def _fetch(pairs: list[str]) -> dict[str, str]:
    made = {}
    for pair in pairs:
        address, _, target = pair.rpartition("=")
        if not address.startswith("gs://") or not target or target.startswith(("/", "..")):
            raise InputError(f"not gs://FROM=TO with a relative TO: {pair!r}", field="--fetch")
        made[target] = address
    return made


def _check_run_dir(command: list[str]) -> None:
    """A run's folder must outlive the machines."""
    for word in command:
        name, _, value = word.partition("=")
        if name in ("--gin.RUN_DIR", "--gin.train.run_dir") and not value.strip("'\"").startswith(
            ("gs://", "/")
        ):
            raise InputError(
                f"{value} would be lost with the slice",
                field=name,
                remedy="Give a gs:// address, or the absolute path of a file system that all workers mount",
            )


if __name__ == "__main__":
    sys.exit(main())
