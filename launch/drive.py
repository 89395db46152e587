"""Carries a job on a slice to its end, through missing capacity, lost connections and preemption."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from iml.errors import InputError
from launch import worker
from launch.gcloud import LEAVING, NO_CAPACITY, NODE_OVER, OVER, WAITING, Done, Failure, Gcloud
from launch.source import Source

T = TypeVar("T")

#: What iml.train ends with after SIGTERM: saved, wants another start.
PREEMPTED = 75


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long, and how often.

    Attributes:
      poll: seconds between two looks at something that takes minutes; the first pause after a failure.
      drops: connections in a row that may fail.
      refusals: requests in a row that may fail for want of capacity.
      restarts: how often the job may be started again.
      grace: seconds that workers may still run after another has ended.
      look: seconds after which a job that says nothing is looked at.
    """

    poll: float = 15.0
    drops: int = 10
    refusals: int = 100
    restarts: int = 100
    grace: float = 180.0
    look: float = 300.0

    def pauses(self) -> Iterator[float]:
        """Pauses that double, up to 20 times the first."""
        return (self.poll * min(2**number, 20) for number in itertools.count())


@dataclasses.dataclass(frozen=True)
class Job:
    """A command to run on all workers; its name is the same whenever it is asked for again."""

    name: str
    command: str

    def act(self, *words: object) -> str:
        """The shell command that has `worker.py` do something."""
        return f"python3 $HOME/iml/worker.py {shlex.join(str(word) for word in words)}"

    def shell(self, source: Source) -> str:
        """What a worker runs: the command in an installed version."""
        return f'cd {source.folder} && export PATH="$PWD/.venv/bin:$PATH" && exec {self.command}'


@dataclasses.dataclass(frozen=True)
class Report:
    """What one worker says of the job."""

    host: str
    state: str
    attempt: int
    status: int | None


class Lost(Exception):
    """The slice is gone."""


def say(text: str) -> None:
    """Tells the user something, apart from the job's own output."""
    print(f"[launch] {text}", file=sys.stderr, flush=True)


class Driver:
    """Does the steps of a launch for one slice."""

    def __init__(self, cloud: Gcloud, patience: Patience):
        self.cloud, self.patience = cloud, patience
        self.name = cloud.slice.name

    def ensure(self) -> None:
        """Asks for the slice where it is not there, and waits until it is ready.

        Raises:
          InputError: the request is refused for good, or too often.
        """
        pauses, told, refusals = self.patience.pauses(), None, 0
        while True:
            state, message = self._describe()
            if (state, message) != told:
                say(f"{self.name}: {state or 'not requested yet'}" + (f": {message}" if message else ""))
                told = (state, message)
            refused = False
            if state is None:
                done = self.cloud.create()
                if done.status and done.failure is not Failure.EXISTS:
                    say(done.err.strip())
                    refused = True
            elif state == "ACTIVE":
                node = self._node_state()
                if node == "READY":
                    return
                say(f"{self.name}: node {node}")
                if node is None or node in NODE_OVER:
                    self.delete()
                    continue
            elif state in OVER:
                if state == "FAILED":
                    failure = Failure.of(f"ERROR: (gcloud.compute.) {message}")
                    if failure not in NO_CAPACITY:
                        raise InputError(
                            f"{self.name} FAILED: {message}", remedy="Mend that, delete it and ask again"
                        )
                    refused = True
                self.delete()
            elif state not in WAITING + LEAVING:
                raise InputError(f"{self.name} is in the unknown state {state}")
            if refused:
                refusals += 1
                if refusals > self.patience.refusals:
                    raise InputError(
                        f"no slice after {refusals} requests", remedy="Try another zone, tier or slice"
                    )
                time.sleep(next(pauses))
            elif state is not None and state not in OVER:
                time.sleep(self.patience.poll)

    def install(self, source: Source, setup: str, fetch: dict[str, str]) -> None:
        """Installs on all workers.

        Raises:
          Lost: the slice is gone.
          InputError: a step fails on a worker.
        """
        if source.tarball is not None:
            self._insist("copying", lambda: self.cloud.copy(source.tarball))
        self._insist("installing", lambda: self.cloud.ssh(source.install(setup, fetch), stream=True))

    def run(self, job: Job, source: Source) -> int:
        """Starts the job or joins it where it runs, passes its output on, and starts it again on status 75.

        Returns:
          The job's exit status, never 75.

        Raises:
          Lost: the slice is gone.
          InputError: the connection fails too often, or the job wants too many starts.
        """
        reports = self.probe(job)
        attempt = max(report.attempt for report in reports)
        going = {report.state for report in reports if report.attempt == attempt}
        if "running" in going:
            say(f"joining attempt {attempt}, which runs")
        elif going == {"ended"} and {r.status for r in reports} == {0}:
            say("this job has ended with status 0 before")
            return 0
        else:
            attempt += 1
        for _ in range(self.patience.restarts + 1):
            starting = job.act("start", job.name, attempt, job.shell(source))
            self._insist("starting", functools.partial(self.cloud.ssh, starting))
            status = self._watch(job, attempt)
            if status == 0:
                return 0
            # Preempted machines may end the job, in whatever way, shortly before the slice is said to be gone.
            time.sleep(self.patience.poll)
            if self.lost():
                raise Lost
            if status not in (PREEMPTED, None):
                ending = job.act("tail", job.name, attempt, 15)
                ends = self._insist("asking", functools.partial(self.cloud.ssh, ending))
                say(f"the ends of the logs:\n{ends.out.rstrip()}")
                return status
            say("the job has saved and wants another start" if status else "a worker lost its job")
            attempt += 1
        raise InputError(f"the job wanted more than {self.patience.restarts} starts")

    def probe(self, job: Job) -> list[Report]:
        """What every worker says of the job.

        Raises:
          Lost: the slice is gone.
          InputError: the connection fails too often.
        """
        done = self._insist("asking", lambda: self.cloud.ssh(job.act("state", job.name)))
        # gcloud lets the workers' lines run into each other.
        lines = re.findall(re.escape(worker.MARK) + r"(\{.*?\})", done.out)
        if not lines:
            raise InputError(f"{self.name}: no worker says how the job is", remedy="`install` first")
        return [Report(**json.loads(line)) for line in lines]

    def follow(self, job: Job, attempt: int, offset: int, which: str = "0") -> Done:
        """Passes a worker's output on from a byte, until the job or the connection ends, or it is time to look."""
        action = job.act("follow", job.name, attempt, offset, self.patience.look)
        return self.cloud.ssh(action, worker=which, stream=True)

    def stop(self, job: Job) -> None:
        """Ends the job on all workers: SIGTERM, and SIGKILL after the grace."""
        self._insist("stopping", lambda: self.cloud.ssh(job.act("stop", job.name, self.patience.grace)))

    def delete(self) -> None:
        """Deletes the request and its machines.

        Raises:
          InputError: it cannot be deleted.
        """
        say(f"deleting {self.name}")
        pauses = self.patience.pauses()
        for _ in range(self.patience.drops):
            done = self.cloud.delete()
            if not done.status or done.failure is Failure.MISSING:
                return
            say(done.err.strip())
            time.sleep(next(pauses))
        raise InputError(
            f"{self.name} could not be deleted and may still be charged for", remedy=done.err.strip()
        )

    def lost(self) -> bool:
        """Whether the slice has gone or is going."""
        state, _ = self._describe()
        return state != "ACTIVE" or (node := self._node_state()) is None or node in NODE_OVER

    def _watch(self, job: Job, attempt: int) -> int | None:
        """Passes the output on until the attempt has ended on all workers; None if one has no status."""
        offset, ended, stopped = 0, None, None
        while True:
            followed = self.follow(job, attempt, offset)
            offset += followed.sent
            if followed.status:
                say("the connection ended; looking what the job does")
                time.sleep(self.patience.poll)
            reports = self.probe(job)
            running = [report for report in reports if report.state == "running"]
            if not running:
                # What those that had to be stopped ended with is not what went wrong.
                first = _combine(stopped) if stopped else 0
                return _combine(reports) if first == 0 else first
            if len(running) < len(reports):
                ended = ended or time.monotonic()
                if time.monotonic() - ended > self.patience.grace:
                    hosts = ", ".join(report.host for report in running)
                    say(f"other workers have ended; stopping {hosts}")
                    stopped = stopped or [report for report in reports if report not in running]
                    self.stop(job)
                time.sleep(min(self.patience.poll, 5.0))

    def _insist(self, what: str, action: Callable[[], Done]) -> Done:
        """Repeats an action on the workers while their connection fails.

        Raises:
          Lost: the slice is gone.
          InputError: the action fails on a worker, or the connection too often.
        """
        pauses = self.patience.pauses()
        for _ in range(self.patience.drops + 1):
            done = action()
            if not done.status:
                return done
            if self.lost():
                raise Lost
            # gcloud itself ends with 1, ssh with 255; whatever else is the status of the command on a worker.
            if done.status != 255 and done.failure is Failure.UNKNOWN and "ERROR: (gcloud." not in done.err:
                raise InputError(f"{what} on {self.name} failed: {tail(done.err or done.out)}")
            say(f"{what}: {tail(done.err, 1)}; trying again")
            time.sleep(next(pauses))
        raise InputError(
            f"{what} on {self.name} failed: {tail(done.err)}", remedy="The slice is left as it is"
        )

    def _describe(self) -> tuple[str | None, str]:
        return self._asking(self.cloud.describe)

    def _node_state(self) -> str | None:
        return self._asking(self.cloud.node_state)

    def _asking(self, question: Callable[[], T]) -> T:
        pauses = self.patience.pauses()
        for _ in range(self.patience.drops):
            try:
                return question()
            except ConnectionError as error:
                say(f"gcloud: {tail(str(error))}; trying again")
                time.sleep(next(pauses))
        return question()


def tail(text: str, lines: int = 15) -> str:
    """The last lines of a text."""
    return "\n".join(text.strip().splitlines()[-lines:])


def _combine(reports: list[Report]) -> int | None:
    """One status for all workers: the first failure, else 75 if any wants another start, else 0."""
    statuses = [report.status for report in reports]
    failed = [status for status in statuses if status not in (0, PREEMPTED, None)]
    if failed:
        return failed[0]
    if None in statuses:
        return None
    return max(statuses)
