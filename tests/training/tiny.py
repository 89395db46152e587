"""A tiny run for tests: a store of four tasks, a small vocabulary, a model of two layers.

As a program it trains: `python -m tests.training.tiny FOLDER NAME=VALUE ...`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import numpy as np

from iml.bench.mixing import Mixture
from iml.data.prompts import PromptFormat
from iml.data.random import Draws
from iml.errors import InputError
from iml.models.config import OPTConfig
from iml.train import train
from iml.training.mesh import MeshConfig
from iml.training.optimizer import AdamConfig
from launch.local import reserve_port
from tests.data.small_vocabulary import write_vocabulary
from tests.stores import make_store

ROOT = pathlib.Path(__file__).resolve().parents[2]
LENGTH = 64
_SCHEME = {"name": "none", "fully_held_out_categories": [], "levels_by_task": {}, "levels_by_category": {}}


def prepare(folder: pathlib.Path) -> None:
    """Writes the store, the vocabulary and a split scheme that holds nothing out."""
    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(folder / "vocabulary")
    (folder / "splits_none.json").write_text(json.dumps(_SCHEME))
    draws = Draws(0)

    def text(name, longest):
        return "the other " * (1 + draws.integers(name, longest))

    tasks = {
        f"{benchmark}.t{t}": {
            "train": [(text(f"s{t}{i}", 3 + t), text(f"t{t}{i}", 1 + t)) for i in range(20 + 20 * t)]
        }
        for t, benchmark in enumerate(("flan", "flan", "t5", "exmix"))
    }
    make_store(folder, tasks)


def config(folder: pathlib.Path, **changes) -> dict:
    """Arguments of `iml.train.train` for a run in `folder / "run"`."""
    model = {
        "vocab_size": 272,
        "num_layers": 2,
        "embed_dim": 32,
        "num_heads": 8,
        "ffn_dim": 64,
        "max_positions": LENGTH,
    }
    model |= {"dropout": 0.1, "dtype": "float32"} | changes.pop("model", {})
    mesh = MeshConfig(**changes.pop("mesh", {}))
    optimizer = changes.pop("optimizer", {})
    if isinstance(optimizer, dict):
        optimizer = AdamConfig(**{"learning_rate": 1e-2, "warmup_steps": 4} | optimizer)
    return {
        "model": OPTConfig(**model),
        "store_dir": str(folder / "store"),
        "vocabulary_dir": str(folder / "vocabulary"),
        "run_dir": str(folder / changes.pop("run", "run")),
        "mixture": Mixture(split_scheme=str(folder / "splits_none.json"), eps=changes.pop("eps", 60)),
        "prompt_format": PromptFormat(shots_distribution=(0.5, 0.5)),
        "optimizer": optimizer,
        "mesh": mesh,
        "steps": 6,
        "batch_size": 8,
        "length": LENGTH,
        "checkpoint_period": 1000,
        "log_period": 2,
        "leak_probe": False,
    } | changes


def run(folder: pathlib.Path, **changes) -> dict:
    """Trains; writes the store first where there is none."""
    if not (folder / "store").exists():
        prepare(folder)
    return train(**config(folder, **changes))


def digest(path: pathlib.Path) -> str:
    """A hash of the bits of the parameters at `path`."""
    import jax

    from iml.training.checkpoints import load_params

    _, params = load_params(path)
    hashed = hashlib.sha256()
    for key, leaf in jax.tree_util.tree_leaves_with_path(params):
        hashed.update(jax.tree_util.keystr(key).encode() + np.asarray(leaf).tobytes())
    return hashed.hexdigest()


def steps(run: pathlib.Path) -> tuple[int, ...]:
    """The steps of a run's complete checkpoints."""
    from iml.training.checkpoints import complete_steps

    return complete_steps(run)


def strike_at(folder: pathlib.Path, step: int, saved: int, deed: str, process: int | None = None) -> None:
    """Makes something happen in this process, or in one of several, before a step, once one is saved.

    Args:
      folder: the run's.
      step: before which step.
      saved: the checkpoint that is waited for first.
      deed: "kill" for `kill -9`, "term" for SIGTERM, "fail" for an example that cannot be read, "fill" for a
        disk that takes no more large files.
      process: the number of the process; None for every one.
    """
    from iml.training import feed

    original = feed.feed

    def struck(stream, state, *arguments, **options):
        import jax

        for number, fed in enumerate(original(stream, state, *arguments, **options), start=state.step):
            if number == step and process in (None, jax.process_index()):
                while not (folder / "run" / "checkpoints" / str(saved)).exists():
                    time.sleep(0.01)
                if deed == "fail":
                    raise InputError("an example cannot be read")
                if deed == "fill":
                    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
                else:
                    os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[deed])
            yield fed

    feed.feed = struck


def record_rows(path: pathlib.Path) -> None:
    """Makes this process note the step, lane and digest of every row that it reads of the stream."""
    from iml.data.stream import TrainStream

    original = TrainStream.batches

    def recorded(self, state, lanes=None, **options):
        wanted = sorted(range(self.batch_size) if lanes is None else lanes)
        with path.open("a") as file:
            for batch, after in original(self, state, wanted, **options):
                for place, lane in enumerate(wanted):
                    row = hashlib.sha256(
                        batch["tokens"][place].tobytes() + batch["example_ids"][place].tobytes()
                    )
                    file.write(json.dumps([after.step, lane, row.hexdigest()]) + "\n")
                file.flush()
                yield batch, after

    TrainStream.batches = recorded


def recorded_rows(*paths: pathlib.Path) -> dict[tuple[int, int], str]:
    """Digests by step and lane of what several processes read; each row once."""
    rows: dict[tuple[int, int], str] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            step, lane, digest = json.loads(line)
            assert (step, lane) not in rows, f"lane {lane} of step {step} was read twice"
            rows[step, lane] = digest
    return rows


def start(
    folder: pathlib.Path, *, devices: int = 1, pass_fds: tuple[int, ...] = (), **changes
) -> subprocess.Popen:
    """Starts a run in another process, with simulated devices; it inherits the files of `pass_fds`."""
    words = [f"{name}={value!r}" for name, value in changes.items()]
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "tests.training.tiny", str(folder), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, cwd=ROOT, pass_fds=pass_fds, **pipes)


def finish(*processes: subprocess.Popen, status: int = 0) -> str:
    """Waits for processes that all should end with a status; gives what they said."""
    said = [process.communicate(timeout=300)[0] for process in processes]
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == status, f"status {process.returncode}\n{text}"
    return "".join(said)


def start_many(folder: pathlib.Path, count: int, rows: str = "", **changes) -> list[subprocess.Popen]:
    """Starts one run in several processes of one device each, or of `devices`.

    Args:
      rows: the beginning of the names of the files, one a process, in which the rows read are noted.
    """
    with reserve_port() as port:
        return [
            start(
                folder,
                pass_fds=(port.fileno(),),
                coordinator_address=f"localhost:{port.getsockname()[1]}",
                num_processes=str(count),
                process_id=str(number),
                **({"rows": f"{rows}{number}"} if rows else {}),
                **changes,
            )
            for number in range(count)
        ]


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[2:])
    changes = {name: ast.literal_eval(value) for name, value in given.items()}
    folder = pathlib.Path(sys.argv[1])
    if "strike_at" in changes:
        strike_at(folder, *changes.pop("strike_at"))
    if "rows" in changes:
        record_rows(folder / changes.pop("rows"))
    try:
        run(folder, **changes)
    except InputError as error:  # As the entry point does.
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
