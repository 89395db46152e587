"""Stands in for gcloud: a cloud in the folder $FAKE_CLOUD, whose workers are folders and whose SSH is bash.

`faults.json` there says what goes wrong: for each action (create, provision, install, start, state, follow,
delete, login) a list of faults, one of them used up by each call; null is no fault. Messages are those that gcloud
has printed for users, taken from public threads and from gcloud's source.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])
WORKERS = 2
ERROR = "ERROR: (gcloud.compute.tpus.{}) {}"
STOCKOUT = (
    'There is no more capacity in the zone "us-east5-a"; you can try in another zone where Cloud TPU Nodes are '
    "offered (see https://cloud.google.com/tpu/docs/regions) [EID: 0xba393c906974e61]"
)
MESSAGES = {
    "stockout": STOCKOUT,
    "reserved": "Insufficient reserved capacity. Contact customer support to increase your reservation. "
    "[EID: 0x7adf6d58c08b0aa4]",
    "quota": "RESOURCE_EXHAUSTED: Quota limit 'TPUV5PPreemptiblePerProjectPerRegionForTPUAPI' has been exceeded. "
    "Limit: 0 in region us-east5.",
    "unavailable": "UNAVAILABLE: The service is currently unavailable.",
    "badtype": "INVALID_ARGUMENT: Cloud TPU received a bad request. The requested accelerator configuration for "
    'accelerator type, "v5p-128", could not be found in the zonal accelerator configurations for "us-east5-a".',
    "login": "You do not currently have an active account selected.\nPlease run:\n\n  $ gcloud auth login\n\n"
    "to obtain new credentials.",
    "key": 'SSH Key is not present in the SSH agent. Please run "ssh-add /home/me/.ssh/google_compute_engine" to '
    "add it, and try again.",
    "terminal": 'This TPU has terminal state "PREEMPTED", so it cannot be used anymore.',
    "drop": "[/usr/bin/ssh] exited with return code [255].",
}


def main(words: list[str]) -> int:
    with (CLOUD / "calls").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    if words[:2] == ["storage", "rsync"]:
        source = CLOUD / "bucket" / words[3].removeprefix("gs://")
        shutil.copytree(source, words[4], dirs_exist_ok=True)
        return 0
    assert words[:2] == ["compute", "tpus"] and "--quiet" in words
    group, action, name = words[2:5]
    if action == "scp":
        name = words[5].rstrip(":")
    said = f"{group}.{action}"
    flags = dict(word.split("=", 1) for word in words[5:] if word.startswith("--") and "=" in word)
    if fault("login"):
        return fail(said, MESSAGES["login"])
    state = read("resources.json")
    mine = state.get(name)
    if said == "queued-resources.create":
        kind = fault("create")
        if kind:
            return fail(said, MESSAGES[kind])
        if mine:
            return fail(said, f"ALREADY_EXISTS: Resource '{name}' already exists")
        assert flags["--node-id"] == name
        mine = {"state": "WAITING_FOR_RESOURCES", "node": "", "home": f"{name}-{time.monotonic_ns()}"}
        write("resources.json", {**state, name: mine})
        return 0
    if mine is None:
        return fail(
            said, f"NOT_FOUND: Resource 'projects/p/locations/z/queuedResources/{name}' was not found"
        )
    if said == "queued-resources.describe":
        if fault("describe"):
            return fail(said, MESSAGES["unavailable"])
        print(json.dumps({"name": name, "state": full(mine)}))
        advance(mine)
    elif said == "tpu-vm.describe":
        print(mine["node"])
    elif said == "queued-resources.delete":
        assert "--force" in words
        if fault("delete"):
            return fail(said, MESSAGES["unavailable"])
        kill(mine)
        del state[name]
    elif mine["node"] == "PREEMPTED":
        return fail(said, MESSAGES["terminal"])
    elif said == "tpu-vm.scp":
        for home in homes(mine, "all"):
            shutil.copy(words[4], home)
    else:
        return ssh(name, mine, state, flags["--command"], flags["--worker"])
    write("resources.json", state)
    return 0


def ssh(name: str, mine: dict, state: dict, command: str, which: str) -> int:
    action = next(
        (a for a in ("state", "start", "follow", "stop", "tail") if f"worker.py {a}" in command), "install"
    )
    kind = fault(action)
    if kind == "key":
        return fail("tpu-vm.ssh", MESSAGES["key"])
    if kind == "refuse":
        time.sleep(0.1)
        print("ssh: connect to host 34.162.99.201 port 22: Connection timed out", file=sys.stderr)
        return fail("tpu-vm.ssh", MESSAGES["drop"], 255)
    chosen = homes(mine, which)
    if kind == "partly":
        chosen = chosen[:1]
    running = [
        subprocess.Popen(
            ["bash", "-c", command], env={**os.environ, "HOME": str(home)}, start_new_session=True
        )
        for home in chosen
    ]
    if kind in ("drop", "preempt", "suspend"):
        # Until the job has done something; then the connection goes.
        mark = CLOUD / "bucket" / "steps"
        seen = len(mark.read_text()) if mark.exists() else 0
        until = time.monotonic() + 10
        while time.monotonic() < until and not (mark.exists() and len(mark.read_text()) > seen):
            time.sleep(0.02)
        for process in running:
            process.kill()
            process.wait()
        if kind != "drop":
            kill(mine)
            mine["node"] = "PREEMPTED"
            mine["state"] = "SUSPENDING" if kind == "suspend" else "ACTIVE"
            write("resources.json", state)
        print("Connection to 34.162.99.201 closed by remote host.", file=sys.stderr)
        return fail("tpu-vm.ssh", MESSAGES["drop"], 255)
    statuses = [process.wait() for process in running]
    if kind == "partly":
        return fail("tpu-vm.ssh", MESSAGES["drop"], 255)
    for worker, status in enumerate(statuses):
        if status:
            print(
                f"##### Command execution on worker {worker} failed with exit status {status}.",
                file=sys.stderr,
            )
    return next((status for status in statuses if status), 0)


def full(mine: dict) -> dict:
    if mine["state"] != "FAILED":
        return {"state": mine["state"]}
    return {"state": "FAILED", "failedData": {"error": {"code": 8, "message": mine["message"]}}}


def advance(mine: dict) -> None:
    """What happens in the cloud between two looks."""
    if mine["state"] == "WAITING_FOR_RESOURCES":
        kind = fault("provision")
        mine["state"] = "FAILED" if kind else "PROVISIONING"
        mine["message"] = MESSAGES.get(kind, "")
    elif mine["state"] == "PROVISIONING":
        mine["state"], mine["node"] = "ACTIVE", "READY"
    elif mine["state"] == "SUSPENDING":
        mine["state"] = "SUSPENDED"


def homes(mine: dict, which: str) -> list[pathlib.Path]:
    numbers = range(WORKERS) if which == "all" else [int(which)]
    made = [CLOUD / "nodes" / mine["home"] / f"w-{number}" for number in numbers]
    for home in made:
        home.mkdir(parents=True, exist_ok=True)
    return made


def kill(mine: dict) -> None:
    """Switches the machines off: no signal that a process could answer, and nothing left on their discs."""
    root = CLOUD / "nodes" / mine["home"]
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if f"HOME={root}/".encode() in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
    shutil.rmtree(root, ignore_errors=True)


def fault(action: str) -> str | None:
    faults = read("faults.json")
    kinds = faults.get(action, [])
    kind = kinds.pop(0) if kinds else None
    write("faults.json", faults)
    return kind


def fail(said: str, message: str, status: int = 1) -> int:
    print(ERROR.format(said, message), file=sys.stderr)
    return status


def read(name: str) -> dict:
    path = CLOUD / name
    return json.loads(path.read_text()) if path.exists() else {}


def write(name: str, value: dict) -> None:
    (CLOUD / name).write_text(json.dumps(value))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
