"""The projections of a layer: plain ones, and frozen ones with or without a low-rank adapter beside them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from iml.models import nf4
from iml.models.adapters import LoRA
from iml.models.attention import dropout
from iml.models.config import OPTConfig


class Linear(nnx.Linear):
    """x W + b in the compute dtype, normal W and zero b."""

    def __init__(
        self, config: OPTConfig, inputs: int, outputs: int, rngs: nnx.Rngs, *, std: float, bias: bool = True
    ):
        super().__init__(
            inputs,
            outputs,
            use_bias=bias,
            dtype=jnp.dtype(config.dtype),
            param_dtype=jnp.dtype(config.param_dtype),
            kernel_init=nnx.initializers.normal(std),
            rngs=rngs,
        )

    def __call__(self, x: Array, dropout_key: jax.Array | None = None) -> Array:
        return super().__call__(x)


class QuantisedKernel(nnx.Module):
    """The arrays of a quantised kernel, as parameters."""

    def __init__(self, kernel: Array):
        for name, array in nf4.quantise(kernel).items():
            setattr(self, name, nnx.Param(array))

    def arrays(self) -> nf4.Quantised:
        return {name: getattr(self, name)[...] for name in nf4.AXES}


class FrozenLinear(nnx.Module):
    """x W + b, with W as `LoRA.base` keeps it, and beside it an adapter where the projection is a target.

    Its W and b begin as those of `Linear` do with the same random numbers; A is uniform in +-1/sqrt(inputs) and B
    is zero, as in PEFT.

    Args:
      gather: puts a quantised W where it is multiplied.
    """

    def __init__(
        self,
        config: OPTConfig,
        lora: LoRA,
        adapted: bool,
        inputs: int,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        std: float,
        gather: Callable[[nf4.Quantised], nf4.Quantised] = lambda kernel: kernel,
    ):
        plain = Linear(config, inputs, outputs, rngs, std=std)
        self.dtype, self.rate, self.scale = plain.dtype, lora.dropout, lora.scale
        self._gather = gather
        self.bias = plain.bias
        if lora.base == "nf4":
            self.kernel = QuantisedKernel(plain.kernel[...])
        else:
            self.kernel = nnx.Param(plain.kernel[...].astype(lora.base))
        self.adapted = adapted
        if adapted:
            initial, kept = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"), config.param_dtype
            self.lora_a = nnx.Param(initial(rngs.lora(), (inputs, lora.rank), jnp.dtype(kept)))
            self.lora_b = nnx.Param(jnp.zeros((lora.rank, outputs), kept))

    def __call__(self, x: Array, dropout_key: jax.Array | None = None) -> Array:
        quantised = isinstance(self.kernel, QuantisedKernel)
        kernel = self.kernel.arrays() if quantised else self.kernel[...]

        def product(x: Array, kernel: Array | nf4.Quantised) -> Array:
            if quantised:
                return x @ nf4.dequantise(self._gather(kernel), self.dtype)
            return x @ kernel.astype(self.dtype)

        # The backward pass makes the compute dtype's copy of W again: kept, it would be of all layers at once.
        x = x.astype(self.dtype)
        y = jax.checkpoint(product, prevent_cse=False)(x, kernel) + self.bias[...].astype(self.dtype)
        if not self.adapted:
            return y
        a, b = (factor[...].astype(self.dtype) for factor in (self.lora_a, self.lora_b))
        return y + (dropout(x, self.rate, dropout_key) @ a) @ b * self.scale
