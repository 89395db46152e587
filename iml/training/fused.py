"""LOMO: a step whose backward pass updates each layer with its gradient and drops it (arXiv 2306.09782).

The forward pass keeps each layer's input. The backward pass is a loop over the layers, the last one first, that
carries the stacked parameters: it computes a layer again from its input, differentiates it and writes the layer's
new parameters where the old ones were. So neither a tree of gradients nor moments exist beside the parameters; what
the gradients of the ends take, mainly the token table's, is there throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from iml.models.opt import OPT
from iml.training import partition
from iml.training import step as step_lib
from iml.training.objective import Batch, Metrics, make_objective
from iml.training.optimizer import Lomo, check_lomo, make_schedule
from iml.training.packed import Packing
from iml.training.step import Layout, TrainState

Step = Callable[[TrainState, Any, Batch, jax.Array], tuple[TrainState, Metrics]]


def make_step(
    model: OPT,
    config: Any,
    optimizer: optax.GradientTransformation,
    steps: int,
    layout: Layout,
    mesh: jax.sharding.Mesh,
    microbatches: int = 1,
    task_benchmarks: Sequence[int] = (0,),
    benchmarks: int = 1,
    loss_chunk: int | None = None,
    packing: Packing = Packing(),  # noqa: B008 (frozen)
) -> Step:
    """The compiled step that an optimiser's settings ask for; see `step.make_train_step`.

    Args:
      config: the optimiser's settings.
      optimizer: the optimiser that they make.
      steps: updates of the whole run.

    Raises:
      InputError: as `check_lomo`.
    """
    check_lomo(config, microbatches, model.config.dtype, not layout.frozen)
    schedule = make_schedule(config, steps)
    of_loss = (task_benchmarks, benchmarks, loss_chunk, packing)
    if not isinstance(config, Lomo):
        return step_lib.make_train_step(model, optimizer, schedule, layout, mesh, microbatches, *of_loss)
    return make_fused_step(model, config, schedule, layout, mesh, *of_loss)


def make_fused_step(
    model: OPT,
    config: Lomo,
    schedule: optax.Schedule,
    layout: Layout,
    mesh: jax.sharding.Mesh,
    task_benchmarks: Sequence[int] = (0,),
    benchmarks: int = 1,
    loss_chunk: int | None = None,
    packing: Packing = Packing(),  # noqa: B008 (frozen)
) -> Step:
    """LOMO's step, compiled; arguments and metrics are those of `step.make_train_step`, there being nothing frozen.

    Layers are recomputed in the backward pass, whatever `OPTConfig.remat` says; twice where the norm is clipped.
    """
    whole, rows = partition.replicated(mesh), partition.shard_batch(mesh)
    params_shardings = layout.shardings.params
    table = params_shardings["embed_tokens"]["embedding"].spec
    objective = make_objective(model, mesh, table, task_benchmarks, benchmarks, loss_chunk)
    layer_shardings = jax.tree.map(
        lambda sharding: jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*sharding.spec[1:])),
        params_shardings["layers"],
    )
    ends_shardings = {name: tree for name, tree in params_shardings.items() if name != "layers"}

    def train_step(state: TrainState, frozen: Any, batch: Batch, key: jax.Array):
        rate = jnp.float32(schedule(state.step))
        dropout_key = jax.random.fold_in(key, state.step) if model.drops else None
        keys = model.dropout_keys(dropout_key)
        layer_keys, ends_key = (None, None) if keys is None else (keys[:-1], keys[-1])
        layers = state.params["layers"]
        ends = {name: tree for name, tree in state.params.items() if name != "layers"}
        (segment_ids, positions), documents = packing.seen(batch), batch["task_ids"].shape[1]

        def enter(ends):
            return model.enter(ends, batch["tokens"], positions, ends_key)

        def leave(ends, x):
            return objective(ends, model.leave(ends, x), batch)

        def layer(params, x, number):
            key = None if layer_keys is None else layer_keys[number]
            return model.layer(params, x, segment_ids, key, documents)

        numbers = jnp.arange(model.config.num_layers)

        def forward(x, scanned):
            params, number = scanned
            return layer(params, x, number), x

        x, inputs = jax.lax.scan(forward, enter(ends), (layers, numbers))
        _, pull_ends, metrics = jax.vjp(leave, ends, x, has_aux=True)
        count = jnp.maximum(metrics["target_tokens"], 1.0)
        by_ends, by_last = pull_ends(jnp.float32(1.0))

        def backward(layers, factor):
            """Updates the layers, unless `factor` is None; gives the gradient of the first one's input as well,
            and the squared norm of the layers' gradients."""

            def body(carry, number):
                layers, by_output, squares = carry
                params = jax.tree.map(lambda leaf: leaf[number], layers)
                _, pull = jax.vjp(lambda params, x: layer(params, x, number), params, inputs[number])
                grads, by_input = pull(by_output)
                grads = _float32(jax.lax.with_sharding_constraint(grads, layer_shardings), count)
                squares += _squares(grads)
                if factor is not None:
                    layers = jax.tree.map(
                        lambda leaf, param, grad: jax.lax.dynamic_update_index_in_dim(
                            leaf, descend(param, grad, factor), number, 0
                        ),
                        layers,
                        params,
                        grads,
                    )
                return (layers, by_input, squares), None

            start = (layers, by_last, jnp.float32(0))
            (layers, by_first, squares), _ = jax.lax.scan(body, start, numbers, reverse=True)
            return layers, by_first, squares

        def descend(param, grad, factor):
            if config.clip_value is not None:
                grad = jnp.clip(grad, -config.clip_value, config.clip_value)
            return (param.astype(jnp.float32) - rate * factor * grad).astype(param.dtype)

        def of_ends(by_first):
            (by_entering,) = jax.vjp(enter, ends)[1](by_first)
            summed = jax.tree.map(lambda a, b: a.astype(jnp.float32) + b, by_ends, by_entering)
            return _float32(jax.lax.with_sharding_constraint(summed, ends_shardings), count)

        factor = jnp.float32(1.0)
        if config.clip is not None:
            _, by_first, squares = backward(layers, None)
            norm = jnp.sqrt(squares + _squares(of_ends(by_first)))
            factor = config.clip / jnp.maximum(norm, config.clip)
        layers, by_first, squares = backward(layers, factor)
        grads = of_ends(by_first)
        metrics["grad_norm"] = jnp.sqrt(squares + _squares(grads))
        metrics["learning_rate"] = rate
        ends = jax.tree.map(lambda param, grad: descend(param, grad, factor), ends, grads)
        return TrainState(state.step + 1, {**ends, "layers": layers}, state.opt_state), metrics

    return jax.jit(
        train_step,
        in_shardings=(layout.shardings, layout.frozen_shardings, rows, whole),
        out_shardings=(layout.shardings, whole),
        donate_argnums=(0,),
    )


def _float32(grads: Any, count: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) / count, grads)


def _squares(grads: Any) -> jax.Array:
    return jnp.sum(jnp.stack([jnp.sum(leaf**2) for leaf in jax.tree.leaves(grads)]))
