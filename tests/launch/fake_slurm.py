"""Stands in for SLURM in the folder $FAKE_SLURM: sbatch keeps the script, srun runs its command once a task.

SIGTERM for `--signal` is what the test sends to the tasks; `scontrol requeue` only notes that it was called.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(os.environ["FAKE_SLURM"])


def sbatch(words: list[str]) -> int:
    if (FOLDER / "refuse").exists():
        print("sbatch: error: Batch job submission failed: Invalid partition name specified", file=sys.stderr)
        return 1
    (FOLDER / "script").write_text(sys.stdin.read())
    print("4711;cluster")
    return 0


def srun(words: list[str]) -> int:
    command = words[next(i for i, word in enumerate(words) if not word.startswith("-")) :]
    tasks = [
        subprocess.Popen(command, env={**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)})
        for rank in range(2)
    ]
    return max(task.wait() for task in tasks)


def scontrol(words: list[str]) -> int:
    with (FOLDER / "requeued").open("a") as file:
        file.write(" ".join(words) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit({"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:]))
