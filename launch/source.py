"""What a worker installs: a commit of a git repository, or this checkout as it is."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import pathlib
import re
import shlex
import subprocess
import tarfile

from iml.errors import InputError

#: Makes an environment in the unpacked folder. The images of TPU VMs bring Python 3.10, uv brings a later one.
SETUP = (
    "python3 -m pip install --quiet --user uv && python3 -m uv venv --quiet --clear --python 3.12 .venv"
    ' && python3 -m uv pip install --quiet --python .venv/bin/python -e ".[tpu]"'
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A version of the project.

    Attributes:
      digest: names the version; each has a folder of its own on the workers.
      tarball: the file to copy to the workers, or None for git.
      unpack: shell command that fills the current folder.
    """

    digest: str
    tarball: pathlib.Path | None
    unpack: str

    @property
    def folder(self) -> str:
        """The version's folder on a worker."""
        return f"$HOME/iml/code/{self.digest}"

    def install(self, setup: str, fetch: dict[str, str]) -> str:
        """The shell command that installs on one worker; what is there already it leaves.

        Args:
          setup: makes the environment `.venv`.
          fetch: folder in the installed version -> gs:// address that is copied to it.
        """
        steps = ["set -e", f"mkdir -p {self.folder}", f"cd {self.folder}"]
        steps.append(f"test -e .installed || {{ {self.unpack} && {setup} && touch .installed; }}")
        # One place for all versions, so that it can be asked about a job whatever is installed now.
        steps.append("cp launch/worker.py $HOME/iml/worker.py")
        for target, address in fetch.items():
            kept = f'"$HOME/iml/data/{target}"'
            steps += [
                f"mkdir -p {kept} $(dirname {target})",
                f"gcloud storage rsync --recursive {shlex.quote(address)} {kept}",
                f"ln -sfn {kept} {target}",
            ]
        return "; ".join(steps)


def from_git(address: str) -> Source:
    """A commit; a branch or tag is looked up once, here, so that all workers have the same.

    Args:
      address: `URL@REF`.

    Raises:
      InputError: no such branch or tag, and not the hash of a commit.
    """
    url, _, ref = address.rpartition("@")
    if not url or not ref:
        raise InputError(f"not URL@REF: {address!r}", field="--git")
    listed = subprocess.run(["git", "ls-remote", url, ref], capture_output=True, text=True, check=False)
    commit = listed.stdout.split()[0] if listed.stdout.split() else ref
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise InputError(
            f"{url} has no branch or tag {ref!r}: {listed.stderr.strip()}",
            field="--git",
            remedy="Give a branch, a tag or the 40 digits of a commit",
        )
    unpack = (
        f"git init -q && git fetch -q --depth 1 {shlex.quote(url)} {commit} && git checkout -q FETCH_HEAD"
    )
    return Source(commit[:12], None, unpack)


def from_checkout(root: pathlib.Path, folder: pathlib.Path) -> Source:
    """The files of a checkout that git tracks or would: changes that are not committed come along.

    Args:
      root: the checkout.
      folder: where the tarball is written.

    Raises:
      InputError: `root` is no git checkout.
    """
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        raise InputError("is no git checkout", path=root, remedy="Name a repository with --git=URL@REF")
    names = sorted({os.fsdecode(name) for name in listed.stdout.split(b"\0") if name})
    files = [(name, root / name) for name in names if (root / name).is_file()]
    hashed = hashlib.sha256()
    for name, path in files:
        hashed.update(f"{name}\0{os.access(path, os.X_OK)}\0".encode() + path.read_bytes() + b"\0")
    digest = hashed.hexdigest()[:12]
    tarball = folder / f"iml-{digest}.tar.gz"
    with gzip.open(tarball, "wb", compresslevel=6) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, path in files:
            tar.add(path, arcname=name, recursive=False)
    return Source(digest, tarball, f'tar -xzf "$HOME/{tarball.name}"')
