"""Dynamic loss scaling for float16, by metaseq's rule (`metaseq/optim/dynamic_loss_scaler.py`).

Gradients below 6e-8 are 0 in float16, so the loss is multiplied before they are computed. Where that makes them
overflow the update is left out and the scale shrinks; after a window of updates without overflow it grows, and
the window with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from iml.errors import InputError

if TYPE_CHECKING:
    import jax
    import optax


@dataclasses.dataclass(frozen=True)
class LossScale:
    """How the scale moves; the defaults are metaseq's.

    Attributes:
      initial: the scale of the first step.
      window: updates without overflow before the scale grows; it grows and shrinks as the scale does.
      factor: what scale and window are multiplied or divided by.
      tolerance: share of overflows, since the scale last changed, that does not make it shrink.
      minimum: the smallest scale. A run whose steps overflow even there learns nothing and ends.
    """

    initial: float = 4.0
    window: int = 256
    factor: int = 2
    tolerance: float = 0.0
    minimum: float = 2**-5

    def __post_init__(self):
        for name, least in (("window", 1), ("factor", 2)):
            if getattr(self, name) < least:
                raise _bad(name, f"must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.minimum <= self.initial:
            raise _bad("minimum", f"must be above 0 and at most initial {self.initial}, not {self.minimum}")
        if not 0 <= self.tolerance <= 1:
            raise _bad("tolerance", f"must be between 0 and 1, not {self.tolerance}")


class Scaled(NamedTuple):
    """State of an optimiser under loss scaling; all numbers are [], whole ones int32.

    Attributes:
      inner: the optimiser's own state.
      scale: what the next step's loss is multiplied by, float32.
      window: updates without overflow after which it grows.
      clean: updates since the last overflow.
      unchanged: steps since the scale last changed.
      overflows: how many of those overflowed.
      skipped: updates left out since the run began.
    """

    inner: Any
    scale: jax.Array
    window: jax.Array
    clean: jax.Array
    unchanged: jax.Array
    overflows: jax.Array
    skipped: jax.Array


def check_dtype(dtype: str, config: LossScale | None) -> None:
    """float16 needs loss scaling, and nothing else can use it.

    Raises:
      InputError: one is given without the other.
    """
    if (dtype == "float16") != (config is not None):
        raise InputError(
            f"OPTConfig.dtype {dtype!r} with{'out' if config is None else ''} loss scaling",
            field="train.loss_scale",
            remedy="Bind train.loss_scale = @LossScale() for float16, and only for it",
        )


def check_learning(window: Sequence[Mapping[str, Any]], config: LossScale | None) -> None:
    """A run must not go on where every step overflows at the smallest scale.

    Args:
      window: metrics of some steps, as `step.make_train_step` gives them.

    Raises:
      InputError: all of them were left out, the last one at the smallest scale.
    """
    if config is None or not all(metrics["skipped"] for metrics in window):
        return
    scale = float(window[-1]["loss_scale"])
    if scale / config.factor < config.minimum:
        raise InputError(
            f"{len(window)} steps one after the other overflowed in float16, at the smallest loss scale {scale}",
            field="LossScale.minimum",
            remedy="Train in bfloat16, with a lower learning rate, or from an earlier checkpoint",
        )


def guard(optimizer: optax.GradientTransformation, config: LossScale) -> optax.GradientTransformation:
    """The optimiser, which leaves out the updates whose gradients are not finite and moves the scale.

    It takes gradients that are divided by the scale already. A step that is left out does not count for the
    optimiser's schedule, as in metaseq.
    """
    import jax
    import jax.numpy as jnp
    import optax

    def init(params):
        whole = (config.window, 0, 0, 0, 0)
        return Scaled(optimizer.init(params), jnp.float32(config.initial), *map(jnp.int32, whole))

    def update(grads, state, params=None):
        # The norm is over all devices, so that all of them leave out the same updates.
        overflow = ~jnp.isfinite(optax.tree.norm(grads))
        updates, inner = optimizer.update(grads, state.inner, params)
        updates = jax.tree.map(lambda leaf: jnp.where(overflow, jnp.zeros_like(leaf), leaf), updates)
        inner = jax.tree.map(lambda old, new: jnp.where(overflow, old, new), state.inner, inner)
        return updates, _move(config, state, overflow)._replace(inner=inner)

    return optax.GradientTransformation(init, update)


def _move(config: LossScale, state: Scaled, overflow: jax.Array) -> Scaled:
    import jax.numpy as jnp

    unchanged, overflows = state.unchanged + 1, state.overflows + overflow
    clean = jnp.where(overflow, 0, state.clean + 1)
    grow = ~overflow & (clean % state.window == 0)
    shrink = overflow & (overflows >= config.tolerance * unchanged)
    smaller = state.scale / config.factor
    scale = jnp.where(
        grow,
        state.scale * config.factor,
        jnp.where(shrink & (smaller >= config.minimum), smaller, state.scale),
    )
    window = jnp.where(
        grow,
        state.window * config.factor,
        jnp.where(shrink, jnp.maximum(state.window // config.factor, 1), state.window),
    )
    changed = grow | shrink
    return Scaled(
        state.inner,
        scale,
        window,
        clean,
        jnp.where(changed, 0, unchanged),
        jnp.where(shrink, 0, overflows),
        state.skipped + overflow,
    )


def _bad(name: str, problem: str) -> InputError:
    return InputError(problem, field=f"LossScale.{name}")
