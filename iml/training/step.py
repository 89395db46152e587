"""One step of training: a pure function, compiled once for the whole mesh.

The loss is the summed negative log-likelihood of the target tokens over the number of target tokens in the
global batch (metaseq's criterion). Sums and counts stay apart until the end, so micro-batches, packing and
mesh change nothing but rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from iml.errors import InputError
from iml.models.opt import OPT
from iml.training import loss_scale, partition
from iml.training.objective import Batch, Metrics, make_objective
from iml.training.packed import Packing
from iml.training.rules import PartitionRules
from iml.training.tuning import Tuning, join


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
    loss_chunk: int | None = None,
    packing: Packing = Packing(),  # noqa: B008 (frozen)
) -> Callable[..., tuple[Any, Metrics]]:
    """The gradient of the loss of a global batch, and its metrics.

    Args:
      microbatches: parts into which every device's rows are cut, computed one after the other; their gradients are
        added in float32.
      task_benchmarks: see `make_objective`, as `benchmarks` and `loss_chunk`.
      packing: what the model sees of a row's documents.

    Returns:
      A function of (trained parameters, frozen ones, batch, key for dropout, loss scale), which gives the loss's
      gradients for the trained ones, float32 and no longer scaled, and the metrics of `make_objective`.
    """
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, partition.BATCH_AXES))
    table = layout.params_shardings["embed_tokens"]["embedding"].spec
    objective = make_objective(model, mesh, table, task_benchmarks, benchmarks, loss_chunk)

    def summed(trained, frozen, batch, key, scale):
        params = join(trained, frozen)
        hidden = model.hidden(
            params,
            batch["tokens"],
            *packing.seen(batch),
            dropout_key=key,
            documents=batch["task_ids"].shape[1],
        )
        return objective(params, hidden, batch, scale)

    def gradients(trained, frozen, batch, key, scale=1.0):
        differentiate = jax.grad(summed, has_aux=True)
        if microbatches == 1:
            grads, metrics = differentiate(trained, frozen, batch, key, scale)
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
                lambda leaf: jnp.zeros(leaf.shape, jnp.float32),
                jax.eval_shape(differentiate, trained, frozen, first, key, scale),
            )

            def accumulate(total, numbered):
                number, part = numbered
                part_key = None if key is None else jax.random.fold_in(key, number)
                new = differentiate(trained, frozen, part, part_key, scale)
                total = jax.tree.map(jnp.add, total, new)
                return (jax.lax.with_sharding_constraint(total[0], layout.shardings.params), total[1]), None

            (grads, metrics), _ = jax.lax.scan(accumulate, zeros, (jnp.arange(microbatches), parts))
        divisor = jnp.maximum(metrics["target_tokens"], 1.0) * scale
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) / divisor, grads), metrics

    return gradients


def make_train_step(
    model: OPT,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    layout: Layout,
    mesh: jax.sharding.Mesh,
    microbatches: int = 1,
    task_benchmarks: Sequence[int] = (0,),
    benchmarks: int = 1,
    loss_chunk: int | None = None,
    packing: Packing = Packing(),  # noqa: B008 (frozen)
) -> Callable[[TrainState, Any, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """The compiled step (state, frozen parameters, batch, run's key) -> (state, metrics).

    The state given is donated, the frozen parameters are not: the next step takes them again.

    Metrics are those of `make_objective` and `grad_norm` (before clipping) and `learning_rate`, float32 []; under
    loss scaling (`optimizer` comes from `loss_scale.guard`) also `loss_scale` and `skipped`, 1 where the update was
    left out, whose `grad_norm` is 0.
    """
    of_loss = (task_benchmarks, benchmarks, loss_chunk, packing)
    gradients = make_gradients(model, layout, mesh, microbatches, *of_loss)
    whole, rows = partition.replicated(mesh), partition.shard_batch(mesh)

    def train_step(
        state: TrainState, frozen: Any, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        dropout_key = jax.random.fold_in(key, state.step) if model.drops else None
        before = state.opt_state if isinstance(state.opt_state, loss_scale.Scaled) else None
        scale = before.scale if before else 1.0
        grads, metrics = gradients(state.params, frozen, batch, dropout_key, scale)
        metrics["grad_norm"] = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        done = state.step
        if before:
            skipped = opt_state.skipped - before.skipped
            metrics |= {"loss_scale": scale, "skipped": jnp.float32(skipped)}
            metrics["grad_norm"] = jnp.where(skipped > 0, 0.0, metrics["grad_norm"])
            done = state.step - before.skipped
        metrics["learning_rate"] = jnp.float32(schedule(done))
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), metrics

    return jax.jit(
        train_step,
        in_shardings=(layout.shardings, layout.frozen_shardings, rows, whole),
        out_shardings=(layout.shardings, whole),
        donate_argnums=(0,),
    )


def check_batch_size(batch_size: int, microbatches: int, shards: int) -> None:
    """Every device must get the same number of rows in every microbatch.

    Args:
      shards: parts into which the mesh splits rows.

    Raises:
      InputError: they cannot be divided.
    """
    if microbatches < 1 or batch_size % (shards * microbatches):
        raise InputError(
            f"{batch_size} rows cannot be divided into {microbatches} microbatches of {shards} parts each",
            field="train.batch_size",
            remedy=f"Choose a multiple of {shards * max(microbatches, 1)}, or other microbatches or mesh",
        )
