"""Adam as OPT-IML uses it (section 3.3, table 3), in float32."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from iml.errors import InputError
from iml.training.loss_scale import LossScale, guard

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class AdamConfig:
    """Adam with decoupled weight decay, linear warm-up, then linear decay to 0.

    The paper leaves weight decay and epsilon unsaid and refers to OPT; their defaults are those of OPT's
    launcher.

    Attributes:
      learning_rate: its peak.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: decoupled, times the learning rate; on matrices only, not on biases and layer norms.
      warmup_steps: steps to the peak.
      decay_steps: the step at which the rate would be 0; None for the end of the run.
      clip: largest L2 norm of the gradient; None does not clip.
    """

    learning_rate: float = 5e-5
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    warmup_steps: int = 60
    decay_steps: int | None = None
    clip: float | None = 1.0

    def __post_init__(self):
        for name in ("learning_rate", "eps", "weight_decay", "warmup_steps"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"must not be negative, not {getattr(self, name)}", field=f"AdamConfig.{name}"
                )


@dataclasses.dataclass(frozen=True)
class Lomo:
    """LOMO (arXiv 2306.09782): plain gradient descent, a layer's gradient used and dropped before the next one's.

    There are neither moments nor a tree of gradients; see `iml.training.fused`. The schedule is AdamConfig's.

    Attributes:
      learning_rate: its peak.
      warmup_steps: steps to the peak.
      decay_steps: the step at which the rate would be 0; None for the end of the run.
      clip: largest L2 norm of the gradient; it takes a second backward pass, as in the paper. None does not clip.
      clip_value: largest size of a gradient's element, which takes no second pass (the paper's section 3.3).
    """

    learning_rate: float = 0.03
    warmup_steps: int = 60
    decay_steps: int | None = None
    clip: float | None = 1.0
    clip_value: float | None = None

    def __post_init__(self):
        for name in ("learning_rate", "warmup_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"must not be negative, not {getattr(self, name)}", field=f"Lomo.{name}")
        for name in ("clip", "clip_value"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"must be above 0, or None, not {value}", field=f"Lomo.{name}")
        if self.clip and self.clip_value:
            raise InputError(
                "clips what clip clips already", field="Lomo.clip_value", remedy="Set one to None"
            )


def check_lomo(config: AdamConfig | Lomo, microbatches: int, dtype: str, tunes_all: bool) -> None:
    """What LOMO cannot do; another optimiser can.

    Raises:
      InputError: LOMO with microbatches, float16 or frozen parameters.
    """
    for clash, field, remedy in (
        (microbatches > 1, "train.microbatches", "Set it to 1: a sum of gradients would have to be kept"),
        (dtype == "float16", "OPTConfig.dtype", "Train in bfloat16"),
        (not tunes_all, "train.tuning", "Set it to None, or bind another optimiser"),
    ):
        if clash and isinstance(config, Lomo):
            raise InputError("does not go with LOMO", field=field, remedy=remedy)


def make_schedule(config: AdamConfig | Lomo, steps: int) -> optax.Schedule:
    """The learning rate of the update after `count` others.

    The first of w warm-up updates has 1/w of the peak; the last update of a run still has a rate above 0.
    """
    import jax.numpy as jnp

    total = config.decay_steps or steps
    warmup = min(config.warmup_steps, total - 1)

    def schedule(count):
        rise = (count + 1) / max(warmup, 1)
        fall = (total - count) / max(total - warmup, 1)
        return config.learning_rate * jnp.clip(jnp.minimum(rise, fall), 0.0, 1.0)

    return schedule


def make_optimizer(
    config: AdamConfig | Lomo, steps: int, axes: Any, loss_scale: LossScale | None = None
) -> optax.GradientTransformation:
    """The optimiser; LOMO's updates are not made here, and it has no state.

    Args:
      config: its settings.
      steps: updates of the whole run.
      axes: logical axes of the parameters, which tell matrices from vectors: layers are stacked, so
        the number of dimensions does not.
      loss_scale: leaves out updates that overflow, and moves the scale of the loss.
    """
    import jax
    import jax.numpy as jnp
    import optax

    if isinstance(config, Lomo):
        return optax.identity()
    decayed = jax.tree.map(_is_matrix, axes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    adam = optax.chain(
        optax.clip_by_global_norm(config.clip) if config.clip is not None else optax.identity(),
        optax.scale_by_adam(config.b1, config.b2, config.eps, mu_dtype=jnp.float32),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(make_schedule(config, steps)),
    )
    # Moments are float32 also where parameters are not.
    floats = lambda params: jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)  # noqa: E731
    made = optax.GradientTransformation(lambda params: adam.init(floats(params)), adam.update)
    return guard(made, loss_scale) if loss_scale else made


def _is_matrix(axes: tuple[str | None, ...]) -> bool:
    return sum(axis != "layers" for axis in axes) >= 2
