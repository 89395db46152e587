"""One step of training: a pure function, compiled once for the whole mesh.

The loss is the summed negative log-likelihood of the target tokens over the number of target tokens in the
global batch (metaseq's criterion). Sums and counts stay apart until the end, so micro-batches, packing and
mesh change nothing but rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from iml.errors import InputError
from iml.models import losses
from iml.models.opt import OPT
from iml.training import partition
from iml.training.rules import PartitionRules
from iml.training.tuning import Tuning, join

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """All that a step changes.

    Attributes:
      step: steps done, int32 [].
      params: the parameters that are trained.
      opt_state: the optimiser's state, of them alone.
    """

    step: jax.Array
    params: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the parameters and the state of a run lie on a mesh.

    Attributes:
      abstract: abstract arrays of the state.
      shardings: their shardings.
      frozen: abstract arrays, with shardings, of the parameters that are not trained; {} in full tuning.
    """

    abstract: TrainState
    shardings: TrainState
    frozen: Any

    @property
    def placed(self) -> TrainState:
        """Abstract arrays with their shardings."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self.abstract,
            self.shardings,
        )

    @property
    def frozen_shardings(self) -> Any:
        return jax.tree.map(lambda leaf: leaf.sharding, self.frozen)

    @property
    def params_shardings(self) -> Any:
        """Shardings of the whole model's parameters."""
        return join(self.shardings.params, self.frozen_shardings)


def lay_out(
    model: OPT,
    optimizer: optax.GradientTransformation,
    rules: PartitionRules,
    mesh: jax.sharding.Mesh,
    tuning: Tuning = Tuning(),  # noqa: B008 (frozen)
) -> Layout:
    """Where parameters and optimiser state lie; moments lie as their parameters do.

    Args:
      optimizer: of the parameters that are trained.
      tuning: says which those are.
    """
    shardings = partition.shard_params(model.abstract_params(), model.logical_axes(), rules, mesh)
    params, frozen = tuning.split(model.abstract_params())
    placed, frozen_shardings = tuning.split(shardings)
    whole = partition.replicated(mesh)
    opt_state = jax.eval_shape(optimizer.init, params)
    opt_shardings = optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        opt_state,
        placed,
        transform_non_params=lambda _: whole,
    )
    step = jax.ShapeDtypeStruct((), jnp.int32)
    frozen = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        frozen,
        frozen_shardings,
    )
    return Layout(TrainState(step, params, opt_state), TrainState(whole, placed, opt_shardings), frozen)


def begin(layout: Layout, optimizer: optax.GradientTransformation, params: Any, step: int = 0) -> TrainState:
    """The state of a run that starts from parameters, of which it gets those that are trained."""
    opt_state = jax.jit(optimizer.init, out_shardings=layout.shardings.opt_state)(params)
    return TrainState(_whole(step, layout), params, opt_state)


def resume(layout: Layout, step: int, params: Any, opt_state: Any) -> TrainState:
    """The state of a run that goes on from a checkpoint."""
    return TrainState(_whole(step, layout), params, opt_state)


def _whole(step: int, layout: Layout) -> jax.Array:
    return jax.jit(lambda: jnp.int32(step), out_shardings=layout.shardings.step)()


def make_gradients(
    model: OPT,
    layout: Layout,
    mesh: jax.sharding.Mesh,
    microbatches: int = 1,
    task_benchmarks: Sequence[int] = (0,),
    benchmarks: int = 1,
) -> Callable[[Any, Any, Batch, jax.Array], tuple[Any, Metrics]]:
    """The gradient of the loss of a global batch, and its metrics.

    Args:
      microbatches: parts into which every device's rows are cut, computed one after the other.
      task_benchmarks: for each task number the number of its benchmark.
      benchmarks: how many benchmarks there are, K.

    Returns:
      A function of (trained parameters, frozen ones, batch, key for dropout), which gives the loss's gradients
      for the trained ones and:
      loss_sum and target_tokens, tokens and positions: float32 []; benchmark_loss_sum and benchmark_tokens:
      float32 [K].
    """
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, partition.BATCH_AXES))
    benchmark_of = jnp.asarray(task_benchmarks, jnp.int32)

    def summed(trained, frozen, batch, key):
        params = join(trained, frozen)
        hidden = model.hidden(
            params, batch["tokens"], batch["segment_ids"], batch["positions"], dropout_key=key
        )
        hidden, targets, weights, segment_ids = _learnt(batch, hidden)
        # What weighs nothing adds nothing, whatever its logits are.
        nll = losses.token_nll(model.logits(params, hidden), targets) * weights
        nll = jnp.where(weights > 0, nll, 0.0)
        segment = jnp.maximum(segment_ids - 1, 0)
        task = jnp.take_along_axis(batch["task_ids"], segment, axis=1)
        benchmark = benchmark_of[jnp.maximum(task, 0)]
        one_hot = jax.nn.one_hot(benchmark, benchmarks, dtype=jnp.float32)
        metrics = {
            "loss_sum": nll.sum(),
            "target_tokens": weights.sum(),
            "tokens": (batch["segment_ids"] > 0).sum(dtype=jnp.float32),
            "positions": jnp.float32(batch["tokens"].size),
            "benchmark_loss_sum": jnp.einsum("bl,blk->k", nll, one_hot),
            "benchmark_tokens": jnp.einsum("bl,blk->k", weights, one_hot),
        }
        return metrics["loss_sum"], metrics

    def gradients(trained, frozen, batch, key):
        differentiate = jax.grad(summed, has_aux=True)
        if microbatches == 1:
            grads, metrics = differentiate(trained, frozen, batch, key)
        else:
            # Every device cuts its own rows: a microbatch takes each M-th row, so none has to move.
            parts = {
                name: jax.lax.with_sharding_constraint(
                    jnp.swapaxes(array.reshape(-1, microbatches, *array.shape[1:]), 0, 1), rows
                )
                for name, array in batch.items()
            }
            first = jax.tree.map(lambda array: array[0], parts)
            zeros = jax.tree.map(
                lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
                jax.eval_shape(differentiate, trained, frozen, first, key),
            )

            def accumulate(total, numbered):
                number, part = numbered
                part_key = None if key is None else jax.random.fold_in(key, number)
                new = differentiate(trained, frozen, part, part_key)
                total = jax.tree.map(jnp.add, total, new)
                return (jax.lax.with_sharding_constraint(total[0], layout.shardings.params), total[1]), None

            (grads, metrics), _ = jax.lax.scan(accumulate, zeros, (jnp.arange(microbatches), parts))
        count = jnp.maximum(metrics["target_tokens"], 1.0)
        return jax.tree.map(lambda leaf: leaf / count.astype(leaf.dtype), grads), metrics

    return gradients


def _learnt(batch: Batch, hidden: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Hidden states, targets, weights and segment ids of the positions that the loss is taken at.

    Those are the batch's `target_positions` if it has them, else all: logits over the whole vocabulary are
    the largest arrays of a step, and few positions of instruction data are learnt.
    """
    fields = (batch["targets"], batch["loss_weights"], batch["segment_ids"])
    if "target_positions" not in batch:
        return hidden, *fields
    places = batch["target_positions"]
    # Negative places stand for none: they take what position 0 has, with no weight.
    index = jnp.maximum(places, 0)
    hidden = jnp.take_along_axis(hidden, index[..., None], axis=1)
    targets, weights, segment_ids = (jnp.take_along_axis(field, index, axis=1) for field in fields)
    return hidden, targets, jnp.where(places >= 0, weights, 0.0), segment_ids


def make_train_step(
    model: OPT,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    layout: Layout,
    mesh: jax.sharding.Mesh,
    microbatches: int = 1,
    task_benchmarks: Sequence[int] = (0,),
    benchmarks: int = 1,
) -> Callable[[TrainState, Any, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """The compiled step (state, frozen parameters, batch, run's key) -> (state, metrics).

    The state given is donated, the frozen parameters are not: the next step takes them again.

    Metrics are those of `make_gradients` and `grad_norm` (before clipping) and `learning_rate`, float32 [].
    """
    gradients = make_gradients(model, layout, mesh, microbatches, task_benchmarks, benchmarks)
    whole, rows = partition.replicated(mesh), partition.shard_batch(mesh)

    def train_step(
        state: TrainState, frozen: Any, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        dropout_key = jax.random.fold_in(key, state.step) if model.config.dropout else None
        grads, metrics = gradients(state.params, frozen, batch, dropout_key)
        metrics["grad_norm"] = optax.tree.norm(grads)
        metrics["learning_rate"] = jnp.float32(schedule(state.step))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), metrics

    return jax.jit(
        train_step,
        in_shardings=(layout.shardings, layout.frozen_shardings, rows, whole),
        out_shardings=(layout.shardings, whole),
        donate_argnums=(0,),
    )


def check_batch_size(batch_size: int, microbatches: int, mesh: jax.sharding.Mesh) -> None:
    """Every device must get the same number of rows in every microbatch.

    Raises:
      InputError: they cannot be divided.
    """
    shards = partition.batch_shards(mesh)
    if microbatches < 1 or batch_size % (shards * microbatches):
        raise InputError(
            f"{batch_size} rows cannot be divided into {microbatches} microbatches of {shards} parts each",
            field="train.batch_size",
            remedy=f"Choose a multiple of {shards * max(microbatches, 1)}, or other microbatches or mesh",
        )
