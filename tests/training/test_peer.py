"""Several updates in float64 beside transformers' OPT under PyTorch's AdamW.

In float32 the two drift apart within a few updates, as either does from itself under another order of sums: a
ReLU's gradient jumps where its input is rounding away from 0. In float64 what is left is what they compute.
"""

import dataclasses

import jax
import numpy as np
import pytest

from iml.models import weights_hf
from iml.models.opt import OPT
from iml.training import mesh as mesh_lib
from iml.training import optimizer as optimizer_lib
from iml.training import step as step_lib
from iml.training.rules import PartitionRules
from tests.models import double, peers

UPDATES = 8
#: The schedule is float32: these rates are powers of two and their halves, which both have exactly.
#: Keys have biases whose gradient is 0, but for rounding, which Adam would divide by as little.
ADAM = optimizer_lib.AdamConfig(
    learning_rate=2.0**-9, warmup_steps=4, decay_steps=UPDATES, eps=1e-6, clip=1.0
)


@pytest.fixture
def float64():
    with double.float64():
        yield


def make_batch(config) -> dict[str, np.ndarray]:
    """Two packed rows; the loss is at gathered positions."""
    random = np.random.default_rng(0)
    shape = (2, config.max_positions)
    ends = np.array([[9, 20], [5, 22]])
    places = np.arange(shape[1])
    segment_ids = 1 + (places >= ends[:, :1]).astype(np.int32) + (places >= ends[:, 1:])
    segment_ids[segment_ids > 2] = 0
    tokens, targets = random.integers(4, config.vocab_size, (2, *shape)).astype(np.int32)
    learnt = np.array([[5, 6, 7, 17, 18, -1], [2, 3, 4, 19, 20, 21]], np.int32)
    weights = np.zeros(shape)
    for row, chosen in enumerate(learnt):
        weights[row, chosen[chosen >= 0]] = 1
    return {
        "tokens": tokens,
        "targets": targets,
        "segment_ids": segment_ids,
        "positions": np.where(places < ends[:, :1], places, places - ends[:, :1]).astype(np.int32),
        "loss_weights": weights,
        "target_positions": learnt,
        "task_ids": np.zeros((2, 2), np.int32),
    }


def their_losses(model, batch) -> list[float]:
    """Updates transformers' model."""
    torch = pytest.importorskip("torch", reason="the peer is PyTorch")
    fields = {name: torch.from_numpy(array) for name, array in batch.items()}
    ids = fields["segment_ids"]
    same = (ids[:, :, None] == ids[:, None, :]) & torch.ones(2 * ids.shape[1:], dtype=torch.bool).tril()
    learnt = fields["loss_weights"] > 0
    decayed = {True: [], False: []}
    for parameter in model.parameters():
        decayed[parameter.ndim >= 2].append(parameter)
    groups = [
        {"params": found, "weight_decay": ADAM.weight_decay if matrices else 0.0}
        for matrices, found in decayed.items()
    ]
    adam = torch.optim.AdamW(groups, betas=(ADAM.b1, ADAM.b2), eps=ADAM.eps)
    losses, clipped = [], []
    for update in range(UPDATES):
        for group in adam.param_groups:
            group["lr"] = ADAM.learning_rate * min((update + 1) / 4, (UPDATES - update) / 4)
        logits = model(
            input_ids=fields["tokens"], attention_mask=same[:, None], position_ids=fields["positions"]
        ).logits
        loss = torch.nn.functional.cross_entropy(logits[learnt], fields["targets"][learnt].long())
        adam.zero_grad()
        loss.backward()
        # `clip_grad_norm_` adds 1e-6 to the norm.
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
        clipped.append(norm > ADAM.clip)
        for parameter in model.parameters():
            parameter.grad *= (ADAM.clip / norm).clamp(max=1.0)
        adam.step()
        losses.append(loss.item())
    assert any(clipped)
    return losses


def our_losses(config, params, batch) -> tuple[list[float], dict]:
    """Updates parameters by a run's own step."""
    model, mesh = OPT(config), mesh_lib.make_mesh(mesh_lib.MeshConfig(), jax.devices()[:1])
    optimizer = optimizer_lib.make_optimizer(ADAM, UPDATES, model.logical_axes())
    layout = step_lib.lay_out(model, optimizer, PartitionRules(), mesh)
    schedule = optimizer_lib.make_schedule(ADAM, UPDATES)
    train_step = step_lib.make_train_step(model, optimizer, schedule, layout, mesh, loss_chunk=5)
    state = step_lib.begin(layout, optimizer, jax.device_put(params, layout.shardings.params))
    losses = []
    for _ in range(UPDATES):
        state, metrics = train_step(state, {}, batch, jax.random.key(0))
        losses.append(float(metrics["loss_sum"] / metrics["target_tokens"]))
    return losses, state.params


@pytest.mark.parametrize("kind", ["pre_norm", "post_norm"])
def test_updates_are_those_of_transformers_and_adamw(kind, float64, tmp_path):
    small = dataclasses.replace(peers.KINDS[kind], dropout=0.0, attention="xla", **double.DOUBLE)
    theirs = peers.transformers_model(small).double()
    theirs.save_pretrained(tmp_path / "before")
    batch = make_batch(small)
    found, params = our_losses(small, weights_hf.read_params(tmp_path / "before", small), batch)
    expected = their_losses(theirs, batch)
    assert expected[-1] < expected[0] - 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    theirs.save_pretrained(tmp_path / "after")
    after = weights_hf.read_params(tmp_path / "after", small)
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        assert leaf.dtype == np.float64
        mine = params
        for key in path:
            mine = mine[key.key]
        np.testing.assert_allclose(mine, leaf, rtol=0, atol=1e-12, err_msg=jax.tree_util.keystr(path))
