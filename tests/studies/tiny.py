"""A study that takes seconds: four tasks of a few rows, a model of some ten thousand parameters, six steps."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from iml import configuration
from iml.studies import design as design_lib
from iml.studies.design import Design
from iml.studies.runs import Plan, expand
from iml.study import FLAGS, study
from tests.stores import make_store

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Of the embedded benchmark's splits: two supervised tasks, one partially and one fully held out.
_CATEGORIES = {
    "flan.even": "Text Classification",
    "promptsource.last": "Text Manipulation",
    "flan.pocket_what_about": "Question Answering",
    "exmix.entails": "Textual Entailment",
}
_STUDY = """
study.design = @Design()
Design.name = 'tiny'
Design.title = 'A & B: 50 % of $x_1$'
Design.base = @Base()
Design.factors = (@Factor(),)
Design.baseline = '2'
Factor.name = 'EPS'
Factor.values = {'2': 'Mixture.eps = 2', '8': 'Mixture.eps = 8', 'none': 'Mixture.eps = None'}
Base.name = 'tiny'
Base.store_dir = %TINY_STORE
Base.train = ('runs/quickstart/train.gin',)
Base.evaluate = ('runs/quickstart/evaluate.gin',)
Base.train_bindings = (
    'TRAIN_STEPS = 6', 'CHECKPOINT_PERIOD = 2', 'LOG_PERIOD = 2', 'WARMUP_STEPS = 2', 'BATCH_SIZE = 2',
    'LENGTH = 64', 'KEEP = 1', 'OPTConfig.num_layers = 1', 'OPTConfig.embed_dim = 8',
    'OPTConfig.num_heads = 2', 'OPTConfig.ffn_dim = 16', 'OPTConfig.max_positions = 64', 'OPTConfig.dropout = 0.0',
    'train.leak_probe = False',
)
Base.evaluate_bindings = (
    'Suite.shots = (0, 1)', 'Suite.max_prompts_per_task = 4', 'Decoding.max_new_tokens = 2',
    "Suite.scorers = ('sum',)", 'Suite.with_eos = (True,)',
)
"""


def write_study(folder: pathlib.Path, *lines: str, rows: int = 12) -> pathlib.Path:
    """The gin file of the study, with further lines, beside its store of so many training examples a task."""
    if not (folder / "store").exists():
        sizes = {"train": rows, "validation": 6, "test": 8}
        tasks = {
            name: {
                "card": {"category": category, "metrics": ("accuracy",)},
                **{
                    split: [_row(20 * k + i) for i in range(size)]
                    for k, (split, size) in enumerate(sizes.items())
                },
            }
            for name, category in _CATEGORIES.items()
        }
        make_store(folder, tasks)
    path = folder / "tiny.gin"
    path.write_text("\n".join([f"TINY_STORE = '{folder / 'store'}'", _STUDY, *lines]) + "\n")
    return path


def _row(number: int) -> dict[str, object]:
    answers = ["yes", "no", "the old house"]
    return {"source": f"is {number} {number % 7}?", "target": answers[number % 3], "candidates": answers}


def read_design(folder: pathlib.Path, *lines: str, rows: int = 12) -> Design:
    """The study that the gin file says."""
    file = os.fspath(write_study(folder, *lines, rows=rows))
    return configuration.arguments(study, design_lib.CONFIGURABLES, [file], flags=FLAGS)["design"]


def plan(folder: pathlib.Path, *lines: str, studies: pathlib.Path | None = None, rows: int = 12) -> Plan:
    """The study expanded; by default of the folder `studies`."""
    return expand(read_design(folder, *lines, rows=rows), studies or folder / "studies")


def command(gin_file: pathlib.Path, studies: pathlib.Path, *flags: str) -> list[str]:
    words = [f"--gin_file={gin_file}", f"--gin.study.studies_dir={studies}", *flags]
    return [sys.executable, "-m", "iml.study", *words]


def start(*words: str, **pipes) -> subprocess.Popen:
    """Starts a command in the repository."""
    return subprocess.Popen(words, cwd=ROOT, env=environment(), **pipes)


def environment() -> dict[str, str]:
    return os.environ | {"COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
