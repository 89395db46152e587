"""What documents of a row see of each other is what the settings say, and nothing else changes."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from iml.errors import InputError
from iml.models.opt import OPT
from iml.training import fused
from iml.training import mesh as mesh_lib
from iml.training import step as step_lib
from iml.training.optimizer import Lomo, make_optimizer
from iml.training.packed import Packing
from iml.training.rules import PartitionRules
from tests.models import peers
from tests.training import sharded, tiny

LOMO = Lomo(clip=None)
ALL = [Packing(*values) for values in itertools.product((True, False), repeat=2)]


def make_loss(packing, config=sharded.CONFIG, params=None, optimizer=sharded.ADAM, **options):
    """A function of a batch: its summed loss in the run's first step."""
    mesh, model = mesh_lib.make_mesh(mesh_lib.MeshConfig()), OPT(config)
    update = make_optimizer(optimizer, 10, model.logical_axes())
    layout = step_lib.lay_out(model, update, PartitionRules(), mesh)
    params = model.init(jax.random.key(0)) if params is None else params
    step = fused.make_step(model, optimizer, update, 10, layout, mesh, packing=packing, **options)

    def loss(batch):
        state = step_lib.begin(layout, update, jax.tree.map(jax.numpy.array, params))
        return float(step(state, {}, batch, jax.random.key(1))[1]["loss_sum"])

    return loss


def learn_only(batch, segment):
    """The batch with the loss of one segment of each row alone."""
    return batch | {"loss_weights": (batch["segment_ids"] == segment).astype(np.float32)}


@pytest.mark.parametrize(
    ("packing", "optimizer", "microbatches"),
    [(ALL[0], sharded.ADAM, 1), (ALL[1], sharded.ADAM, 1), (ALL[2], sharded.ADAM, 4), (ALL[3], LOMO, 1)],
    ids=["both", "mask", "positions", "neither"],
)
def test_a_document_changes_the_next_one_only_without_the_mask(packing, optimizer, microbatches):
    loss = make_loss(packing, optimizer=optimizer, microbatches=microbatches)
    batch = sharded.make_batch()

    def changed(segment):
        where = batch["segment_ids"] == segment
        return batch | {"tokens": np.where(where, 5 + batch["tokens"] % 50, batch["tokens"])}

    base = loss(learn_only(batch, 2))
    assert (base == loss(learn_only(changed(1), 2))) == packing.document_mask
    assert base != loss(learn_only(changed(2), 2))
    assert base == loss(learn_only(changed(3), 2))  # what follows is never seen


def test_the_batch_keeps_its_segments_and_padding_its_place():
    batch = sharded.make_batch()
    for packing in ALL:
        segment_ids, positions = packing.seen(batch)
        held = batch["segment_ids"] > 0
        assert np.array_equal(segment_ids > 0, held)
        assert np.array_equal(positions[~held], batch["positions"][~held])
        assert segment_ids.max() == (3 if packing.document_mask else 1)
        if packing.reset_positions:
            assert np.array_equal(positions, batch["positions"])
        for row, inside in zip(positions, held, strict=True):
            if not packing.reset_positions:
                assert np.array_equal(row[inside], np.arange(inside.sum()))
    segment_ids, positions = Packing().seen(batch)
    assert segment_ids is batch["segment_ids"] and positions is batch["positions"]


def test_without_both_a_row_is_one_text_to_transformers(tmp_path):
    torch = pytest.importorskip("torch", reason="the peer runs on PyTorch")
    from iml.models import weights_hf

    config = dataclasses.replace(peers.KINDS["pre_norm"], dropout=0.0)
    theirs = peers.transformers_model(config)
    theirs.save_pretrained(tmp_path)
    random = np.random.default_rng(0)
    length = config.max_positions
    tokens = random.integers(4, config.vocab_size, (2, length + 1)).astype(np.int32)
    segment_ids = np.repeat([[1] * 5 + [2] * 12 + [3] * (length - 17)], 2, axis=0).astype(np.int32)
    positions = np.concatenate([np.arange(5), np.arange(12), np.arange(length - 17)])
    batch = {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segment_ids": segment_ids,
        "positions": np.repeat(positions[None], 2, axis=0).astype(np.int32),
        "loss_weights": np.ones((2, length), np.float32),
        "task_ids": np.zeros((2, 3), np.int32),
    }
    params = jax.tree.map(jax.numpy.asarray, weights_hf.read_params(tmp_path))
    with torch.no_grad():
        logits = theirs(torch.tensor(batch["tokens"], dtype=torch.long)).logits
        targets = torch.tensor(batch["targets"], dtype=torch.long)
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    found = make_loss(Packing(False, False), config, params)(batch)
    assert found == pytest.approx(float(expected), rel=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    tiny.prepare(folder)
    return folder


@pytest.mark.parametrize("number", [0, 3])
def test_runs_train_and_say_what_is_seen(folder, capsys, number):
    packing = ALL[number]
    last = tiny.run(folder, run=f"run{number}", packing=packing, leak_probe=True)
    assert np.isfinite(last["loss"])
    said = " ".join(capsys.readouterr().out.split())
    assert str(packing) in said
    assert ("the leak probe is skipped" in said) != packing.document_mask
    for other in (ALL[1], ALL[3 - number]):
        with pytest.raises(InputError, match="packing"):
            tiny.run(folder, run=f"run{number}", steps=14, packing=other)
    tiny.run(folder, run="dry", packing=packing, dry_run=True)
    assert str(packing) in " ".join(capsys.readouterr().out.split())
