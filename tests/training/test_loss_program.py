"""What a training step's program for a TPU slice holds and sends, where the loss is taken by chunks."""

import importlib.util
import math
import re

import pytest

from iml.models.config import OPTConfig
from iml.training.collectives import collectives
from iml.training.job import Job
from iml.training.machines import tpu_devices
from iml.training.mesh import MeshConfig, make_mesh
from iml.training.optimizer import AdamConfig
from iml.training.planner import step_of
from iml.training.rules import PartitionRules

ROWS, LENGTH, TENSOR = 8, 1024, 2
MODEL = OPTConfig(num_layers=2, embed_dim=256, num_heads=2, max_positions=LENGTH, remat="full", dropout=0.0)
MESH = MeshConfig(data=2, fsdp=2, tensor=TENSOR)
#: Positions of a device, and the scores that it would hold of them at once.
POSITIONS = ROWS * LENGTH // 4
WHOLE = POSITIONS * MODEL.vocab_size // TENSOR


def compiled(chunk: int | None):
    """The step of a run that takes its loss by chunks, compiled for eight chips."""
    job = Job(
        model=MODEL,
        optimizer=AdamConfig(),
        mesh=MESH,
        rules=PartitionRules(),
        steps=10,
        batch_size=ROWS,
        length=LENGTH,
        microbatches=1,
        segments=8,
        target_budget=None,
        loss_chunk=chunk,
    )
    train_step, abstract = step_of(job, make_mesh(MESH, tpu_devices("v5e:2x4")))
    return train_step.lower(*abstract).compile()


def largest(program: str) -> int:
    """Elements of the largest array of a program."""
    shapes = re.findall(r"\w+\[([\d,]+)\]", program)
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu compiles for TPUs")
def test_chunks_hold_no_whole_scores_and_exchange_the_table_once():
    eight, two = (compiled(POSITIONS // turns).as_text() for turns in (8, 2))
    assert largest(compiled(None).as_text()) >= WHOLE
    assert largest(eight) < WHOLE / 2
    sent = [sum(each.sent for each in collectives(program)) for program in (eight, two)]
    # The table's gradient, float32, would be sent six times more often: at the least 6 x 12 MB.
    table = 4 * MODEL.vocab_size * MODEL.embed_dim / TENSOR / 2
    assert table > 12e6 and abs(sent[0] - sent[1]) < 0.01 * table
