"""A tiny run for tests: a store of four tasks, a small vocabulary, a model of two layers.

As a program it trains: `python -m tests.training.tiny FOLDER NAME=VALUE ...`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import pathlib
import sys

import numpy as np

from iml.bench.mixing import Mixture
from iml.data.prompts import PromptFormat
from iml.data.random import Draws
from iml.models.config import OPTConfig
from iml.train import train
from iml.training.mesh import MeshConfig
from iml.training.optimizer import AdamConfig
from tests.data.small_vocabulary import write_vocabulary
from tests.stores import make_store

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
    adam = AdamConfig(**{"learning_rate": 1e-2, "warmup_steps": 4} | changes.pop("optimizer", {}))
    return {
        "model": OPTConfig(**model),
        "store_dir": str(folder / "store"),
        "vocabulary_dir": str(folder / "vocabulary"),
        "run_dir": str(folder / changes.pop("run", "run")),
        "mixture": Mixture(split_scheme=str(folder / "splits_none.json"), eps=changes.pop("eps", 60)),
        "prompt_format": PromptFormat(shots_distribution=(0.5, 0.5)),
        "optimizer": adam,
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


if __name__ == "__main__":
    changes = dict(word.split("=", 1) for word in sys.argv[2:])
    run(pathlib.Path(sys.argv[1]), **{name: ast.literal_eval(value) for name, value in changes.items()})
