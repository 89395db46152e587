"""Cloud TPU's queued resources through the gcloud command.

States and flags: https://cloud.google.com/tpu/docs/queued-resources and gcloud's reference of
`compute tpus queued-resources` and `compute tpus tpu-vm ssh`.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

from iml.errors import InputError
from launch import worker

#: A request in these states is on its way to ACTIVE. ACCEPTED is what WAITING_FOR_RESOURCES was called before.
WAITING = ("STATE_UNSPECIFIED", "CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING")
LEAVING = ("SUSPENDING", "DELETING")
#: A request in these states holds no machines and gets none any more, but still counts against the quota.
OVER = ("SUSPENDED", "FAILED")
#: States of a node that does not come back.
NODE_OVER = ("PREEMPTED", "TERMINATED", "DELETING")

_RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
_TIERS = {"on_demand": [], "spot": ["--spot"], "reserved": ["--reserved"]}


class Failure(enum.Enum):
    """Why gcloud failed, as far as it matters to what is done next."""

    CAPACITY = ("no more capacity", "insufficient capacity", "insufficient reserved capacity", "stockout")
    CAPACITY_POOL = ("zone_resource_pool_exhausted", "enough resources available")
    QUOTA = ("quota limit", "quota '", "quota exceeded", "quota metric")
    EXISTS = ("already_exists", "already exists")
    MISSING = ("not_found", "was not found", "not found:")
    LOGIN = ("gcloud auth login", "reauthentication", "active account selected", "unauthenticated")
    KEY = ("not present in the ssh agent",)
    PROJECT = ("permission_denied", "required permission", "has not been used in project", "invalid_argument")
    LOST = ("has terminal state",)
    UNKNOWN = ()

    @classmethod
    def of(cls, message: str) -> Failure:
        """The failure in what gcloud wrote; what the workers wrote around it does not count."""
        _, error, text = message.partition("ERROR: (gcloud.compute.")
        lowered = text.lower() if error else ""
        return next((kind for kind in cls if any(text in lowered for text in kind.value)), cls.UNKNOWN)


NO_CAPACITY = (Failure.CAPACITY, Failure.CAPACITY_POOL)
#: What no repetition mends: remedy by failure.
_REMEDIES = {
    Failure.QUOTA: "Ask for more quota, or delete requests that still count: "
    "gcloud compute tpus queued-resources list",
    Failure.LOGIN: "Run: gcloud auth login",
    Failure.KEY: "Run: ssh-add ~/.ssh/google_compute_engine",
    Failure.PROJECT: "Check --project, --zone and --accelerator_type, that the Cloud TPU API is on, and your role",
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice to ask for. The queued resource and its one node have the same name."""

    name: str
    project: str
    zone: str
    accelerator_type: str = ""
    runtime_version: str | None = None
    tier: str = "on_demand"
    valid_until_duration: str | None = None
    service_account: str | None = None

    @property
    def place(self) -> list[str]:
        return [f"--project={self.project}", f"--zone={self.zone}"]

    def create_flags(self) -> list[str]:
        """Flags of `queued-resources create`."""
        generation = self.accelerator_type.split("-")[0]
        runtime = self.runtime_version or _RUNTIMES.get(generation)
        if not runtime:
            raise InputError(
                f"no runtime version is known for {self.accelerator_type!r}", field="--runtime_version"
            )
        flags = [f"--node-id={self.name}", f"--accelerator-type={self.accelerator_type}"]
        flags += [f"--runtime-version={runtime}", *_TIERS[self.tier]]
        if self.valid_until_duration:
            flags.append(f"--valid-until-duration={self.valid_until_duration}")
        if self.service_account:
            flags += [f"--service-account={self.service_account}"]
        return flags


@dataclasses.dataclass(frozen=True)
class Done:
    """A command that ended: its status, what it wrote to standard output and to standard error."""

    status: int
    out: str = ""
    err: str = ""
    sent: int = 0

    @property
    def failure(self) -> Failure:
        return Failure.of(self.err)

    def insist(self) -> Done:
        """Itself, if it succeeded or can be tried again.

        Raises:
          InputError: what went wrong stays wrong until the user does something.
        """
        if self.status and self.failure in _REMEDIES:
            said = next(line for line in self.err.splitlines() if "ERROR: (gcloud.compute." in line)
            raise InputError(said.rstrip("."), remedy=_REMEDIES[self.failure])
        return self


class Gcloud:
    """Runs gcloud for one slice."""

    def __init__(self, wanted: Slice):
        self.slice = wanted
        if shutil.which("gcloud") is None:
            raise InputError(
                "gcloud is not installed", remedy="See https://cloud.google.com/sdk/docs/install"
            )

    def describe(self) -> tuple[str | None, str]:
        """State of the queued resource, None where there is none; and the message of a failed one.

        Raises:
          InputError: gcloud cannot say, and asking again would not help.
          ConnectionError: gcloud cannot say at the moment.
        """
        done = self._call("queued-resources", "describe", self.slice.name, "--format=json").insist()
        if done.status and done.failure is Failure.MISSING:
            return None, ""
        if done.status:
            raise ConnectionError(done.err.strip())
        state = json.loads(done.out).get("state", {})
        return state.get("state"), state.get("failedData", {}).get("error", {}).get("message", "")

    def node_state(self) -> str | None:
        """State of the node (READY, PREEMPTED, ...), None where there is none.

        Raises:
          InputError: as `describe`.
          ConnectionError: as `describe`.
        """
        done = self._call("tpu-vm", "describe", self.slice.name, "--format=value(state)").insist()
        if done.status and done.failure is Failure.MISSING:
            return None
        if done.status:
            raise ConnectionError(done.err.strip())
        return done.out.strip()

    def create(self) -> Done:
        return self._call("queued-resources", "create", self.slice.name, *self.slice.create_flags()).insist()

    def delete(self) -> Done:
        """Deletes the queued resource and its node, and waits until they are gone."""
        return self._call("queued-resources", "delete", self.slice.name, "--force").insist()

    def copy(self, path: pathlib.Path) -> Done:
        """Copies a file into the home folder of every worker."""
        return self._call("tpu-vm", "scp", str(path), f"{self.slice.name}:", "--worker=all").insist()

    def ssh(self, command: str, *, worker: str = "all", stream: bool = False) -> Done:
        """Runs a shell command on workers; status 255 means that the connection failed.

        Args:
          command: the shell command.
          worker: `all`, or the number of one.
          stream: pass the output on at once, instead of returning it.
        """
        # Without keep-alives, ssh waits for hours for a machine that has gone.
        alive = ["--ssh-flag=-oServerAliveInterval=30", "--ssh-flag=-oServerAliveCountMax=4"]
        arguments = ("tpu-vm", "ssh", self.slice.name, f"--worker={worker}", f"--command={command}", *alive)
        return self._call(*arguments, stream=stream).insist()

    def _call(self, *arguments: str, stream: bool = False) -> Done:
        return self.run(["gcloud", "compute", "tpus", *arguments, *self.slice.place, "--quiet"], stream)

    def run(self, command: list[str], stream: bool) -> Done:
        """Runs a command; with `stream`, its output is passed on and counted instead of kept."""
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, bufsize=0
            )
            kept, sent = [], 0
            try:
                while data := os.read(process.stdout.fileno(), 1 << 16):
                    sent += len(data)
                    if stream:
                        sys.stdout.buffer.write(data)
                        sys.stdout.buffer.flush()
                    else:
                        kept.append(data)
                status = process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
                process.stdout.close()
            errors.seek(0)
            out, err = b"".join(kept), errors.read()
            return Done(status, out.decode(errors="replace"), err.decode(errors="replace"), sent)


class DryRun(Gcloud):
    """Prints every command instead of running it, and answers as if all went well."""

    def __init__(self, wanted: Slice):
        self.slice, self._created, self._started = wanted, False, False

    def run(self, command: list[str], stream: bool) -> Done:
        print(shlex.join(command), flush=True)
        action = " ".join(command[3:5])
        if action == "queued-resources create":
            self._created = True
        if action == "queued-resources describe":
            if self._created:
                return Done(0, '{"state": {"state": "ACTIVE"}}')
            return Done(1, err="ERROR: (gcloud.compute.) NOT_FOUND")
        if action == "tpu-vm describe":
            return Done(0, "READY")
        self._started |= "worker.py start" in shlex.join(command)
        report = {"host": "worker", "state": "absent", "attempt": 0, "status": None}
        if self._started:
            report |= {"state": "ended", "attempt": 1, "status": 0}
        return Done(0, worker.MARK + json.dumps(report))
